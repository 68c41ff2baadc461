"""`acquire`: how long it waits, what it can request, and what an interruption leaves behind."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from grpcpool import ChannelPool, Lease, Listener, PoolClosedError, PoolExhaustedError, PoolTimeoutError
from grpcpool._machine.slot import Slot
from grpcpool._shared.clock import SystemClock
from grpcpool._sync.waiter import BlockedWaiter
from grpcpool.events import Opening, TimedOut
from grpcpool.testing import ManualClock
from support.fakes import FakeFactory, HangingFactory
from support.pools import PoolMaker
from support.signals import Interruption, main_thread
from support.waiting import LONG, background, eventually, is_inside

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """SIGUSR1 raises `Interruption` in the main thread."""

    def interrupt(*_: object) -> None:
        raise Interruption

    before = signal.signal(signal.SIGUSR1, interrupt)
    yield
    signal.signal(signal.SIGUSR1, before)


def _interrupt_main_thread() -> None:
    signal.pthread_kill(main_thread(), signal.SIGUSR1)


class InterruptedIn(Listener):
    """Simulates a signal that arrives while the acquiring thread does the pool's work, just before it waits."""

    def opening(self, event: Opening) -> None:
        """Raises the interruption."""
        raise Interruption


def _when_waiting(pool: ChannelPool, number: int = 1) -> None:
    eventually(lambda: pool.stats().waiting == number)


def test_with_room_it_returns_at_once(make_pool: PoolMaker) -> None:
    """A second acquire after a release gets the same connection, even with no time to wait."""
    factory = FakeFactory()
    pool = make_pool(factory, max_size=1)
    pool.acquire().release()
    with pool.acquire(timeout=0):
        assert pool.stats().in_flight == 1
    assert factory.calls == 1


def test_timeout_zero_tries_once(make_pool: PoolMaker) -> None:
    """Without room, `timeout=0` raises `PoolTimeoutError` and leaves no waiter behind."""
    pool = make_pool(FakeFactory(), max_size=1)
    with pool.acquire():
        with pytest.raises(PoolTimeoutError):
            pool.acquire(timeout=0)
        assert pool.stats().waiting == 0
    assert pool.stats().in_flight == 0


def test_timeout_none_waits_without_limit(make_pool: PoolMaker, clock: ManualClock) -> None:
    """`timeout=None` waits past the configured timeout and any other, until there is room."""
    pool = make_pool(FakeFactory(), max_size=1, acquire_timeout=1.0)
    held = pool.acquire()
    waiting = background(lambda: pool.acquire(timeout=None))
    _when_waiting(pool)
    clock.advance(10 * 365 * 86400)
    assert pool.stats().waiting == 1
    held.release()
    waiting.result(LONG).release()


@pytest.mark.parametrize(("given", "seconds"), [({}, 30.0), ({"timeout": 2.5}, 2.5)])
def test_it_waits_for_the_given_or_configured_timeout(
    make_pool: PoolMaker, clock: ManualClock, given: dict[str, Any], seconds: float
) -> None:
    """It waits exactly as long as the given or configured timeout, and then raises."""
    pool = make_pool(FakeFactory(), max_size=1)
    with pool.acquire():
        waiting = background(lambda: pool.acquire(**given))
        _when_waiting(pool)
        clock.advance(seconds - 0.01)
        assert pool.stats().waiting == 1
        clock.advance(0.02)
        with pytest.raises(PoolTimeoutError):
            waiting.result(LONG)
    assert pool.stats().timeouts == 1


_INVALID_TIMEOUTS = [-1, -0.001, float("nan"), float("inf"), True, "1", []]


@pytest.mark.parametrize("timeout", _INVALID_TIMEOUTS, ids=repr)
def test_an_invalid_timeout_is_refused_without_room(make_pool: PoolMaker, timeout: float) -> None:
    """A timeout that is negative, infinite or not a number raises `ValueError` with the value, and nothing is taken."""
    pool = make_pool(FakeFactory(), max_size=1)
    with pool.acquire(), pytest.raises(ValueError, match="timeout = "):
        pool.acquire(timeout)
    assert pool.stats().in_flight == 0


@pytest.mark.parametrize("timeout", _INVALID_TIMEOUTS, ids=repr)
def test_an_invalid_timeout_is_refused_with_room(make_pool: PoolMaker, timeout: float) -> None:
    """An invalid timeout is refused even if there is room, and nothing is lost."""
    pool = make_pool(FakeFactory(), max_size=1)
    pool.acquire().release()
    with pytest.raises(ValueError, match="timeout = "):
        pool.acquire(timeout)
    assert pool.stats().in_flight == 0


