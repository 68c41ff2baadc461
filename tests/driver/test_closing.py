"""Closing a pool: `close()`, its grace, where it may be called, and what is left."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from typing import Any

import grpc
import pytest

from grpcpool import (
    ChannelPool,
    LeaseReleasedError,
    Listener,
    PoolClosedError,
    PoolConfig,
    PoolOpenError,
    PoolTimeoutError,
    insecure_channel,
)
from grpcpool.events import Closed
from grpcpool.testing import ManualClock
from support.fakes import FakeChannel, FakeFactory, holding
from support.pools import PoolMaker, is_collected
from support.servers import ECHO
from support.waiting import LONG, background, eventually, is_inside, together

pytestmark = pytest.mark.timeout(60)


def _threads_of(pool: ChannelPool) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(f"grpcpool-{pool.name}")]


def test_nothing_is_left(make_pool: PoolMaker) -> None:
    """When `close()` returns, every connection is closed and no thread of the pool runs."""
    factory = FakeFactory()
    pool = make_pool(factory, min_size=3)
    pool.open()
    assert _threads_of(pool)
    pool.close()
    assert pool.closed
    assert not factory.open
    assert _threads_of(pool) == []
    assert pool.stats().closed["pool_closed"] == 3


def test_a_closed_pool_is_not_changed(make_pool: PoolMaker) -> None:
    """`resize()` and `refresh()` do nothing once the pool is closed."""
    factory = FakeFactory()
    pool = make_pool(factory, min_size=1)
    pool.open()
    pool.close()
    pool.resize(min_size=3)
    pool.refresh()
    assert pool.config.min_size == 1
    assert factory.calls == 1


def test_a_pool_that_was_never_used_closes(make_pool: PoolMaker) -> None:
    """Closing an unused pool does nothing and starts nothing."""
    pool = make_pool(FakeFactory())
    pool.close()
    assert pool.closed
    assert _threads_of(pool) == []


def test_without_grace_what_is_in_flight_is_cancelled(make_pool: PoolMaker) -> None:
    """`close()` cancels calls at once, like gRPC's own; releasing the lease later has no effect."""
    factory = FakeFactory(holding)
    pool = make_pool(factory)
    lease = pool.acquire()
    call = lease.unary_unary(ECHO).future(b"")
    pool.close()
    assert call.code() is grpc.StatusCode.CANCELLED
    assert not factory.open
    assert pool.stats().in_flight == 0
    with pytest.raises(ValueError, match="closed channel"):
        lease.unary_unary(ECHO)(b"")
    lease.release()
    with pytest.raises(LeaseReleasedError):
        lease.unary_unary(ECHO)(b"")
    assert pool.stats().in_flight == 0


def test_with_grace_it_waits_for_leases(make_pool: PoolMaker) -> None:
    """`close(grace)` returns when the last lease is released, long before the grace is over; nothing is left."""
    factory = FakeFactory()
    pool = make_pool(factory, max_streams=2)
    one, two = pool.acquire(streams=1), pool.acquire(streams=1)
    closing = background(lambda: pool.close(grace=1000))
    eventually(lambda: pool.closed)
    one.release()
    assert two.unary_unary(ECHO)(b"a") == b"a"
    assert not closing.done()
    two.release()
    closing.result(LONG)
    assert not factory.open
    assert _threads_of(pool) == []


def test_with_grace_it_waits_for_calls(make_pool: PoolMaker) -> None:
    """A call that runs on a released lease is waited for, too."""
    factory = FakeFactory(holding)
    pool = make_pool(factory)
    with pool.acquire() as lease:
        call = lease.unary_unary(ECHO).future(b"")
    closing = background(lambda: pool.close(grace=1000))
    eventually(lambda: pool.closed)
    assert not call.done()
    call.finish([b"a"])
    closing.result(LONG)
    assert call.result() == b"a"
    assert not factory.open


@pytest.mark.parametrize(("given", "seconds"), [({}, 7.0), ({"grace": 3.0}, 3.0)])
def test_after_the_grace_it_cancels(
    make_pool: PoolMaker, clock: ManualClock, given: dict[str, float], seconds: float
) -> None:
    """At the end of the given or configured grace, what still runs is cancelled."""
    factory = FakeFactory(holding)
    pool = make_pool(factory, close_grace=7.0)
    lease = pool.acquire()
    call = lease.unary_unary(ECHO).future(b"")
    closing = background(lambda: pool.close(**given))
    eventually(lambda: pool.closed)
    clock.advance(seconds - 0.01)
    assert not call.done()
    clock.advance(0.02)
    closing.result(LONG)
    assert call.code() is grpc.StatusCode.CANCELLED
    assert not factory.open
    lease.release()


