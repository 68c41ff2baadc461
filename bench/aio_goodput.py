"""Calls completed by tasks under load: a pool against channels with the tasks distributed by hand (`_goodput.py`)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence

import grpc

import grpcpool.aio
from _common import isolated_aio_channel
from _goodput import CALL_TIMEOUT, CONFIG, CONNECTIONS, ROUNDS, WORKERS, CallCounter, report
from grpcpool._demo.process import running_server
from grpcpool._demo.server import METHOD

_Call = grpc.aio.UnaryUnaryMultiCallable


async def load(channels: Sequence[grpc.aio.Channel]) -> CallCounter:
    """Makes calls for a while in tasks, distributed over `channels`."""
    counter = CallCounter()
    calls: list[_Call[bytes, bytes]] = [channel.unary_unary(METHOD) for channel in channels]
    async with asyncio.TaskGroup() as group:
        for call in itertools.islice(itertools.cycle(calls), WORKERS):
            group.create_task(_keep_calling(call, counter))
    return counter


async def _keep_calling(call: _Call[bytes, bytes], counter: CallCounter) -> None:
    while counter.running():
        with counter.call():
            await call(b"", timeout=CALL_TIMEOUT)


async def measure(target: str) -> list[tuple[CallCounter, CallCounter]]:
    """Makes calls on both sides in turn."""
    async with contextlib.AsyncExitStack() as stack:
        pool = await stack.enter_async_context(grpcpool.aio.ChannelPool(lambda: isolated_aio_channel(target), CONFIG))
        channels = [await stack.enter_async_context(isolated_aio_channel(target)) for _ in range(CONNECTIONS)]
        pairs = []
        for number in range(ROUNDS):
            if number % 2:
                dealt = await load(channels)
                pairs.append((await load([pool]), dealt))
            else:
                pairs.append((await load([pool]), await load(channels)))
        return pairs


def main() -> None:
    """Measures and reports."""
    with running_server() as port:
        pairs = asyncio.run(measure(f"127.0.0.1:{port}"))
    report(pairs, callers="tasks")


if __name__ == "__main__":
    main()