@pytest.mark.parametrize("streams", [0, -1, 1.0, True, "1", 91], ids=repr)
def test_an_invalid_number_of_streams_is_refused(make_pool: PoolMaker, streams: int) -> None:
    """`streams` must be from 1 to `max_streams`; anything else raises `ValueError` and opens nothing."""
    factory = FakeFactory()
    pool = make_pool(factory)
    with pytest.raises(ValueError, match="streams = ") as caught:
        pool.acquire(streams=streams)
    assert repr(streams) in str(caught.value)
    assert "PoolConfig" not in str(caught.value), "it is an argument, not a field of the configuration"
    assert factory.calls == 0


def test_streams_share_a_connection_up_to_its_limit(make_pool: PoolMaker) -> None:
    """Leases of streams share one connection up to `max_streams`; a request for more than is free waits."""
    factory = FakeFactory()
    pool = make_pool(factory, max_size=1, max_streams=4)
    three, one = pool.acquire(streams=3), pool.acquire(streams=1)
    assert (pool.stats().in_flight, factory.calls) == (4, 1)
    waiting = background(lambda: pool.acquire(streams=2))
    _when_waiting(pool)
    one.release()
    assert pool.stats().waiting == 1
    three.release()
    waiting.result(LONG).release()
    assert pool.stats().in_flight == 0


def test_a_whole_connection_is_exclusive(make_pool: PoolMaker) -> None:
    """A whole connection is not leased while a stream of it is, nor a stream while the whole is."""
    pool = make_pool(FakeFactory(), max_size=1)
    with pool.acquire(streams=1), pytest.raises(PoolTimeoutError):
        pool.acquire(timeout=0)
    with pool.acquire(), pytest.raises(PoolTimeoutError):
        pool.acquire(timeout=0, streams=1)


def test_beyond_max_waiters_it_fails_at_once(make_pool: PoolMaker) -> None:
    """When `max_waiters` wait, the next request raises `PoolExhaustedError`, and the others keep waiting."""
    pool = make_pool(FakeFactory(), max_size=1, max_waiters=2)
    held = pool.acquire()
    waiting = [background(pool.acquire) for _ in range(2)]
    _when_waiting(pool, 2)
    with pytest.raises(PoolExhaustedError):
        pool.acquire()
    assert pool.stats().rejected == 1
    held.release()
    for future in waiting:
        future.result(LONG).release()


def test_a_closed_pool_refuses(make_pool: PoolMaker) -> None:
    """After `close()`, `acquire` raises `PoolClosedError`."""
    pool = make_pool(FakeFactory())
    pool.acquire().release()
    pool.close()
    with pytest.raises(PoolClosedError):
        pool.acquire()
    with pytest.raises(PoolClosedError):
        pool.acquire(timeout=0, streams=1)


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupted_wait_leaves_no_trace(make_pool: PoolMaker) -> None:
    """A thread interrupted while waiting leaves the queue, holds nothing, and the next request is served."""
    pool = make_pool(FakeFactory(), max_size=1)
    held = pool.acquire()

    def interrupt() -> None:
        _when_waiting(pool)
        eventually(lambda: is_inside("acquire_within", main_thread()))
        _interrupt_main_thread()

    interrupter = background(interrupt)
    with pytest.raises(Interruption):
        pool.acquire(timeout=LONG)
    interrupter.result(LONG)
    assert pool.stats().waiting == 0
    held.release()
    assert pool.stats().in_flight == 0
    pool.acquire(timeout=0).release()


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupted_open_leaves_no_trace(make_pool: PoolMaker) -> None:
    """A thread interrupted in `open()` leaves the pool as it was: empty and usable."""
    gate = threading.Event()
    begun: list[int] = []

    class Gated(FakeFactory):
        def __call__(self):  # type: ignore[no-untyped-def]  # noqa: ANN204
            begun.append(threading.get_ident())
            assert gate.wait(LONG)
            return super().__call__()

    factory = Gated()
    pool = make_pool(factory, min_size=2)

    def interrupt() -> None:
        # Not while a thread is being started: an exception there makes CPython end the new thread.
        eventually(lambda: len(begun) == 2)
        assert pool.stats().opening == 2
        eventually(lambda: is_inside("acquire_within", main_thread()))
        _interrupt_main_thread()

    interrupter = background(interrupt)
    with pytest.raises(Interruption):
        pool.open()
    interrupter.result(LONG)
    assert pool.stats().size == 0
    gate.set()
    eventually(lambda: len(factory.made) == 2 and not factory.open)
    pool.acquire().release()


