"""A server on asyncio that takes channel options, run as a process of its own by `resilience.servers`.

As `support/server_script.py` it imports nothing of the project, prints its port when it serves, and ends when its
standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc


async def echo(request: bytes, context: Any) -> bytes:
    """Answers with the request."""
    return request


async def slow(request: bytes, context: Any) -> bytes:
    """Answers with the request after as many milliseconds as it says."""
    await asyncio.sleep(int(request) / 1000)
    return request


async def peer(request: bytes, context: Any) -> bytes:
    """Answers with the address of the client's end of the connection."""
    address: str = context.peer()
    return address.encode()


async def count(request: bytes, context: Any) -> AsyncIterator[bytes]:
    """For ``n,ms``: n messages with so many milliseconds before each."""
    number, _, pause = request.decode().partition(",")
    for i in range(int(number)):
        await asyncio.sleep(int(pause or 0) / 1000)
        yield str(i).encode()


def option(text: str) -> tuple[str, int]:
    """Reads ``name=number``."""
    name, _, value = text.partition("=")
    return name, int(value)


async def serve(port: int, options: list[tuple[str, int]]) -> None:
    """Serves until standard input ends."""
    methods: dict[str, Any] = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Slow": grpc.unary_unary_rpc_method_handler(slow),
        "Peer": grpc.unary_unary_rpc_method_handler(peer),
        "Count": grpc.unary_stream_rpc_method_handler(count),
    }
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", methods),))
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    sys.stdout.write(f"{bound}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    os._exit(0)


def main() -> None:
    """Takes the arguments."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--option", type=option, action="append", default=[])
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.port, arguments.option))


if __name__ == "__main__":
    main()
