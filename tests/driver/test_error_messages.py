"""What the pool's errors say: which pool, how full it is, and what to do about it."""

from __future__ import annotations

import re
from typing import Any

import grpc
import pytest

import grpcpool
from grpcpool import (
    LeaseReleasedError,
    PoolClosedError,
    PoolError,
    PoolExhaustedError,
    PoolForkedError,
    PoolOpenError,
    PoolTimeoutError,
    WrongEventLoopError,
)
from grpcpool.testing import ManualClock
from support.fakes import FakeFactory, HangingFactory, failing_factory
from support.pools import PoolMaker
from support.waiting import LONG, background, eventually

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize(
    "error",
    [
        LeaseReleasedError,
        PoolClosedError,
        PoolExhaustedError,
        PoolForkedError,
        PoolOpenError,
        PoolTimeoutError,
        WrongEventLoopError,
    ],
)
def test_every_error_is_a_pool_error(error: type[Exception]) -> None:
    """One `except PoolError` catches them all; none is a `grpc.RpcError`; and each is public."""
    assert issubclass(error, PoolError)
    assert not issubclass(error, grpc.RpcError)
    assert error.__name__ in grpcpool.__all__


def test_a_timeout_is_a_timeout_error() -> None:
    """`PoolTimeoutError` is also Python's `TimeoutError`."""
    assert issubclass(PoolTimeoutError, TimeoutError)


def test_a_timeout_says_how_full_the_pool_is(make_pool: PoolMaker, clock: ManualClock) -> None:
    """The message has the pool's name, its current figures, the time waited, and the remedy."""
    pool = make_pool(FakeFactory(), name="orders", max_size=1)
    with pool.acquire():
        waiting = background(lambda: pool.acquire(timeout=2.5))
        eventually(lambda: pool.stats().waiting == 1)
        clock.advance(2.5)
        with pytest.raises(PoolTimeoutError) as caught:
            waiting.result(LONG)
    assert str(caught.value) == (
        "pool 'orders': timed out waiting for a place "
        "(asked for a whole connection; 1 of 1 connections open, 1 in flight, 0 waiting, waited 2.500 s); "
        "release leases sooner, raise max_size, or wait longer"
    )
    assert caught.value.__cause__ is None


def test_a_rejection_says_how_many_wait(make_pool: PoolMaker) -> None:
    """The error of a rejected request has the pool's figures and the remedy, too."""
    pool = make_pool(FakeFactory(), name="orders", max_size=1, max_waiters=0)
    pool.open()
    with pool.acquire(), pytest.raises(PoolExhaustedError) as caught:
        pool.acquire()
    assert re.fullmatch(
        r"pool 'orders': the queue is full "
        r"\(asked for a whole connection; 1 of 1 connections open, 1 in flight, 0 waiting\); "
        r"shed load, or raise max_size, max_streams or max_waiters",
        str(caught.value),
    )


def test_a_closed_pool_says_so(make_pool: PoolMaker) -> None:
    """The error of a request to a closed pool has the pool's figures and a remedy, too."""
    pool = make_pool(FakeFactory(), name="orders")
    pool.close()
    with pytest.raises(PoolClosedError) as caught:
        pool.acquire()
    assert re.fullmatch(
        r"pool 'orders': the pool is closed \(0 of 10 connections open, 0 in flight, 0 waiting\); "
        r"create a new pool; a closed one cannot be reopened",
        str(caught.value),
    )


def test_a_timeout_carries_the_connect_error(make_pool: PoolMaker, clock: ManualClock) -> None:
    """A timeout while no connection could be opened has the last connect error as its cause, and in its message."""
    pool = make_pool(failing_factory, name="orders")
    waiting = background(lambda: pool.acquire(timeout=1))
    eventually(lambda: pool.stats().open_failures == 1)
    clock.advance(1)
    with pytest.raises(PoolTimeoutError) as caught:
        waiting.result(LONG)
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)
    assert "; last connect error: this factory always fails; " in str(caught.value)


def test_a_past_connect_error_is_not_the_cause(make_pool: PoolMaker, clock: ManualClock) -> None:
    """Once connections have been opened again, a timeout has no connect error as its cause."""
    pool = make_pool(FakeFactory(fails=1), max_size=1)
    waiting = background(pool.acquire)
    eventually(lambda: pool.stats().open_failures == 1)
    clock.advance(1)
    with waiting.result(LONG), pytest.raises(PoolTimeoutError) as caught:
        pool.acquire(timeout=0)
    assert caught.value.__cause__ is None
    assert "connect error" not in str(caught.value)