@pytest.mark.usefixtures("_interruptible")
def test_an_interruption_between_grant_and_delivery_loses_nothing(
    make_pool: PoolMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection granted to a thread at the moment of its interruption returns to the pool.

    The releasing thread grants under the lock and delivers without it. The interruption falls between the two: the
    waiter is no longer queued, but has not received its slot yet.
    """
    pool = make_pool(FakeFactory(), max_size=1)
    held = pool.acquire()
    gone = threading.Event()
    deliver = BlockedWaiter.granted

    def interrupt_first(waiter: BlockedWaiter, slot: Slot) -> None:
        _interrupt_main_thread()
        # A waiter that waited for its answer before leaving would make this wait time out.
        gone.wait(0.5)
        deliver(waiter, slot)

    monkeypatch.setattr(BlockedWaiter, "granted", interrupt_first)

    def release() -> None:
        _when_waiting(pool)
        eventually(lambda: is_inside("acquire_within", main_thread()))
        held.release()

    releaser = background(release)
    with pytest.raises(Interruption):
        pool.acquire(timeout=LONG)
    gone.set()
    releaser.result(LONG)
    monkeypatch.undo()
    assert pool.stats().in_flight == 0
    pool.acquire(timeout=0).release()


def test_an_interruption_before_the_wait_loses_nothing(make_pool: PoolMaker) -> None:
    """A thread interrupted after it was queued and before it waits leaves the queue and holds nothing."""
    pool = make_pool(FakeFactory(), listeners=[InterruptedIn()])
    with pytest.raises(Interruption):
        pool.acquire(timeout=LONG)
    assert pool.stats().waiting == 0
    eventually(lambda: pool.stats().opening == 0)
    assert pool.stats().in_flight == 0


def test_an_interruption_in_open_before_the_wait_leaves_no_trace(make_pool: PoolMaker) -> None:
    """A thread interrupted in `open()` before it waits leaves the pool empty."""
    factory = HangingFactory()
    pool = make_pool(factory, listeners=[InterruptedIn()])
    with pytest.raises(Interruption):
        pool.open()
    assert pool.stats().size == 0
    factory.go.set()
    eventually(lambda: factory.made and not factory.open)


def test_an_interruption_after_the_answer_releases_the_grant() -> None:
    """A thread interrupted just as its answer arrives releases what it was granted, and does not wait again."""
    delivered = threading.Lock()

    class InterruptedLock:
        interruptions = 1

        def acquire(self, timeout: float = -1) -> bool:
            delivered.acquire(timeout=timeout)
            if self.interruptions:
                self.interruptions -= 1
                raise Interruption
            return True

        def __enter__(self) -> bool:
            return self.acquire()

        def __exit__(self, *raised: object) -> None:
            delivered.release()

        def release(self) -> None:
            delivered.release()

    class Answered:
        clock = SystemClock()
        released: list[Slot]

        def request(self, waiter: object) -> None:
            """The answer has already been delivered."""

        def withdraw(self, waiter: Any) -> bool:
            self.released = [waiter._slot]
            return False

    waiter: Any = BlockedWaiter(None, since=0, deadline=0).prepare()
    delivered.acquire()
    waiter._wakes = InterruptedLock()
    slot = Slot(1, limit=1, now=0, deadline=0)
    waiter._slot = slot
    waiter.granted(slot)
    driver = Answered()
    with pytest.raises(Interruption):
        background(lambda: waiter.get(driver)).result(2)
    assert driver.released == [slot]


def test_without_a_worker_thread_a_wait_still_times_out(make_pool: PoolMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no worker thread can be started, a waiter still keeps its timeout."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("grpcpool-"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    pool = make_pool(FakeFactory(), max_size=1)
    with pool.acquire(timeout=LONG), pytest.raises(PoolTimeoutError):
        background(lambda: pool.acquire(timeout=0.01)).result(LONG)
    monkeypatch.undo()
    assert pool.stats().timeouts == 1


def test_a_listener_that_blocks_the_worker_delays_no_timeout(make_pool: PoolMaker) -> None:
    """While a slow hook blocks the worker, waiters still keep their own timeouts."""
    go = threading.Event()

    class Slow(Listener):
        blocks = True

        def timed_out(self, event: TimedOut) -> None:
            blocks, self.blocks = self.blocks, False
            assert not blocks or go.wait(LONG)

    pool = make_pool(FakeFactory(), max_size=1, listeners=[Slow()])
    with pool.acquire():
        for _ in range(2):
            waiting = background(lambda: pool.acquire(timeout=0.01))
            eventually(waiting.done)
            assert isinstance(waiting.exception(), PoolTimeoutError)
        go.set()


def test_a_newcomer_does_not_overtake_a_waiter(make_pool: PoolMaker) -> None:
    """While a waiter is queued, what is released goes to the waiter, not to a newcomer."""
    pool = make_pool(FakeFactory(), max_size=1)
    held = pool.acquire()
    first = background(pool.acquire)
    _when_waiting(pool)
    held.release()
    with pytest.raises(PoolTimeoutError):
        pool.acquire(timeout=0)
    lease: Lease = first.result(LONG)
    lease.release()
