"""A server on asyncio that counts the calls that it runs, run as a process of its own by `support.servers`.

As `server_script.py` it imports nothing of the project, prints its port when it serves, and ends when its
standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import grpc


class Running:
    """How many calls run."""

    def __init__(self) -> None:
        """None does."""
        self.now = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Counts a call while it runs."""
        self.now += 1
        try:
            yield
        finally:
            self.now -= 1


RUNNING = Running()


async def running(request: bytes, context: Any) -> bytes:
    """Answers with how many calls run, without this one."""
    return str(RUNNING.now).encode()


async def echo(request: bytes, context: Any) -> bytes:
    """Answers with the request."""
    return request


async def peer(request: bytes, context: Any) -> bytes:
    """Answers with the address of the client's end of the connection."""
    address: str = context.peer()
    return address.encode()


async def slow(request: bytes, context: Any) -> bytes:
    """Answers with the request after as many milliseconds as it says."""
    with RUNNING.one():
        await asyncio.sleep(int(request) / 1000)
    return request


async def fail(request: bytes, context: Any) -> bytes:
    """Fails with the status code that the request names."""
    await context.abort(grpc.StatusCode[request.decode()], f"failed as asked: {request.decode()}")
    raise AssertionError  # abort() raises


async def count(request: bytes, context: Any) -> AsyncIterator[bytes]:
    """For ``n,ms``: n messages with so many milliseconds before each."""
    number, _, pause = request.decode().partition(",")
    with RUNNING.one():
        for i in range(int(number)):
            await asyncio.sleep(int(pause or 0) / 1000)
            yield str(i).encode()


async def collect(requests: AsyncIterator[bytes], context: Any) -> bytes:
    """Answers with the requests in a row."""
    with RUNNING.one():
        return b",".join([request async for request in requests])


async def chat(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    """Answers each request with itself."""
    with RUNNING.one():
        async for request in requests:
            yield request


def option(text: str) -> tuple[str, int]:
    """Reads ``name=number``."""
    name, _, value = text.partition("=")
    return name, int(value)


async def serve(port: int, options: list[tuple[str, int]]) -> None:
    """Serves until standard input ends."""
    methods: dict[str, Any] = {
        "Running": grpc.unary_unary_rpc_method_handler(running),
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Peer": grpc.unary_unary_rpc_method_handler(peer),
        "Slow": grpc.unary_unary_rpc_method_handler(slow),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Collect": grpc.stream_unary_rpc_method_handler(collect),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
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
