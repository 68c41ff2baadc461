"""The demonstration's server, in a process of its own: prints its port, and ends when its standard input does.

The process that starts it holds the other end of its standard input, so the server always ends with that process. Each
line of the input is a command, answered with a line: ``sick`` makes the server fail each call at once, ``restart``
makes it restart on the same port. It runs as a script, without the package.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc

METHOD: Final = "/grpcpool.Demo/Wait"
PAUSE: Final = 0.05
"""Seconds that a call with an empty request takes. Other requests contain the seconds; their answer is the port."""
STREAMS: Final = 100

SICK, RESTART = "sick", "restart"

# More than all callers of the demonstration, so that streams are the limit, not threads.
_THREADS = 512

# A restart: calls may end, then nothing listens for a while. Until a port can be bound again may take a moment.
_STOP_GRACE = 1.0
_DOWN_FOR = 0.2
_BIND_AGAIN_AFTER = 0.05


class DemoServer:
    """The server, with what can be done to it."""

    def __init__(self) -> None:
        """Starts it on a free port of the loopback interface."""
        self._sick = False
        self._executor = ThreadPoolExecutor(_THREADS)
        self.port = 0
        self._server = self._start()

    def obey(self, command: str) -> None:
        """Does what the command says."""
        if command == SICK:
            self._sick = True
        elif command == RESTART:
            self._restart()

    def _wait(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        if self._sick:
            context.abort(grpc.StatusCode.UNAVAILABLE, "this server is sick")
        time.sleep(float(request) if request else PAUSE)
        return str(self.port).encode() if request else b""

    def _start(self) -> grpc.Server:
        _, service, method = METHOD.split("/")
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            method: grpc.unary_unary_rpc_method_handler(self._wait)
        }
        options = [("grpc.max_concurrent_streams", STREAMS), ("grpc.so_reuseport", 0)]
        server = grpc.server(self._executor, options=options)
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
        port = server.add_insecure_port(f"127.0.0.1:{self.port}")
        if not port:
            # What older releases of gRPC return if the port is in use; newer ones raise this error.
            raise RuntimeError("the port is in use")
        self.port = port
        server.start()
        return server

    def _restart(self) -> None:
        self._server.stop(_STOP_GRACE).wait()
        time.sleep(_DOWN_FOR)
        while True:
            try:
                self._server = self._start()
            except RuntimeError:
                time.sleep(_BIND_AGAIN_AFTER)
            else:
                return


def main() -> None:
    """Serves until standard input ends."""
    # Ctrl-C reaches every process of the terminal; the server ends with the demonstration.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = DemoServer()
    _answer(str(server.port))
    for line in iter(sys.stdin.readline, ""):
        server.obey(line.strip())
        _answer("done")
    # Exits without GOAWAY: an interrupted client may still be connected, and its gRPC would log an error.
    os._exit(0)


def _answer(text: str) -> None:
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # The demonstration has been interrupted.
        os._exit(0)


if __name__ == "__main__":
    main()
