"""A pool's life by the clock: growing, shrinking, ageing, replacing; and what it tells of it."""

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
    """Those that are not 0."""
    return {name: getattr(stats, name) for name in _GAUGES if getattr(stats, name)}


@in_loop
async def test_it_grows_before_it_is_full() -> None:
    """When every connection carries `target_streams`, another is opened in the background; nobody waits for it."""
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
async def test_what_is_idle_is_closed(clock: ManualClock) -> None:
    """Unused for `idle_timeout`, a connection above `min_size` is closed; those of `min_size` stay."""
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
    """Nobody needs to use the pool for it."""
    factory = FakeFactory()
    async with pool_over(factory, min_size=0, max_size=2, idle_timeout=0.02) as pool:
        (await pool.acquire()).release()
        await until(lambda: not factory.open)
        assert pool.stats().size == 0


@pytest.mark.parametrize("how", ["refresh", "age"])
@in_loop
async def test_a_successor_is_ready_before_the_old_one_goes(clock: ManualClock, how: str) -> None:
    """It is made and primed first; the old one takes nothing new from then on, and closes when its last ends."""
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
    """While no other can be made the connection stays in service, however old it is."""
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
async def test_what_drains_for_too_long_is_cancelled(clock: ManualClock) -> None:
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
async def test_resizing_drains_what_is_too_many_and_opens_what_is_missing() -> None:
    """`resize()` returns at once; what is in use is left alone until it comes back."""
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
async def test_a_loose_pool_opens_extra_connections_that_go_when_they_come_back() -> None:
    """At `max_size` it opens up to `max_overflow` more at once, each for one lease."""
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
    """`PoolConfig.classic` makes an asyncio pool as it makes the other."""
    async with (
        ChannelPool(FakeFactory(), PoolConfig.classic(1, 2)) as pool,
        pool.acquire(),
        pool.acquire(),
        pool.acquire(),
    ):
        assert pool.stats().size == 3


@in_loop
async def test_the_gauges_follow() -> None:
    """Opening, ready, idle, in flight, waiting and draining are as they are at each moment."""
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
async def test_listeners_are_told_in_the_loop_in_order() -> None:
    """Each event is told once, in the order in which it happened, also what a thread has caused."""
    recorder = Recorder()
    factory = FakeFactory()
    async with pool_over(factory, max_size=1, max_waiters=1, listeners=[recorder]) as pool:
        held = await pool.acquire()
        waiting = asyncio.create_task(pool.acquire())
        await settle()
        with pytest.raises(Exception, match="the queue is full"):
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
