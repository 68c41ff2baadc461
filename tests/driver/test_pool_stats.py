"""What `stats()` reports during a pool's life."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from typing import Any

import pytest

from grpcpool import PoolStats, PoolTimeoutError
from grpcpool.testing import ManualClock
from support.fakes import FakeFactory, HangingFactory
from support.pools import PoolMaker
from support.waiting import LONG, background, eventually, together

pytestmark = pytest.mark.timeout(60)

_GAUGES = ("size", "ready", "opening", "draining", "idle", "in_flight", "waiting")
_COUNTERS = ("acquired", "waited", "timeouts", "rejected", "refused_streams", "opened", "open_failures")


def _some(stats: PoolStats, names: tuple[str, ...]) -> dict[str, Any]:
    """The values that are not 0."""
    return {name: getattr(stats, name) for name in names if getattr(stats, name)}


def test_a_new_pool_has_nothing(make_pool: PoolMaker) -> None:
    """Before its first use all figures are 0, except the bounds."""
    factory = FakeFactory()
    stats = make_pool(factory, min_size=2, max_size=7).stats()
    assert _some(stats, _GAUGES + _COUNTERS) == {}
    assert (stats.min_size, stats.max_size, stats.wait_seconds, stats.channels) == (2, 7, 0.0, ())
    assert not any(stats.closed.values())
    assert set(stats.closed) == {
        *(
            "idle",
            "age",
            "shrink",
            "refresh",
            "overflow",
            "discarded",
            "lost",
            "unresponsive",
            "address_gone",
            "pool_closed",
        ),
    }
    assert factory.calls == 0


def test_the_gauges_follow(make_pool: PoolMaker, clock: ManualClock) -> None:
    """Opening, ready, idle, in flight, waiting and draining are always current."""
    factory = HangingFactory()
    pool = make_pool(factory, min_size=0, max_size=1, max_streams=10)
    first = background(lambda: pool.acquire(streams=2))
    assert factory.entered.acquire(timeout=LONG)
    assert _some(pool.stats(), _GAUGES) == {"size": 1, "opening": 1, "waiting": 1}
    factory.go.set()
    two = first.result(LONG)
    assert _some(pool.stats(), _GAUGES) == {"size": 1, "ready": 1, "in_flight": 2}
    three = pool.acquire(streams=3)
    assert _some(pool.stats(), _GAUGES) == {"size": 1, "ready": 1, "in_flight": 5}
    three.discard()
    assert _some(pool.stats(), _GAUGES) == {"size": 1, "draining": 1, "in_flight": 2}
    two.release()
    assert pool.stats().draining == 0
    whole = pool.acquire()
    assert _some(pool.stats(), _GAUGES) == {"size": 1, "ready": 1, "in_flight": 1}
    whole.release()
    assert _some(pool.stats(), _GAUGES) == {"size": 1, "ready": 1, "idle": 1}
    pool.close()
    assert _some(pool.stats(), _GAUGES) == {}


def test_the_counters_count(make_pool: PoolMaker, clock: ManualClock) -> None:
    """Each acquire, wait, timeout, opening, failure and close is counted once."""
    pool = make_pool(FakeFactory(fails=1), min_size=0, max_size=1)
    first = background(pool.acquire)
    eventually(lambda: pool.stats().open_failures == 1)
    clock.advance(0.25)
    lease = first.result(LONG)
    assert _some(pool.stats(), _COUNTERS) == {"acquired": 1, "waited": 1, "opened": 1, "open_failures": 1}
    assert pool.stats().wait_seconds == pytest.approx(0.25)
    with pytest.raises(PoolTimeoutError):
        pool.acquire(timeout=0)
    lease.release()
    pool.acquire().release()
    pool.acquire().discard()
    stats = pool.stats()
    assert _some(stats, _COUNTERS) == {
        "acquired": 3,
        "waited": 1,
        "timeouts": 1,
        "opened": 1,
        "open_failures": 1,
    }
    assert {reason: number for reason, number in stats.closed.items() if number} == {"discarded": 1}


def test_each_connection_is_described(make_pool: PoolMaker, clock: ManualClock) -> None:
    """`channels` has each connection's state, load, limit, exclusiveness, times and calls."""
    pool = make_pool(FakeFactory(), max_size=2, max_streams=7)
    with pool.acquire(), pool.acquire(streams=2):
        one, two = pool.stats().channels
        assert (one.id, one.state, one.in_flight, one.limit, one.exclusive, one.calls) == (1, "ready", 1, 7, True, 1)
        assert (two.id, two.state, two.in_flight, two.limit, two.exclusive, two.calls) == (2, "ready", 2, 7, False, 1)
        clock.advance(50)
    one, two = pool.stats().channels
    assert (one.in_flight, one.exclusive, one.calls) == (0, False, 1)
    assert one.created_at.tzinfo is not None
    assert (one.used_at - one.created_at).total_seconds() == pytest.approx(50, abs=1)


def test_the_times_of_one_snapshot_agree(make_pool: PoolMaker) -> None:
    """In every snapshot, a connection not yet returned was last used when it was created."""
    pool = make_pool(FakeFactory())
    with pool.acquire():
        for _ in range(200):
            (channel,) = pool.stats().channels
            assert channel.used_at == channel.created_at


def test_the_times_of_two_snapshots_are_the_same(make_pool: PoolMaker) -> None:
    """When a connection was opened does not change from one snapshot to the next."""
    pool = make_pool(FakeFactory())
    pool.open()
    assert len({pool.stats().channels[0].created_at for _ in range(100)}) == 1


def test_a_snapshot_cannot_be_changed(make_pool: PoolMaker) -> None:
    """Its fields and its mapping are read-only, and it does not change when the pool does."""
    pool = make_pool(FakeFactory())
    pool.open()
    before = pool.stats()
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.size = 3  # type: ignore[misc]
    with pytest.raises(TypeError):
        before.closed["idle"] = 3  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.channels[0].calls = 3  # type: ignore[misc]
    pool.acquire().discard()
    assert (before.size, before.acquired, before.closed["discarded"]) == (1, 0, 0)


def test_a_snapshot_can_be_copied_and_serialized(make_pool: PoolMaker) -> None:
    """A snapshot can be pickled, and written to JSON as plain values."""
    pool = make_pool(FakeFactory())
    pool.open()
    pool.acquire().discard()
    stats = pool.stats()
    assert pickle.loads(pickle.dumps(stats)) == copy.deepcopy(stats) == stats  # noqa: S301 -- our own
    values = dataclasses.asdict(stats)
    assert json.loads(json.dumps(values, default=str))["closed"]["discarded"] == 1
    closed: Any = stats.closed
    for change in (closed.clear, closed.popitem, lambda: closed.update(idle=1), lambda: closed.__ior__({"idle": 1})):
        with pytest.raises(TypeError, match="cannot be changed"):
            change()


def test_a_snapshot_is_consistent(make_pool: PoolMaker) -> None:
    """While threads acquire and release, the figures of each snapshot add up."""
    pool = make_pool(FakeFactory(), max_size=3, max_streams=4)

    def work(i: int) -> None:
        for _ in range(100):
            if i == 0:
                stats = pool.stats()
                assert stats.in_flight == sum(channel.in_flight for channel in stats.channels)
                assert stats.size == len(stats.channels)
                assert stats.ready + stats.opening + stats.draining == stats.size
                assert all(channel.in_flight <= channel.limit for channel in stats.channels)
            else:
                pool.acquire(streams=1 + i % 3).release()

    together(6, work)
    stats = pool.stats()
    assert (stats.in_flight, stats.waiting, stats.acquired) == (0, 0, 500)
