"""Asking for a place: how long to wait, how much to ask for, and what an interruption leaves behind."""

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
from support.waiting import LONG, background, eventually, is_inside

pytestmark = pytest.mark.timeout(60)


class Interruption(BaseException):
    """What a signal handler raises in the main thread, as Ctrl-C raises KeyboardInterrupt."""


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGUSR1 raises `Interruption` in the main thread."""

    def interrupt(*_: object) -> None:
        raise Interruption

    before = signal.signal(signal.SIGUSR1, interrupt)
    yield
    signal.signal(signal.SIGUSR1, before)


def _interrupt_main_thread() -> None:
    signal.pthread_kill(_main_thread(), signal.SIGUSR1)


def _main_thread() -> int:
    main = threading.main_thread().ident
    assert main is not None
    return main


class InterruptedIn(Listener):
    """Stands for a signal that comes while the thread that asked is about to wait, and does the pool's work."""

    def opening(self, event: Opening) -> None:
        """Is interrupted."""
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
    """Without room, `timeout=0` raises `PoolTimeoutError` and leaves nobody waiting."""
    pool = make_pool(FakeFactory(), max_size=1)
    with pool.acquire():
        with pytest.raises(PoolTimeoutError):
            pool.acquire(timeout=0)
        assert pool.stats().waiting == 0
    assert pool.stats().in_flight == 0


def test_timeout_none_waits_for_ever(make_pool: PoolMaker, clock: ManualClock) -> None:
    """`None` waits past the configured timeout and past any other, until there is a place."""
    pool = make_pool(FakeFactory(), max_size=1, acquire_timeout=1.0)
    held = pool.acquire()
    waiting = background(lambda: pool.acquire(timeout=None))
    _when_waiting(pool)
    clock.advance(10 * 365 * 86400)
    assert pool.stats().waiting == 1
    held.release()
    waiting.result(LONG).release()


@pytest.mark.parametrize(("given", "seconds"), [({}, 30.0), ({"timeout": 2.5}, 2.5)])
def test_the_time_to_wait_is_the_configured_or_the_given(
    make_pool: PoolMaker, clock: ManualClock, given: dict[str, Any], seconds: float
) -> None:
    """It waits for just as long as it may, and then raises."""
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


_NO_SECONDS = [-1, -0.001, float("nan"), float("inf"), True, "1", []]


@pytest.mark.parametrize("timeout", _NO_SECONDS, ids=repr)
def test_what_is_no_timeout_is_refused_without_room(make_pool: PoolMaker, timeout: float) -> None:
    """A negative, endless, or no number raises `ValueError`, which names the value, and nothing is taken."""
    pool = make_pool(FakeFactory(), max_size=1)
    with pool.acquire(), pytest.raises(ValueError, match="timeout = "):
        pool.acquire(timeout)
    assert pool.stats().in_flight == 0


@pytest.mark.parametrize("timeout", _NO_SECONDS, ids=repr)
def test_what_is_no_timeout_is_refused_with_room(make_pool: PoolMaker, timeout: float) -> None:
    """The same mistake is found whether or not there happens to be room; and no place is lost by it."""
    pool = make_pool(FakeFactory(), max_size=1)
    pool.acquire().release()
    with pytest.raises(ValueError, match="timeout = "):
        pool.acquire(timeout)
    assert pool.stats().in_flight == 0


@pytest.mark.parametrize("streams", [0, -1, 1.0, True, "1", 91], ids=repr)
def test_what_is_no_number_of_streams_is_refused(make_pool: PoolMaker, streams: int) -> None:
    """`streams` is from 1 to `max_streams`; anything else raises `ValueError` and opens nothing."""
    factory = FakeFactory()
    pool = make_pool(factory)
    with pytest.raises(ValueError, match="streams = ") as caught:
        pool.acquire(streams=streams)
    assert repr(streams) in str(caught.value)
    assert "PoolConfig" not in str(caught.value), "it is an argument, not a field of the configuration"
    assert factory.calls == 0


def test_streams_share_a_connection_up_to_its_limit(make_pool: PoolMaker) -> None:
    """Leases of streams share one connection until `max_streams` are taken; who wants more waits for them."""
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


def test_a_whole_connection_is_shared_with_nobody(make_pool: PoolMaker) -> None:
    """A whole connection is not given while somebody has a stream of it, nor a stream while somebody has the whole."""
    pool = make_pool(FakeFactory(), max_size=1)
    with pool.acquire(streams=1), pytest.raises(PoolTimeoutError):
        pool.acquire(timeout=0)
    with pool.acquire(), pytest.raises(PoolTimeoutError):
        pool.acquire(timeout=0, streams=1)


