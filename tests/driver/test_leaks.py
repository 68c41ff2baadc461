"""`leak_threshold`: a lease held for suspiciously long is reported once."""

from __future__ import annotations

import gc
import logging

import pytest

from grpcpool import ChannelPool, Lease
from grpcpool.events import Leaked
from grpcpool.testing import ManualClock
from support.fakes import FakeFactory
from support.pools import PoolMaker, Recorder
from support.waiting import eventually

pytestmark = pytest.mark.timeout(60)


def _acquire_without_release(pool: ChannelPool) -> Lease:
    return pool.acquire()


def test_it_is_logged_with_the_stack_that_acquired_it(
    make_pool: PoolMaker, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning names pool, connection and time, and shows where the lease was acquired; it comes once."""
    pool = make_pool(FakeFactory(), name="orders", leak_threshold=60)
    with caplog.at_level(logging.WARNING, "grpcpool"), _acquire_without_release(pool):
        clock.advance(60)
        clock.advance(60)
        clock.advance(600)
        # The thread that has opened the connection may emit it.
        eventually(lambda: caplog.records)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "pool 'orders': a lease of channel 1 has been held for 60.0 s; it was acquired here:" in record.message
    assert "in _acquire_without_release\n    return pool.acquire()" in record.message


def test_each_is_reported_at_its_own_time(make_pool: PoolMaker, clock: ManualClock) -> None:
    """Each of several leases is reported once it is held too long; released ones are not."""
    recorder = Recorder()
    pool = make_pool(FakeFactory(), listeners=[recorder], leak_threshold=60)
    first = pool.acquire(streams=1)
    clock.advance(30)
    second, third, fourth = (pool.acquire(streams=1) for _ in range(3))
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


def test_a_collected_lease_is_not_reported(make_pool: PoolMaker, clock: ManualClock) -> None:
    """A lease that the collector released is not reported again: its warning has reported it."""
    recorder = Recorder()
    pool = make_pool(FakeFactory(), listeners=[recorder], leak_threshold=60)

    def drop() -> None:
        pool.acquire()
        gc.collect()

    with pytest.warns(ResourceWarning):
        drop()
    pool.stats()
    clock.advance(100)
    assert not recorder.of(Leaked)


def test_by_the_real_clock_it_is_reported_by_itself(make_pool: PoolMaker) -> None:
    """A leak is reported even if the pool is not used."""
    recorder = Recorder()
    pool = make_pool(FakeFactory(), listeners=[recorder], leak_threshold=0.05, idle_timeout=None)
    with pool.acquire():
        (leaked,) = eventually(lambda: recorder.of(Leaked))
    assert leaked.held >= 0.05


def test_without_a_threshold_nothing_is_reported(make_pool: PoolMaker, clock: ManualClock) -> None:
    """By default a lease may be held without limit."""
    recorder = Recorder()
    pool = make_pool(FakeFactory(), listeners=[recorder])
    with pool.acquire():
        clock.advance(1e6)
    assert not recorder.of(Leaked)


def test_a_lease_that_is_held_does_not_delay_the_close(make_pool: PoolMaker, clock: ManualClock) -> None:
    """Its connection is closed by then: it is not reported, and no thread waits for that."""
    recorder = Recorder()
    pool = make_pool(FakeFactory(), listeners=[recorder], leak_threshold=60)
    lease = pool.acquire()
    pool.close()
    assert pool._driver.is_at_rest()
    assert not pool._driver.worker.runs
    clock.advance(60)
    assert not recorder.of(Leaked)
    lease.release()


def test_the_warning_of_a_dropped_lease_says_where_it_was_acquired(make_pool: PoolMaker, clock: ManualClock) -> None:
    """If the pool watches for leaks; a lease that has been reported is not described again."""
    pool = make_pool(FakeFactory(), leak_threshold=60)
    lease = _acquire_without_release(pool)
    with pytest.warns(ResourceWarning, match=r"it was acquired here:\n(?s:.)*in _acquire_without_release"):
        del lease
    lease = _acquire_without_release(pool)
    clock.advance(60)
    with pytest.warns(ResourceWarning, match=r"was dropped without release\(\)$"):
        del lease
