"""The world of asyncio's tasks and `grpc.aio`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from grpcpool import PoolConfig, aio, isolated

from .burst import CONFIG, PATIENCE, PATIENCES, Burst
from .server import METHOD
from .tally import CALL_TIMEOUT, Tally
from .watch import pauses
from .world import Options, World

# gRPC's own tasks end a moment after their calls.
_TO_END = 2.0

_Call = grpc.aio.UnaryUnaryMultiCallable


class Tasks(World):
    """Workers are tasks."""

    workers = "tasks"
    channel_type = "grpc.aio.Channel"

    def channel(self, target: str, options: Options = ()) -> grpc.aio.Channel:
        """Makes one channel of gRPC's own."""
        return grpc.aio.insecure_channel(target, options)

    def pool(self, target: str, config: PoolConfig, name: str) -> aio.ChannelPool:
        """Makes a pool."""
        return aio.ChannelPool(lambda: grpc.aio.insecure_channel(target, isolated()), config, name=name)

    def lease(self, burst: Burst, name: str) -> int:
        """Plays the burst."""
        return asyncio.run(self._lease(burst, name))

    async def _lease(self, burst: Burst, name: str) -> int:
        async with self.pool(burst.target, CONFIG, name) as pool:
            with burst.watch(pool):
                await pool.open(PATIENCE)
                async with asyncio.TaskGroup() as group:
                    for patience in PATIENCES:
                        group.create_task(_ask(pool, patience, burst))
                for pause in burst.rests(pool):
                    await asyncio.sleep(pause)
        return await _tasks_left()

    def call(self, make: Callable[[], Any], workers: int, tally: Tally) -> int:
        """Has tasks call."""
        return asyncio.run(self._call(make, workers, tally))

    async def _call(self, make: Callable[[], Any], workers: int, tally: Tally) -> int:
        async with make() as channel:
            await call_on([channel], workers, tally)
            tally.note(channel)
        return await _tasks_left()


async def _ask(pool: aio.ChannelPool, patience: float, burst: Burst) -> None:
    """Leases a connection for one call."""
    with burst.ask():
        async with pool.acquire(timeout=patience) as lease:
            await lease.unary_unary(METHOD)(b"", timeout=PATIENCE)


async def call_on(channels: Sequence[grpc.aio.Channel], workers: int, tally: Tally) -> None:
    """Has so many tasks, dealt out to the channels, call as long as the tally says."""
    calls: list[_Call[bytes, bytes]] = [channel.unary_unary(METHOD) for channel in channels]
    async with asyncio.TaskGroup() as group:
        for call in itertools.islice(itertools.cycle(calls), workers):
            group.create_task(_keep_calling(call, tally))


async def _keep_calling(call: _Call[bytes, bytes], tally: Tally) -> None:
    while tally.running():
        with tally.call():
            await call(b"", timeout=CALL_TIMEOUT)


async def _tasks_left() -> int:
    """How many tasks there are besides this one, after a moment."""
    for pause in pauses(lambda: len(asyncio.all_tasks()) == 1, _TO_END):
        await asyncio.sleep(pause)
    return len(asyncio.all_tasks()) - 1