@pytest.mark.parametrize("limit", ["timeout", "max_waiters"])
def test_no_connection_is_up_yet(make_pool: PoolMaker, limit: str) -> None:
    """While the first one is being opened, the remedy is not a larger pool."""
    factory = HangingFactory()
    pool = make_pool(factory, max_waiters=0 if limit == "max_waiters" else 10)
    with pytest.raises(PoolError) as caught:
        pool.acquire(timeout=0 if limit == "timeout" else 1)
    assert "; no connection is up yet: call open() before" in str(caught.value)
    assert "max_size" not in str(caught.value)
    factory.go.set()


def test_an_error_of_one_word_has_its_type(make_pool: PoolMaker) -> None:
    """As a missing key: the text of that error is nothing but the key."""

    def make() -> Any:
        tokens: dict[str, Any] = {}
        return tokens["token"]

    with pytest.raises(PoolOpenError, match="last connect error: KeyError: 'token'; see"):
        make_pool(make).open()


def test_a_failed_open_says_why(make_pool: PoolMaker) -> None:
    """`open()` raises `PoolOpenError`, whose cause is what the factory raised."""
    pool = make_pool(failing_factory, name="orders")
    with pytest.raises(PoolOpenError) as caught:
        pool.open()
    assert str(caught.value).startswith("pool 'orders': no connection could be opened (0 of 10 connections open")
    assert str(caught.value).endswith(
        "; last connect error: this factory always fails; see the cause, check the target and its credentials"
    )
    assert isinstance(caught.value.__cause__, ConnectionRefusedError)


def test_an_open_that_takes_too_long_does_not_mention_leases(make_pool: PoolMaker) -> None:
    """A timeout of `open(timeout)` mentions connections; it does not advise releasing leases sooner."""
    factory = HangingFactory()
    pool = make_pool(factory, name="orders")
    with pytest.raises(PoolOpenError) as caught:
        pool.open(timeout=0.01)
    factory.go.set()
    assert "'orders'" in str(caught.value)
    assert "lease" not in str(caught.value)


def test_a_released_lease_says_so(make_pool: PoolMaker) -> None:
    """The error of a call after the release has name, figures and remedy."""
    pool = make_pool(FakeFactory(), name="orders")
    lease = pool.acquire()
    lease.release()
    with pytest.raises(LeaseReleasedError) as caught:
        lease.unary_unary("/a/b")
    assert re.fullmatch(
        r"pool 'orders': the lease has been released \(1 of 10 connections open, 0 in flight, 0 waiting.*\); "
        r"acquire a new one",
        str(caught.value),
    )


def test_more_streams_are_a_remedy_where_streams_are_shared(make_pool: PoolMaker) -> None:
    """To raise `max_streams` is advised unless each connection is leased as a whole: then it changes nothing."""
    pool = make_pool(FakeFactory(), name="orders", max_size=1, max_streams=1)
    pool.open()
    for streams, bounds in ((1, "max_size or max_streams,"), (None, "max_size,")):
        with pool.acquire(streams=streams), pytest.raises(PoolTimeoutError) as caught:
            pool.acquire(timeout=0, streams=1)
        assert str(caught.value).endswith(f"; release leases sooner, raise {bounds} or wait longer")


@pytest.mark.parametrize(
    ("streams", "remedy"),
    [(1, "raise max_size or max_streams, or wait longer"), (None, "none became free of calls; use a pool of its own")],
)
def test_a_lease_on_a_connection_that_drains_keeps_nothing(
    make_pool: PoolMaker, streams: int | None, remedy: str
) -> None:
    """The advice is for the connections that are open: one that drains is leased as a whole, and none of these."""
    pool = make_pool(FakeFactory(), min_size=1, max_size=1, max_streams=1)
    pool.open()
    with pool.acquire():
        pool.refresh()
        eventually(lambda: (pool.stats().draining, pool.stats().ready) == (1, 1))
        with pool.acquire(streams=1), pytest.raises(PoolTimeoutError) as caught:
            pool.acquire(timeout=0, streams=streams)
    assert remedy in str(caught.value)


def test_a_lease_that_calls_kept_from_a_connection_says_so(clock: ManualClock, make_pool: PoolMaker) -> None:
    """Where calls are what a whole connection waits for, the remedy is another than waiting or more connections."""
    pool = make_pool(FakeFactory(), name="orders", max_size=1)
    with pool.acquire(streams=1):
        waiting = background(lambda: pool.acquire(timeout=2.5))
        eventually(lambda: pool.stats().waiting == 1)
        clock.advance(2.5)
        with pytest.raises(PoolTimeoutError) as caught:
            waiting.result(LONG)
    assert str(caught.value) == (
        "pool 'orders': timed out waiting for a place "
        "(asked for a whole connection; 1 of 1 connections open, 1 in flight, 0 waiting, waited 2.500 s); "
        "none became free of calls; use a pool of its own for exclusive leases, or ask for streams"
    )
