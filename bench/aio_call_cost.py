"""What the pool adds to a call on asyncio: the client's CPU time, a pool of one connection against a bare channel.

Like the calls of stubs, these have a serializer and a deserializer, the cheapest possible.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import grpc

import grpcpool.aio
from _common import COUNT, ECHO, Block, compare, fast_server, isolated_aio_channel, report

_TIMES = 40
_ROUNDS, _STREAM_ROUNDS = 150, 60
_MESSAGES = 10
_BOUND_UNARY, _BOUND_STREAM = 1.05, 1.10

Calls = Callable[[], Coroutine[Any, Any, None]]
"""Makes the calls of one block."""


def sequential(channel: grpc.aio.Channel) -> Calls:
    """Unary calls, one after the other."""
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ECHO, bytes, bytes)

    async def block() -> None:
        for _ in range(_TIMES):
            await call(b"request")

    return block


def together(channel: grpc.aio.Channel) -> Calls:
    """The same number of unary calls, all at once."""
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ECHO, bytes, bytes)

    async def block() -> None:
        await asyncio.gather(*[call(b"request") for _ in range(_TIMES)])

    return block


def streams(channel: grpc.aio.Channel) -> Calls:
    """Streams, each read to its end."""
    call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(COUNT, bytes, bytes)

    async def block() -> None:
        for _ in range(_TIMES):
            async for _message in call(bytes(_MESSAGES)):
                pass

    return block


@contextlib.asynccontextmanager
async def channels(target: str) -> AsyncIterator[tuple[grpc.aio.Channel, grpc.aio.Channel]]:
    """A bare channel, and a pool of one connection."""
    config = grpcpool.PoolConfig(min_size=1, max_size=1)
    async with (
        isolated_aio_channel(target) as bare,
        grpcpool.aio.ChannelPool(lambda: isolated_aio_channel(target), config) as pool,
    ):
        await pool.open()
        yield bare, pool


def main() -> None:
    """Measures and reports."""
    loop = asyncio.new_event_loop()

    def block(calls: Calls) -> Block:
        return lambda: loop.run_until_complete(calls())

    with fast_server() as target, contextlib.closing(loop):
        stack = contextlib.AsyncExitStack()
        bare, pool = loop.run_until_complete(stack.enter_async_context(channels(target)))
        measured = {
            name: compare(block(calls(bare)), block(calls(pool)), rounds=rounds)
            for name, (calls, rounds) in {
                "unary, one after the other": (sequential, _ROUNDS),
                f"unary, {_TIMES} at once": (together, _ROUNDS),
                f"stream of {_MESSAGES} messages": (streams, _STREAM_ROUNDS),
            }.items()
        }
        loop.run_until_complete(stack.aclose())
    bounds = [_BOUND_UNARY, _BOUND_UNARY, _BOUND_STREAM]
    report(
        "CPU time a call on asyncio", measured, panel="calls", per=_TIMES, base="channel", ours="pool", bounds=bounds
    )


if __name__ == "__main__":
    main()
