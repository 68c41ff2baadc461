"""Asyncio pools for tests, which check that nothing is left of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import grpc

from grpcpool import Listener, PoolConfig, isolated
from grpcpool.aio import ChannelPool
from grpcpool.testing.aio import FakeChannel
from support.servers import Server

_OF_POOLS = ("open_channel", "AioSlotChannel.close")


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
    assert not pool._core._tasks
    assert timer_of(pool) is None


def tasks_of_pools() -> list[asyncio.Task[Any]]:
    """The tasks of all pools in this loop."""
    return [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__qualname__", "") in _OF_POOLS]


def timer_of(pool: ChannelPool) -> asyncio.TimerHandle | None:
    """The timer that the pool has set in its loop, if any."""
    timer = pool._core._timer
    return None if timer is None or timer.cancelled() else timer


def drop(held: list[Any]) -> None:
    """Drops the only reference to an object."""
    held.clear()
    gc.collect()


def silent() -> FakeChannel:
    """A channel that connects when the test says so."""
    return FakeChannel(connects=False)


def holding() -> FakeChannel:
    """A channel whose calls run until the test ends them."""
    return FakeChannel(holds_calls=True)


def channel_to(server: Server) -> grpc.aio.Channel:
    """A factory for pools: each channel has a connection of its own, which reconnects quickly."""
    options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200)]
    return grpc.aio.insecure_channel(server.target, isolated(options))


async def unary(channel: Any, method: str, request: bytes, **how: Any) -> bytes:
    """Calls a unary method of a channel and returns its answer."""
    how.setdefault("timeout", 20)
    answer: bytes = await channel.unary_unary(method)(request, **how)
    return answer
