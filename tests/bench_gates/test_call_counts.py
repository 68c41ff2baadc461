"""What a lease costs, with and without a wait, as counts of calls: the same on every machine, every time.

Times are measured by hand, in `bench/`. The bounds are what the code needs today; a change that raises one must say
why.
"""

from __future__ import annotations

import gc
import math

import pytest

from bench_gates.counting import Calls
from grpcpool import ChannelPool, Lease
from support.fakes import FakeChannel
from support.pools import PoolMaker
from support.waiting import LONG, background, eventually

# To acquire: ChannelPool.acquire, Places.take or take_whole. To release: Lease.release, Places.release; and
# Lease.__del__.
_PYTHON_CALLS = 5

# The clock twice, the lock's __exit__ twice, and the picker's coin. The release also checks whether the lock is held,
# because a finalizer may have interrupted the thread that holds it, and would wait for itself.
_C_CALLS = 6

# To release to a waiter: as above, then the search for the first that waits, to which the place passes on as it is, and
# its way out of the queue; then the effect's way from the machine to the waiter, which is woken.
_PYTHON_CALLS_TO_GRANT = 16

# To acquire with a wait: the attempt without one, the waiter, its way into the queue, and its sleep.
_PYTHON_CALLS_TO_WAIT = 24


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
    """An acquire and release that decide nothing make five calls of Python functions, and about as many of C."""
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


def test_the_driver_has_few_attributes(make_pool: PoolMaker) -> None:
    """It has no dict of its own: then CPython calls its methods without looking them up, as each waiter does."""
    driver = _open(make_pool, 1)._driver
    assert driver.lock in gc.get_referents(driver)


def _contended(pool: ChannelPool, size: int) -> tuple[Calls, Calls]:
    """The calls of an acquire that waits behind others, and those of the release that ends its wait."""
    leases = [pool.acquire() for _ in range(size)]
    for slot in pool._driver.machine.fleet.slots:
        # However long the threads take, no connection is asked whether it is up.
        slot.channel.trusted_until = math.inf

    def wait() -> tuple[Calls, Lease]:
        with Calls() as calls:
            lease = pool.acquire()
        return calls, lease

    ahead = background(wait)
    eventually(lambda: pool.stats().waiting == 1)
    behind = background(wait)
    eventually(lambda: pool.stats().waiting == 2)
    leases[0].release()
    _, first = ahead.result(LONG)
    with Calls() as release:
        leases[1].release()
    acquire, second = behind.result(LONG)
    for lease in (first, second, *leases):
        lease.release()
    return acquire, release


def _least_contended(pool: ChannelPool, size: int) -> list[Calls]:
    """The least of several counts of each: a release does more if another thread holds the lock just then."""
    counts = zip(*(_contended(pool, size) for _ in range(5)), strict=True)
    return [min(each, key=lambda calls: calls.python.total() + calls.c.total()) for each in counts]


def test_a_lease_that_waits_costs_few_calls(make_pool: PoolMaker) -> None:
    """A release that grants, and an acquire that waits, make no calls that decide nothing."""
    acquire, release = _least_contended(_open(make_pool, 4), 4)
    assert acquire.python.total() <= _PYTHON_CALLS_TO_WAIT, acquire.python
    assert release.python.total() <= _PYTHON_CALLS_TO_GRANT, release.python


def test_the_cost_of_a_wait_does_not_grow_with_the_pool(make_pool: PoolMaker) -> None:
    """With sixty-four connections they make the same calls as with four: neither looks at the other connections."""
    few, many = (_least_contended(_open(make_pool, size), size) for size in (4, 64))
    assert [calls.python for calls in few] == [calls.python for calls in many]
    assert [calls.c for calls in few] == [calls.c for calls in many]
