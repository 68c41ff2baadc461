"""A fast gRPC server in a process of its own: prints its port, and ends when its standard input does.

``Echo`` answers with the request, ``Count`` with a stream of as many messages as the request has bytes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc


def _echo(request: bytes, _: grpc.ServicerContext) -> bytes:
    return request


def _count(request: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
    for _number in request:
        yield b"message"


def main() -> None:
    """Serves until standard input ends."""
    server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Echo": grpc.unary_unary_rpc_method_handler(_echo),
        "Count": grpc.unary_stream_rpc_method_handler(_count),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bench.Bench", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    # Without a GOAWAY, about which gRPC in still connected clients would complain.
    os._exit(0)


if __name__ == "__main__":
    main()
