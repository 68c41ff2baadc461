"""The demonstration's server, in a process of its own: prints its port, and ends when its standard input does.

The process that starts it holds the other end of its standard input, so the server always ends with that process.
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

# More than all callers of the demonstration, so that streams are the limit, not threads.
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
    # Ctrl-C reaches every process of the terminal; the server ends with the demonstration.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _server, port = start_server()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    # Exits without GOAWAY: an interrupted client may still be connected, and its gRPC would log an error.
    os._exit(0)


if __name__ == "__main__":
    main()
