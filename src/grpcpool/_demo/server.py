"""The demonstration's server, in a process of its own: prints its port, and ends when its standard input does.

Whoever starts it holds the other end of its standard input, so it ends with him, whichever way he does.
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
STREAMS: Final = 100

# More than all callers of the demonstration together: what limits them is to be the streams, not the threads.
_THREADS = 512


def _wait(request: bytes, _: grpc.ServicerContext) -> bytes:
    time.sleep(PAUSE)
    return request


def start_server() -> tuple[grpc.Server, int]:
    """Starts a server on a free port of the loopback interface; returns it and the port."""
    _, service, method = METHOD.split("/")
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {method: grpc.unary_unary_rpc_method_handler(_wait)}
    options = [("grpc.max_concurrent_streams", STREAMS), ("grpc.so_reuseport", 0)]
    server = grpc.server(ThreadPoolExecutor(_THREADS), options=options)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def main() -> None:
    """Serves until standard input ends."""
    # Ctrl-C reaches every process of the terminal; the demonstration's end is the server's, too.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _server, port = start_server()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    # Without a farewell: whoever was interrupted may be connected still, and his gRPC would complain of it.
    os._exit(0)


if __name__ == "__main__":
    main()