def test_beyond_max_waiters_it_fails_at_once(make_pool: PoolMaker) -> None:
    """When `max_waiters` wait, the next is refused with `PoolExhaustedError`, and the others keep waiting."""
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
    """After `close()`, asking for a place raises `PoolClosedError`."""
    pool = make_pool(FakeFactory())
    pool.acquire().release()
    pool.close()
    with pytest.raises(PoolClosedError):
        pool.acquire()
    with pytest.raises(PoolClosedError):
        pool.acquire(timeout=0, streams=1)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_wait_leaves_no_trace(make_pool: PoolMaker) -> None:
    """Who is interrupted while waiting waits no more, holds nothing, and the place goes to the next."""
    pool = make_pool(FakeFactory(), max_size=1)
    held = pool.acquire()

    def interrupt() -> None:
        _when_waiting(pool)
        eventually(lambda: is_inside("wait", _main_thread()))
        _interrupt_main_thread()

    interrupter = background(interrupt)
    with pytest.raises(Interruption):
        pool.acquire(timeout=LONG)
    interrupter.result(LONG)
    assert pool.stats().waiting == 0
    held.release()
    assert pool.stats().in_flight == 0
    pool.acquire(timeout=0).release()


@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_open_leaves_no_trace(make_pool: PoolMaker) -> None:
    """Who is interrupted in `open()` leaves the pool as it was: empty and usable."""
    gate = threading.Event()

    class Gated(FakeFactory):
        def __call__(self):  # type: ignore[no-untyped-def]  # noqa: ANN204
            assert gate.wait(LONG)
            return super().__call__()

    factory = Gated()
    pool = make_pool(factory, min_size=2)

    def interrupt() -> None:
        eventually(lambda: pool.stats().opening == 2)
        eventually(lambda: is_inside("wait", _main_thread()))
        _interrupt_main_thread()

    interrupter = background(interrupt)
    with pytest.raises(Interruption):
        pool.open()
    interrupter.result(LONG)
    assert pool.stats().size == 0
    gate.set()
    eventually(lambda: len(factory.made) == 2 and not factory.open)
    pool.acquire().release()


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_between_grant_and_delivery_loses_nothing(
    make_pool: PoolMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A place that was granted to a thread at the moment it was interrupted comes back to the pool.

    The releasing thread decides under the lock, and delivers without it. The interruption falls between the two:
    the waiter is no longer queued, but does not know his slot yet.
    """
    pool = make_pool(FakeFactory(), max_size=1)
    held = pool.acquire()
    gone = threading.Event()
    deliver = BlockedWaiter.granted

    def interrupt_first(waiter: BlockedWaiter, slot: Slot) -> None:
        _interrupt_main_thread()
        # Who waits for his answer before he goes makes this wait in vain.
        gone.wait(0.5)
        deliver(waiter, slot)

    monkeypatch.setattr(BlockedWaiter, "granted", interrupt_first)

    def release() -> None:
        _when_waiting(pool)
        eventually(lambda: is_inside("wait", _main_thread()))
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
    """Who is interrupted after he was queued and before he waits is not queued any more, and gets no place."""
    pool = make_pool(FakeFactory(), listeners=[InterruptedIn()])
    with pytest.raises(Interruption):
        pool.acquire(timeout=LONG)
    assert pool.stats().waiting == 0
    eventually(lambda: pool.stats().opening == 0)
    assert pool.stats().in_flight == 0


def test_an_interruption_in_open_before_the_wait_leaves_no_trace(make_pool: PoolMaker) -> None:
    """Who is interrupted in `open()` before he waits leaves the pool empty."""
    factory = HangingFactory()
    pool = make_pool(factory, listeners=[InterruptedIn()])
    with pytest.raises(Interruption):
        pool.open()
    assert pool.stats().size == 0
    factory.go.set()
    eventually(lambda: factory.made and not factory.open)


def test_an_interruption_after_the_answer_gives_the_place_back() -> None:
    """Who is interrupted at the very moment he was told gives back what he got, and does not wait for it again."""
    told = threading.Lock()

    class InterruptedLock:
        interruptions = 1

        def acquire(self, timeout: float = -1) -> bool:
            told.acquire(timeout=timeout)
            if self.interruptions:
                self.interruptions -= 1
                raise Interruption
            return True

        def __enter__(self) -> bool:
            return self.acquire()

        def __exit__(self, *raised: object) -> None:
            told.release()

        def release(self) -> None:
            told.release()

    class Answered:
        clock = SystemClock()
        released: list[Slot]

        def request(self, waiter: object) -> None:
            """Has answered already."""

        def withdraw(self, waiter: Any) -> bool:
            self.released = [waiter._slot]
            return False

    waiter: Any = BlockedWaiter(None, since=0, deadline=0).prepare()
    told.acquire()
    waiter._wakes = InterruptedLock()
    slot = Slot(1, limit=1, now=0, deadline=0)
    waiter._slot = slot
    waiter.granted(slot)
    driver = Answered()
    with pytest.raises(Interruption):
        background(lambda: waiter.get(driver)).result(2)
    assert driver.released == [slot]


def test_where_no_thread_can_be_started_a_wait_ends_all_the_same(
    make_pool: PoolMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process that is at its limit there is no worker; who waits keeps his timeout, as if there were one."""
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
    """Hooks are to be quick; while one is not, those who wait keep their timeouts themselves."""
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


def test_a_newcomer_passes_nobody(make_pool: PoolMaker) -> None:
    """While somebody waits, a place that comes free is his, however fast others ask."""
    pool = make_pool(FakeFactory(), max_size=1)
    held = pool.acquire()
    first = background(pool.acquire)
    _when_waiting(pool)
    held.release()
    with pytest.raises(PoolTimeoutError):
        pool.acquire(timeout=0)
    lease: Lease = first.result(LONG)
    lease.release()
