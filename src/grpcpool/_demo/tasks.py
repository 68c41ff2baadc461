"""The world of asyncio tasks and `grpc.aio`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from functools import partial

import grpc

from grpcpool import PoolConfig, aio

from .burst import CONFIG, TIMEOUT, TIMEOUTS, Burst
from .call_counter import at_rest, stats_of
from .monitor import poll
from .server import METHOD
from .world import PATIENCE, Load, Options, World


class Tasks(World):
    """Workers are tasks."""

    workers = "tasks"

    def channel(self, target: str, options: Options = ()) -> grpc.aio.Channel:
        """Creates a plain gRPC channel."""
        return grpc.aio.insecure_channel(target, options)

    def pool(self, target: str, config: PoolConfig, name: str) -> aio.ChannelPool:
        """Creates a pool."""
        return aio.insecure_channel(target, config=config, name=name)

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

    def make_calls(self, loads: Sequence[Load]) -> int:
        """Makes the calls from tasks."""
        return asyncio.run(self._make_calls(loads))

    async def _make_calls(self, loads: Sequence[Load]) -> int:
        async with contextlib.AsyncExitStack() as stack:
            channels = [await stack.enter_async_context(load.create()) for load in loads]
            for channel in channels:
                await _connect(channel)
            async with asyncio.TaskGroup() as group:
                for load, channel in zip(loads, channels, strict=True):
                    for _ in range(load.callers):
                        group.create_task(_keep_calling(channel, load))
            for load, channel in zip(loads, channels, strict=True):
                for seconds in poll(partial(at_rest, channel), PATIENCE):
                    await asyncio.sleep(seconds)
                load.counter.at_rest = stats_of(channel)
        return await _tasks_left()


async def _connect(channel: grpc.aio.Channel) -> None:
    """Waits until the channel or pool is connected."""
    if isinstance(channel, aio.ChannelPool):
        await channel.open(PATIENCE)
    else:
        await asyncio.wait_for(channel.channel_ready(), PATIENCE)


async def _keep_calling(channel: grpc.aio.Channel, load: Load) -> None:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
    request = str(load.seconds).encode()
    for phase in load.phases():
        with phase.call() as answer:
            answer.append(await call(request, timeout=load.deadline))


async def _use_lease(pool: aio.ChannelPool, acquire_timeout: float, burst: Burst) -> None:
    """Acquires a connection for one call."""
    with burst.request():
        async with pool.acquire(timeout=acquire_timeout) as lease:
            await lease.unary_unary(METHOD)(b"", timeout=TIMEOUT)


async def _tasks_left() -> int:
    """Returns the number of other tasks. gRPC's own end shortly after their calls."""
    for seconds in poll(lambda: len(asyncio.all_tasks()) == 1, PATIENCE):
        await asyncio.sleep(seconds)
    return len(asyncio.all_tasks()) - 1
