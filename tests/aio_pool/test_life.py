"""A pool over time: growing, shrinking, ageing, replacing; and the events of it."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from grpcpool import Mode, PoolConfig, PoolStats
from grpcpool.aio import ChannelPool
from grpcpool.events import Closed, Draining, Granted, Opened, Opening, Rejected, Released, TimedOut
from grpcpool.testing import ManualClock
from grpcpool.testing.aio import FakeFactory
from support.aio_pools import holding, pool_over, silent
from support.loops import in_loop, settle, until
from support.pools import Recorder
from support.servers import ECHO

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("each_loop")]

State = grpc.ChannelConnectivity

_GAUGES = ("size", "ready", "opening", "draining", "idle", "in_flight", "waiting")


def _gauges(stats: PoolStats) -> dict[str, int]:
    """The gauges that are not 0."""
    return {name: getattr(stats, name) for name in _GAUGES if getattr(stats, name)}


@in_loop
async def test_it_grows_before_it_is_full() -> None:
    """When every connection carries `target_streams`, another is opened in the background, without a wait for it."""
    factory = FakeFactory(silent)
    async with pool_over(factory, max_size=3, max_streams=10, target_streams=2) as pool:
        opening = asyncio.create_task(pool.open())
        await settle()
        factory.made[0].set_state(State.READY)
        await opening
        leases = [await pool.acquire(0, streams=1) for _ in range(3)]
        await settle()
        assert len(factory.made) == 2
        factory.made[1].set_state(State.READY)
        await settle()
        leases.append(await pool.acquire(0, streams=1))
        assert [it.in_flight for it in pool.stats().channels] == [3, 1]
        for lease in leases:
            lease.release()


@in_loop
async def test_idle_connections_are_closed(clock: ManualClock) -> None:
    """Unused for `idle_timeout`, a connection above `min_size` is closed; `min_size` stay open."""
    factory = FakeFactory()
    async with pool_over(factory, min_size=1, max_size=3, idle_timeout=60) as pool:
        leases = [await pool.acquire() for _ in range(3)]
        for lease in leases:
            lease.release()
        clock.advance(59)
        await settle()
        assert len(factory.open) == 3
        clock.advance(2)
        await settle()
        assert len(factory.open) == 1
        assert pool.stats().closed["idle"] + pool.stats().closed["shrink"] == 2


@in_loop
async def test_by_the_real_clock_idle_connections_close_by_themselves() -> None:
    """Idle connections close even if the pool is not used."""
    factory = FakeFactory()
    async with pool_over(factory, min_size=0, max_size=2, idle_timeout=0.02) as pool:
        (await pool.acquire()).release()
        await until(lambda: not factory.open)
        assert pool.stats().size == 0


@pytest.mark.parametrize("how", ["refresh", "age"])
@in_loop
async def test_a_successor_is_ready_before_the_old_one_goes(clock: ManualClock, how: str) -> None:
    """A successor is opened and primed first; then the old one takes nothing new, and closes with its last call."""
    primed: list[object] = []
    settings: dict[str, Any] = {"max_age": 100, "age_jitter": 0} if how == "age" else {}
    factory = FakeFactory()
    async with pool_over(factory, max_size=1, prime=primed.append, max_streams=5, **settings) as pool:
        held = await pool.acquire(streams=1)
        if how == "refresh":
            pool.refresh()
        else:
            clock.advance(100)
        await settle()
        old, new = factory.made
        assert primed == [old, new]
        assert factory.open == [old, new]
        assert _gauges(pool.stats()) == {"size": 2, "ready": 1, "draining": 1, "idle": 1, "in_flight": 1}
        async with pool.acquire(timeout=0) as lease:
            await lease.unary_unary(ECHO)(b"a")
            assert (len(old.calls), len(new.calls)) == (0, 1)
        held.release()
        await settle()
        assert factory.open == [new]
        assert pool.stats().closed[how] == 1


@in_loop
async def test_without_a_successor_the_old_one_stays(clock: ManualClock) -> None:
    """While successors fail, the connection stays in service, however old it is."""
    factory = FakeFactory()
    async with pool_over(factory, max_size=1) as pool:
        await pool.open()
        factory._make = silent
        pool.refresh()
        for _ in range(5):
            await settle()
            clock.advance(20)
            (await pool.acquire(timeout=0)).release()
        assert not factory.made[0].closed
        assert pool.stats().open_failures >= 2


@in_loop
async def test_a_drain_that_takes_too_long_is_cancelled(clock: ManualClock) -> None:
    """After `drain_timeout` the calls of a retiring connection are cancelled, and it is closed."""
    factory = FakeFactory(holding)
    async with pool_over(factory, max_size=1, drain_timeout=60) as pool:
        async with pool.acquire() as lease:
            call = lease.unary_unary(ECHO)(b"")
        pool.refresh()
        await settle()
        clock.advance(59)
        await settle()
        assert not call.done()
        clock.advance(2)
        await settle()
        assert call.cancelled()
        assert factory.made[0].closed
        assert pool.stats().in_flight == 0


@in_loop
async def test_resizing_drains_surplus_and_opens_missing_connections() -> None:
    """`resize()` returns at once; what is in use is left alone until it is released."""
    factory = FakeFactory()
    async with pool_over(factory, min_size=3, max_size=3) as pool:
        await pool.open()
        leases = [await pool.acquire() for _ in range(3)]
        pool.resize(min_size=1, max_size=1)
        assert (pool.stats().min_size, pool.stats().max_size, pool.config.max_size) == (1, 1, 1)
        assert not any(channel.closed for channel in factory.made)
        for lease in leases:
            lease.release()
        await settle()
        assert len(factory.open) == 1
        pool.resize(min_size=2, max_size=5)
        await settle()
        assert len(factory.open) == 2
        with pytest.raises(ValueError, match="min_size"):
            pool.resize(min_size=6)


@in_loop
async def test_a_loose_pool_opens_extra_connections_and_closes_them_when_released() -> None:
    """At `max_size` up to `max_overflow` extra connections are opened at once, each for one lease."""
    factory = FakeFactory()
    async with pool_over(factory, max_size=1, mode=Mode.LOOSE, max_overflow=1) as pool:
        one, two = await pool.acquire(), await pool.acquire()
        waiting = asyncio.create_task(pool.acquire())
        await settle()
        assert (len(factory.open), waiting.done()) == (2, False)
        one.release()
        (await waiting).release()
        two.release()
        await settle()
        assert len(factory.open) == 1
        assert pool.stats().closed["overflow"] == 1


@in_loop
async def test_the_classic_settings_work() -> None:
    """`PoolConfig.classic` works for an asyncio pool as for a sync one."""
    async with (
        ChannelPool(FakeFactory(), PoolConfig.classic(1, 2)) as pool,
        pool.acquire(),
        pool.acquire(),
        pool.acquire(),
    ):
        assert pool.stats().size == 3


@in_loop
async def test_the_gauges_follow() -> None:
    """Opening, ready, idle, in flight, waiting and draining are always current."""
    factory = FakeFactory(silent)
    async with pool_over(factory, min_size=0, max_size=1, max_streams=10) as pool:
        assert _gauges(pool.stats()) == {}
        first = asyncio.create_task(pool.acquire(streams=2))
        await settle()
        assert _gauges(pool.stats()) == {"size": 1, "opening": 1, "waiting": 1}
        factory.made[0].set_state(State.READY)
        two = await first
        assert _gauges(pool.stats()) == {"size": 1, "ready": 1, "in_flight": 2}
        three = await pool.acquire(streams=3)
        three.discard()
        assert _gauges(pool.stats()) == {"size": 1, "draining": 1, "in_flight": 2}
        two.release()
        assert _gauges(pool.stats()) == {}


@in_loop
async def test_listeners_get_events_in_the_loop_in_order() -> None:
    """Each event is emitted once, in the order in which it happened, even if a thread caused it."""
    recorder = Recorder()
    factory = FakeFactory()
    async with pool_over(factory, max_size=1, max_waiters=1, listeners=[recorder]) as pool:
        held = await pool.acquire()
        waiting = asyncio.create_task(pool.acquire())
        await settle()
        with pytest.raises(Exception, match="too many"):
            await pool.acquire()
        held.release()
        lease = await waiting
        with pytest.raises(TimeoutError):
            await pool.acquire(timeout=0)
        pool.refresh()
        await settle()
        lease.release()
        await settle()
    kinds = [type(event) for event in recorder.told]
    assert kinds == [
        Opening,
        Opened,
        Granted,
        Rejected,
        Granted,
        Released,
        TimedOut,
        Opening,
        Opened,
        Draining,
        Closed,
        Released,
        Closed,
    ]
