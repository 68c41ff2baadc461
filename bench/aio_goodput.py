"""Calls completed by tasks under load: a pool against channels with the tasks distributed by hand (`_goodput.py`)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import grpc

import grpcpool.aio
from _common import isolated_aio_channel
from _goodput import MEASURED, ROUNDS, report
from grpcpool._demo.calls import CONFIG, CONNECTIONS, WORKERS
from grpcpool._demo.process import running_server
from grpcpool._demo.tally import Tally
from grpcpool._demo.tasks import call_on


async def load(channels: Sequence[grpc.aio.Channel]) -> Tally:
    """Makes calls for a while in tasks, distributed over `channels`."""
    tally = Tally(MEASURED)
    await call_on(channels, WORKERS, tally)
    return tally


async def measure(target: str) -> list[tuple[Tally, Tally]]:
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
    report(pairs)


if __name__ == "__main__":
    main()
