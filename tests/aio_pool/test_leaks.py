"""`leak_threshold`: a lease held for suspiciously long is reported once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from grpcpool.aio import ChannelPool, Lease
from grpcpool.events import Leaked
from grpcpool.testing import ManualClock
from grpcpool.testing.aio import FakeFactory
from support.aio_pools import drop, pool_over
from support.loops import in_loop, settle, until
from support.pools import Recorder

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("each_loop")]


async def _acquire_without_release(pool: ChannelPool) -> Lease:
    return await pool.acquire()


async def _acquire_in_a_block(pool: ChannelPool, clock: ManualClock) -> None:
    async with pool.acquire():
        clock.advance(60)


async def _acquire_in_time(pool: ChannelPool, clock: ManualClock) -> None:
    async with await asyncio.wait_for(pool.acquire(), 20):
        clock.advance(60)


async def _acquire_in_a_task(pool: ChannelPool, clock: ManualClock) -> None:
    async with await asyncio.create_task(pool.acquire()):
        clock.advance(60)


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "after a wait"])
@in_loop
async def test_it_is_logged_with_the_stack_that_acquired_it(
    clock: ManualClock, caplog: pytest.LogCaptureFixture, waits: bool
) -> None:
    """The warning names pool, connection and time, and shows where the lease was acquired; it comes once."""
    async with pool_over(FakeFactory(), name="orders", max_size=1, leak_threshold=60) as pool:
        held = await pool.acquire()
        if not waits:
            held.release()
        acquiring = asyncio.create_task(_acquire_without_release(pool))
        await settle()
        held.release()
        async with await acquiring:
            with caplog.at_level(logging.WARNING, "grpcpool"):
                clock.advance(60)
                clock.advance(60)
                clock.advance(600)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "pool 'orders': a lease of channel 1 has been held for 60.0 s; it was taken here:" in record.message
    assert "in _acquire_without_release\n    return await pool.acquire()" in record.message


@pytest.mark.parametrize(
    "acquire", [_acquire_in_a_block, _acquire_in_time, _acquire_in_a_task], ids=lambda it: it.__name__
)
@in_loop
async def test_the_stack_ends_at_the_users_acquire(
    clock: ManualClock, acquire: Callable[[ChannelPool, ManualClock], Awaitable[None]]
) -> None:
    """However the lease was awaited, the stack ends with the user's own line and omits the pool's."""
    recorder = Recorder()
    async with pool_over(FakeFactory(), listeners=[recorder], leak_threshold=60) as pool:
        await pool.open()
        await acquire(pool, clock)
    (leaked,) = recorder.of(Leaked)
    *_, where, line = leaked.stack.splitlines()
    assert where.endswith(f"in {acquire.__name__}")
    assert "pool.acquire()" in line


@in_loop
async def test_each_is_reported_at_its_own_time(clock: ManualClock) -> None:
    """Each of several leases is reported once it is held too long; released ones are not."""
    recorder = Recorder()
    async with pool_over(FakeFactory(), listeners=[recorder], leak_threshold=60) as pool:
        first = await pool.acquire(streams=1)
        clock.advance(30)
        second, third, fourth = [await pool.acquire(streams=1) for _ in range(3)]
        clock.advance(29)
        assert not recorder.of(Leaked)
        third.release()
        fourth.discard()
        clock.advance(1)
        assert [leaked.held for leaked in recorder.of(Leaked)] == [60.0]
        first.release()
        clock.advance(30)
        assert [leaked.held for leaked in recorder.of(Leaked)] == [60.0, 60.0]
        second.release()
        clock.advance(1000)
        assert len(recorder.of(Leaked)) == 2


@in_loop
async def test_a_collected_lease_is_not_reported(clock: ManualClock) -> None:
    """A lease that the collector released is not reported again: its warning has reported it."""
    recorder = Recorder()
    async with pool_over(FakeFactory(), listeners=[recorder], leak_threshold=60) as pool:
        held = [await pool.acquire()]
        with pytest.warns(ResourceWarning):
            drop(held)
        await settle()
        clock.advance(100)
        assert not recorder.of(Leaked)


@in_loop
async def test_by_the_real_clock_it_is_reported_by_itself() -> None:
    """A leak is reported even if the pool is not used."""
    recorder = Recorder()
    async with pool_over(FakeFactory(), listeners=[recorder], leak_threshold=0.05, idle_timeout=None) as pool:
        async with pool.acquire():
            (leaked,) = await until(lambda: recorder.of(Leaked))
        assert leaked.held >= 0.05


@in_loop
async def test_a_cancelled_wait_is_not_reported(clock: ManualClock) -> None:
    """A cancelled request is not reported as a leak, even if it was granted as it was cancelled."""
    recorder = Recorder()
    async with pool_over(FakeFactory(), max_size=1, listeners=[recorder], leak_threshold=60) as pool:
        held = await pool.acquire()
        waiting, granted = (asyncio.create_task(pool.acquire(None)) for _ in range(2))
        await settle()
        waiting.cancel()
        await settle()
        held.release()
        granted.cancel()
        await settle()
        clock.advance(1000)
        assert not recorder.of(Leaked)
        assert pool.stats().in_flight == 0
