"""The world of asyncio tasks and `grpc.aio`."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from grpcpool import PoolConfig, aio, isolated

from .burst import CONFIG, TIMEOUT, TIMEOUTS, Burst
from .call_counter import CALL_TIMEOUT, CallCounter
from .monitor import poll
from .server import METHOD
from .world import Options, World

# gRPC's own tasks end shortly after their calls.
_TASKS_END_WITHIN = 2.0

_Call = grpc.aio.UnaryUnaryMultiCallable


class Tasks(World):
    """Workers are tasks."""

    workers = "tasks"
    channel_type = "grpc.aio.Channel"

    def channel(self, target: str, options: Options = ()) -> grpc.aio.Channel:
        """Creates a plain gRPC channel."""
        return grpc.aio.insecure_channel(target, options)

    def pool(self, target: str, config: PoolConfig, name: str) -> aio.ChannelPool:
        """Creates a pool."""
        return aio.ChannelPool(lambda: grpc.aio.insecure_channel(target, isolated()), config, name=name)

    def run_leases(self, burst: Burst, name: str) -> int:
        """Runs the burst."""
        return asyncio.run(self._run_leases(burst, name))

    async def _run_leases(self, burst: Burst, name: str) -> int:
        async with self.pool(burst.target, CONFIG, name) as pool:
            with burst.watch(pool):
                await pool.open(TIMEOUT)
                async with asyncio.TaskGroup() as group:
                    for timeout in TIMEOUTS:
                        group.create_task(_use_lease(pool, timeout, burst))
                for seconds in burst.until_idle(pool):
                    await asyncio.sleep(seconds)
        return await _tasks_left()

    def run_calls(self, create: Callable[[], Any], workers: int, counter: CallCounter) -> int:
        """Makes the calls from tasks."""
        return asyncio.run(self._run_calls(create, workers, counter))

    async def _run_calls(self, create: Callable[[], Any], workers: int, counter: CallCounter) -> int:
        async with create() as channel:
            await call_on([channel], workers, counter)
            counter.record_stats(channel)
        return await _tasks_left()


async def _use_lease(pool: aio.ChannelPool, acquire_timeout: float, burst: Burst) -> None:
    """Acquires a connection for one call."""
    with burst.request():
        async with pool.acquire(timeout=acquire_timeout) as lease:
            await lease.unary_unary(METHOD)(b"", timeout=TIMEOUT)


async def call_on(channels: Sequence[grpc.aio.Channel], workers: int, counter: CallCounter) -> None:
    """Makes calls from `workers` tasks, spread over the channels, while the counter is running."""
    calls: list[_Call[bytes, bytes]] = [channel.unary_unary(METHOD) for channel in channels]
    async with asyncio.TaskGroup() as group:
        for call in itertools.islice(itertools.cycle(calls), workers):
            group.create_task(_keep_calling(call, counter))


async def _keep_calling(call: _Call[bytes, bytes], counter: CallCounter) -> None:
    while counter.running():
        with counter.call():
            await call(b"", timeout=CALL_TIMEOUT)


async def _tasks_left() -> int:
    """Returns the number of other tasks after a moment."""
    for seconds in poll(lambda: len(asyncio.all_tasks()) == 1, _TASKS_END_WITHIN):
        await asyncio.sleep(seconds)
    return len(asyncio.all_tasks()) - 1