def test_a_release_after_close_closes(make_pool: PoolMaker) -> None:
    """During the grace, each connection is closed as soon as its own lease is released."""
    factory = FakeFactory()
    pool = make_pool(factory, max_size=2)
    one, two = pool.acquire(), pool.acquire()
    closing = background(lambda: pool.close(grace=1000))
    eventually(lambda: pool.closed)
    one.release()
    eventually(lambda: len(factory.open) == 1)
    two.discard()
    closing.result(LONG)
    assert not factory.open


def test_in_the_grace_nothing_is_served(make_pool: PoolMaker) -> None:
    """From the start of `close(grace)` requests are refused, even when a release makes room."""
    pool = make_pool(FakeFactory(), max_size=1, max_streams=2)
    held = pool.acquire()
    waiting = background(pool.acquire)
    eventually(lambda: pool.stats().waiting == 1)
    closing = background(lambda: pool.close(grace=1000))
    with pytest.raises(PoolClosedError):
        waiting.result(LONG)
    with pytest.raises(PoolClosedError):
        pool.acquire(streams=1)
    held.release()
    closing.result(LONG)


def test_closing_again_has_no_effect(make_pool: PoolMaker) -> None:
    """Each connection is closed once, however often and from however many threads `close()` is called."""
    factory = FakeFactory()
    pool = make_pool(factory, min_size=2)
    pool.open()
    together(5, lambda _: pool.close())
    pool.close()
    assert [channel.closed for channel in factory.made] == [1, 1]
    assert pool.stats().closed["pool_closed"] == 2


def test_a_later_close_may_shorten_the_grace(make_pool: PoolMaker) -> None:
    """A second `close` with less grace ends the first one's wait; one with more does not extend it."""
    pool = make_pool(FakeFactory())
    with pool.acquire():
        patient = background(lambda: pool.close(grace=1000))
        eventually(lambda: pool.closed)
        before = set(threading.enumerate())
        more_patient = background(lambda: pool.close(grace=100000))
        (thread,) = {it for it in threading.enumerate() if it.name == "test-background"} - before
        eventually(lambda: is_inside("acquire_within", thread.ident or 0))
        pool.close(grace=0)
        patient.result(LONG)
        more_patient.result(LONG)


@pytest.mark.parametrize("grace", [-1, float("nan"), True, "1"], ids=repr)
def test_an_invalid_grace_is_refused(make_pool: PoolMaker, grace: float) -> None:
    """A grace that is negative or not a number raises `ValueError`, and the pool stays open."""
    pool = make_pool(FakeFactory())
    with pytest.raises(ValueError, match="grace = "):
        pool.close(grace)
    assert not pool.closed


def test_what_is_being_opened_is_closed(make_pool: PoolMaker) -> None:
    """A connection still being opened when the pool is closed is closed too."""
    factory = FakeFactory(lambda: FakeChannel(connects=False))
    pool = make_pool(factory)
    waiting = background(pool.acquire)
    eventually(lambda: factory.made)
    pool.close()
    assert not factory.open
    assert _threads_of(pool) == []
    with pytest.raises(PoolClosedError):
        waiting.result(LONG)


def test_a_thread_that_is_about_to_start_is_no_obstacle(make_pool: PoolMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """`close()` may come between the decision to open a connection and the start of the thread that does it."""
    about, go = threading.Event(), threading.Event()
    start = threading.Thread.start

    def start_late(thread: threading.Thread) -> None:
        if "-open-" in thread.name:
            about.set()
            assert go.wait(LONG)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_late)
    factory = FakeFactory()
    pool = make_pool(factory)
    waiting = background(pool.acquire)
    assert about.wait(LONG)
    closing = background(pool.close)
    eventually(lambda: pool.closed)
    threading.Timer(0.3, go.set).start()
    closing.result(LONG)
    with pytest.raises(PoolClosedError):
        waiting.result(LONG)
    eventually(lambda: not factory.open)
    go.wait(LONG)


class Closing(Listener):
    """Closes the pool in the hook of one kind of event."""

    pool: ChannelPool

    def __init__(self, when: str) -> None:
        """Closes the pool in the hook called `when`."""
        setattr(self, when, self._close)
        self.closed_by: list[str] = []

    def _close(self, event: Any) -> None:
        self.pool.close()
        self.closed_by.append(threading.current_thread().name)


@pytest.mark.parametrize("when", ["opening", "opened", "granted", "timed_out", "closed"])
def test_a_listener_may_close(make_pool: PoolMaker, clock: ManualClock, when: str) -> None:
    """Called in a hook, on any thread, `close()` ends the pool without waiting for its own thread."""
    listener = Closing(when)
    factory = FakeFactory()
    pool = make_pool(factory, listeners=[listener], max_size=1)
    listener.pool = pool

    with contextlib.suppress(PoolClosedError, PoolTimeoutError), pool.acquire():
        waiting = background(lambda: pool.acquire(timeout=1).release())
        eventually(lambda: pool.stats().waiting == 1 or pool.closed)
        clock.advance(2)
        waiting.result(LONG)
    if when == "closed":
        pool.close()
    eventually(lambda: listener.closed_by)
    assert pool.closed
    eventually(lambda: not factory.open)
    assert pool.stats().in_flight == 0


