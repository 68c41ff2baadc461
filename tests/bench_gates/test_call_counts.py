"""What an uncontended lease costs, as counts of calls: the same on every machine, every time.

Times are measured by hand, in `bench/`. The bounds are what the code needs today; a change that raises one must say
why.
"""

from __future__ import annotations

import pytest

from bench_gates.counting import Calls
from grpcpool import ChannelPool
from support.fakes import FakeChannel
from support.pools import PoolMaker

# To acquire: ChannelPool.acquire, Fleet.acquire (called past the machine), pick, reload. To release: Lease.release,
# PoolMachine.release, reload; and Lease.__del__.
_PYTHON_CALLS = 8

# The clock twice, the lock's __exit__ twice, and the picker's coin. The release also checks whether the lock is held,
# because a finalizer may have interrupted the thread that holds it, and would wait for itself.
_C_CALLS = 6


def _open(make_pool: PoolMaker, size: int) -> ChannelPool:
    pool = make_pool(FakeChannel, min_size=size, max_size=size)
    pool.open()
    return pool


def _count(pool: ChannelPool, streams: int | None) -> Calls:
    """The calls of one acquire and release.

    Earlier leases have just used every connection, as in a busy pool; a connection not used recently would be asked
    whether it is up.
    """
    for lease in [pool.acquire() for _ in range(pool.stats().size)]:
        lease.release()
    with Calls() as calls:
        pool.acquire(streams=streams).release()
    return calls


def _least(pool: ChannelPool, streams: int | None) -> Calls:
    """The least of several counts: if the machine stalls for half a second in between, the connection is checked."""
    return min((_count(pool, streams) for _ in range(5)), key=lambda calls: calls.python.total())


@pytest.mark.parametrize("streams", [None, 1])
def test_an_uncontended_lease_costs_few_calls(make_pool: PoolMaker, streams: int | None) -> None:
    """An acquire and release that decide nothing make eight calls of Python functions, and about as many of C."""
    calls = _least(_open(make_pool, 4), streams)
    assert calls.python.total() <= _PYTHON_CALLS, calls.python
    assert calls.c.total() <= _C_CALLS, calls.c


@pytest.mark.parametrize("streams", [None, 1])
def test_it_creates_no_effects(make_pool: PoolMaker, streams: int | None) -> None:
    """An uncontended acquire and release create no effect objects: the driver has nothing to carry out."""
    calls = _least(_open(make_pool, 4), streams)
    assert not calls.made_effects


def test_the_count_sees_effects(make_pool: PoolMaker) -> None:
    """Effects would be noticed: a refresh dials, which needs effects, and they are counted."""
    pool = _open(make_pool, 1)
    with Calls() as calls:
        pool.refresh()
    assert calls.made_effects


@pytest.mark.parametrize("streams", [None, 1])
def test_the_cost_does_not_grow_with_the_pool(make_pool: PoolMaker, streams: int | None) -> None:
    """With sixty-four connections an acquire and release make the same calls as with four."""
    few, many = (_least(_open(make_pool, size), streams) for size in (4, 64))
    assert few.python == many.python
    assert few.c == many.c
