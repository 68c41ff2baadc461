"""Asyncio pools for tests, and checks of what is left of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import grpc

from grpcpool import Listener, PoolConfig
from grpcpool.aio import ChannelPool
from grpcpool.testing.aio import FakeChannel
from support.loops import until
from support.pools import assert_carries_nothing

_OF_POOLS = ("AioDriver._open", "AioSlotChannel.close")


@contextlib.asynccontextmanager
async def pool_over(
    factory: Callable[[], grpc.aio.Channel],
    *,
    name: str | None = None,
    listeners: Iterable[Listener] = (),
    **config: Any,
) -> AsyncIterator[ChannelPool]:
    """Yields a pool and closes it without grace at the end; then nothing of it may be left.

    Args:
        factory: The pool's.
        name: The pool's.
        listeners: The pool's.
        config: Fields of `PoolConfig`.
    """
    pool = ChannelPool(factory, PoolConfig(**config), name=name, listeners=listeners)
    try:
        yield pool
    except BaseException:
        with contextlib.suppress(Exception):
            await pool.close(0)
        raise
    await pool.close(0)
    assert_nothing_left(pool)


def assert_nothing_left(pool: ChannelPool) -> None:
    """A closed pool has no task, timer, connection or waiter, and nothing in flight."""
    stats = pool.stats()
    assert (stats.size, stats.in_flight, stats.waiting) == (0, 0, 0), pool
    assert not pool._driver._tasks
    assert timer_of(pool) is None


async def at_rest(pool: ChannelPool) -> None:
    """Returns when the pool carries nothing, and nothing waits; what was dropped has been collected."""
    gc.collect()
    await until(lambda: pool.stats().in_flight == 0, timeout=5)
    assert_carries_nothing(pool.stats())


def tasks_of_pools() -> list[asyncio.Task[Any]]:
    """The tasks of all pools in this loop."""
    return [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__qualname__", "") in _OF_POOLS]


def timer_of(pool: ChannelPool) -> asyncio.TimerHandle | None:
    """The timer that the pool has set in its loop, if any."""
    timer = pool._driver._timer
    return None if timer is None or timer.cancelled() else timer


def drop(held: list[Any]) -> None:
    """Drops references that nothing else holds."""
    held.clear()
    gc.collect()


def silent() -> FakeChannel:
    """A channel that connects when the test says so."""
    return FakeChannel(connects=False)


def holding() -> FakeChannel:
    """A channel whose calls run until the test ends them."""
    return FakeChannel(holds_calls=True)


async def unary(channel: Any, method: str, request: bytes, **how: Any) -> bytes:
    """Calls a unary method of a channel and returns its answer."""
    how.setdefault("timeout", 20)
    answer: bytes = await channel.unary_unary(method)(request, **how)
    return answer