def test_a_prime_may_close(make_pool: PoolMaker) -> None:
    """A prime may close the pool: its own connection is closed too, and the thread does not wait for itself."""
    factory = FakeFactory()
    pool: ChannelPool

    def prime(channel: grpc.Channel) -> None:
        pool.close()

    pool = make_pool(factory, prime=prime)
    with pytest.raises(PoolClosedError):
        pool.acquire(timeout=LONG)
    eventually(lambda: factory.made and not factory.open)


def test_a_dropped_pool_frees_threads_and_connections() -> None:
    """A pool that is no longer referenced is collected although it was not closed, with all that it had."""
    factory = FakeFactory()
    pool = ChannelPool(factory, PoolConfig(min_size=3), name="dropped")
    pool.open()
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None
    eventually(lambda: not factory.open)
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("grpcpool-dropped")])


@pytest.mark.parametrize("released", [True, False])
def test_a_closed_pool_is_collected_with_a_lease_that_is_dropped_later(released: bool) -> None:
    """What the finalizer of a lease, or of a call, leaves after the close keeps nothing of the pool."""
    pool = ChannelPool(FakeFactory(holding), name="closed and collected")
    lease = pool.acquire()
    call = lease.unary_stream(ECHO)(b"")
    pool.close()
    if released:
        lease.release()
        del lease
    else:
        with pytest.warns(ResourceWarning, match="dropped without release"):
            del lease
    del call, pool
    eventually(lambda: is_collected("closed and collected"), timeout=5)


class _Client:
    """Owns a pool and is its factory."""

    def __init__(self) -> None:
        self.factory = FakeFactory()
        self.pool = ChannelPool(self.make, PoolConfig(prime=self.prime), name="client")

    def make(self) -> grpc.Channel:
        return self.factory()

    def prime(self, channel: grpc.Channel) -> None:
        """Accepts the channel."""


def test_a_dropped_pool_is_closed_although_its_factory_references_it() -> None:
    """An object that owns a pool and is its factory and prime does not keep it alive once it is dropped."""
    client = _Client()
    client.pool.open()
    factory, gone = client.factory, weakref.ref(client.pool)
    del client
    gc.collect()
    assert gone() is None
    eventually(lambda: not factory.open)
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("grpcpool-client")])


class _Failing:
    """Owns a pool whose connections it cannot make."""

    def __init__(self, trouble: str) -> None:
        if trouble == "addresses":
            self.pool = insecure_channel("failing:1", name="failing", addresses=self.fail)
        else:
            config = PoolConfig(prime=self.fail if trouble == "prime" else None)
            self.pool = ChannelPool(FakeFactory() if trouble == "prime" else self.fail, config, name="failing")

    def fail(self, *_: Any) -> Any:
        """Raises."""
        raise OSError("broken")


@pytest.mark.parametrize("trouble", ["factory", "prime", "addresses"])
def test_a_dropped_pool_is_closed_although_its_owner_fails(trouble: str) -> None:
    """The last error, which the pool keeps, does not keep the frames in which the owner raised it."""
    owner = _Failing(trouble)
    with pytest.raises(PoolOpenError, match="broken"):
        owner.pool.open(timeout=LONG)
    with pytest.raises(PoolTimeoutError, match="broken"):
        owner.pool.acquire(timeout=0.1)
    gone = weakref.ref(owner)
    del owner

    def is_gone() -> bool:
        gc.collect()
        return gone() is None

    eventually(is_gone)
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("grpcpool-failing")])


def test_a_lease_keeps_its_pool() -> None:
    """A pool is not collected while one of its leases exists."""
    factory = FakeFactory()
    lease = ChannelPool(factory).acquire()
    gc.collect()
    assert lease.unary_unary(ECHO)(b"a") == b"a"
    lease.release()
    assert len(factory.open) == 1
    del lease
    gc.collect()
    eventually(lambda: not factory.open)


def test_the_closing_is_reported(make_pool: PoolMaker) -> None:
    """When a pool closes, its listeners get an event for each connection, with the number of calls cancelled."""
    events: list[Closed] = []

    class Recording(Listener):
        def closed(self, event: Closed) -> None:
            events.append(event)

    pool = make_pool(FakeFactory(), listeners=[Recording()], max_size=1)
    leases = [pool.acquire(streams=1) for _ in range(3)]
    pool.close()
    assert [event.cancelled for event in events] == [3]
    for lease in leases:
        lease.release()
