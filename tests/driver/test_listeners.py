"""Which events listeners get, and what their hooks may do."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import signal
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

import grpcpool.aio
from grpcpool import ChannelPool, Listener, Mode, PoolExhaustedError, PoolTimeoutError, events
from grpcpool._shared.announcer import Announcer
from grpcpool._shared.signal_handlers import may_be_of_handler
from grpcpool._values.listener import HOOKS
from grpcpool._values.slot_states import CloseReason
from grpcpool.events import Closed, Draining, Granted, Leaked, Opened, OpenFailed, Opening, Rejected, Released, TimedOut
from grpcpool.testing import ManualClock
from support.fakes import FakeFactory, aio, failing_factory
from support.pools import PoolMaker, Recorder
from support.waiting import LONG, background, eventually

pytestmark = pytest.mark.timeout(60)


def test_every_event_has_a_hook_that_does_nothing() -> None:
    """A `Listener` has one hook for each event, and each does nothing."""
    assert {name for name in vars(Listener) if not name.startswith("_")} == set(HOOKS.values())
    for event, hook in HOOKS.items():
        assert dataclasses.is_dataclass(event)
        assert getattr(Listener(), hook)(None) is None


def test_every_event_is_public() -> None:
    """`grpcpool.events` has the class of each event, for authors of listeners."""
    assert {event.__name__ for event in HOOKS} < set(events.__all__)
    assert all(getattr(events, event.__name__) is event for event in HOOKS)


def test_one_may_be_added_later(make_pool: PoolMaker) -> None:
    """An added listener gets later events, after the earlier listeners; anything but a `Listener` is refused."""
    early, late = Recorder(), Recorder()
    pool = make_pool(FakeFactory(), listeners=[early])
    pool.open()
    # Another thread emits it, maybe only now.
    eventually(lambda: early.of(Opened))
    pool.add_listener(late)
    not_a_listener: Any = object()
    with pytest.raises(TypeError, match=r"grpcpool\.Listener"):
        pool.add_listener(not_a_listener)
    pool.close()
    eventually(lambda: late.of(Closed) == early.of(Closed) != [])
    assert not late.of(Opened)


@pytest.mark.parametrize("listeners", [Recorder(), None, [object()]])
def test_what_are_no_listeners(listeners: Any) -> None:
    """A listener alone, and what is none, is refused when a pool is created."""
    with pytest.raises(TypeError, match=r"listeners must be a list of grpcpool\.Listener objects, not "):
        grpcpool.insecure_channel("localhost:1", listeners=listeners)
    with pytest.raises(TypeError, match=r"listeners must be a list of grpcpool\.Listener objects, not "):
        grpcpool.aio.ChannelPool(aio.FakeFactory(), listeners=listeners)


def test_the_first_that_is_added_hears_grants(make_pool: PoolMaker) -> None:
    """A pool without listeners creates no events of grants; once one is added, it does."""
    recorder = Recorder()
    pool = make_pool(FakeFactory(), max_size=1)
    with pool.acquire():
        pool.add_listener(recorder)
        waiting = background(pool.acquire)
        eventually(lambda: pool.stats().waiting == 1)
    waiting.result(LONG).release()
    eventually(lambda: len(recorder.of(Granted)) == 1)


def test_a_connections_events_from_opening_to_closed(make_pool: PoolMaker, clock: ManualClock) -> None:
    """A connection emits opening, opened and closed, in any order, with the pool's name and its number."""
    recorder = Recorder()
    pool = make_pool(FakeFactory(), name="orders", listeners=[recorder])
    pool.open()
    pool.close()
    eventually(lambda: len(recorder.told) == 3)
    assert recorder.of(Opening) == [Opening(pool="orders", channel=1, replaces=None)]
    assert recorder.of(Opened) == [Opened(pool="orders", channel=1, seconds=0.0)]
    assert recorder.of(Closed) == [
        Closed(pool="orders", channel=1, reason=CloseReason.POOL_CLOSED, cancelled=0),
    ]


def test_the_event_of_a_failure_has_error_and_delay(make_pool: PoolMaker, clock: ManualClock) -> None:
    """`open_failed` has what was raised, and when the pool tries again."""
    recorder = Recorder()
    pool = make_pool(failing_factory, listeners=[recorder])
    with pytest.raises(PoolTimeoutError):
        pool.acquire(timeout=0)
    (failed,) = eventually(lambda: recorder.of(OpenFailed))
    assert (failed.pool, failed.channel) == (pool.name, 1)
    assert isinstance(failed.error, ConnectionRefusedError)
    assert 0 < failed.retry_in <= 0.1


def test_waits_are_reported(make_pool: PoolMaker, clock: ManualClock) -> None:
    """A grant after a wait, a timeout and a rejection emit events with times and numbers; other requests do not."""
    recorder = Recorder()
    pool = make_pool(FakeFactory(), name="orders", listeners=[recorder], max_size=1, max_waiters=1)
    pool.open()
    with pool.acquire():
        waiting = background(lambda: pool.acquire(timeout=3))
        eventually(lambda: pool.stats().waiting == 1)
        with pytest.raises(PoolExhaustedError):
            pool.acquire()
        clock.advance(3)
        with pytest.raises(PoolTimeoutError):
            waiting.result(LONG)
        waiting = background(pool.acquire)
        eventually(lambda: pool.stats().waiting == 1)
        clock.advance(2)
    waiting.result(LONG).release()
    eventually(lambda: recorder.of(Granted))
    assert recorder.of(Rejected) == [Rejected(pool="orders", waiting=1)]
    assert recorder.of(TimedOut) == [TimedOut(pool="orders", waited=3.0)]
    assert recorder.of(Granted) == [Granted(pool="orders", channel=1, waited=2.0)]


def _closings(recorder: Recorder) -> list[tuple[int, str, int]]:
    return [(event.channel, str(event.reason), event.cancelled) for event in recorder.of(Closed)]


def test_a_drain_and_its_end_are_reported(make_pool: PoolMaker) -> None:
    """A connection that waits for other calls emits draining, and closed when they have ended."""
    recorder = Recorder()
    pool = make_pool(FakeFactory(), name="orders", listeners=[recorder], max_streams=5)
    with pool.acquire(streams=3):
        pool.acquire(streams=1).discard()
        (draining,) = recorder.of(Draining)
        assert not recorder.of(Closed)
    assert draining == Draining(pool="orders", channel=1, reason=CloseReason.DISCARDED, in_flight=3)
    assert _closings(recorder) == [(1, "discarded", 0)]


def test_the_reason_of_each_close_is_reported(make_pool: PoolMaker, clock: ManualClock) -> None:
    """The events distinguish idle, age, overflow, shrink, refresh and the close of the pool."""
    recorder = Recorder()
    settings: dict[str, Any] = {"mode": Mode.LOOSE, "idle_timeout": 60, "max_age": 1000, "age_jitter": 0}
    pool = make_pool(FakeFactory(), listeners=[recorder], min_size=1, max_size=2, **settings)

    def reasons() -> list[str]:
        return [reason for _, reason, _ in _closings(recorder)]

    three = [pool.acquire() for _ in range(3)]
    for lease in reversed(three):
        lease.release()
    assert reasons() == ["overflow"]
    pool.resize(max_size=1)
    assert reasons()[1:] == ["shrink"]
    pool.refresh()
    eventually(lambda: len(reasons()) == 3)
    assert reasons()[2] == "refresh"
    pool.resize(max_size=2)
    both = [pool.acquire() for _ in range(2)]
    for lease in both:
        lease.release()
    clock.advance(60)
    assert reasons()[3:] == ["idle"]
    clock.advance(940)
    eventually(lambda: len(reasons()) == 5)
    assert reasons()[4] == "age"
    held = pool.acquire()
    pool.close()
    held.release()
    assert _closings(recorder)[5][1:] == ("pool_closed", 1)
    assert recorder.of(Opening)[-1].replaces is not None


class Curious(Listener):
    """Uses the pool in its hooks."""

    pool: ChannelPool

    def __init__(self) -> None:
        """Starts without a record."""
        self.done: list[str] = []

    def opened(self, event: Opened) -> None:
        """Looks at the pool and acquires a lease."""
        self.pool.stats()
        repr(self.pool)
        with self.pool.acquire(timeout=LONG, streams=1):
            self.done.append("opened")

    def timed_out(self, event: TimedOut) -> None:
        """Looks at the pool."""
        self.pool.stats()
        self.done.append("timed_out")

    def closed(self, event: Closed) -> None:
        """Closes the pool, which is closing already."""
        self.pool.close()
        self.done.append("closed")


def test_a_listener_may_use_the_pool(make_pool: PoolMaker) -> None:
    """Hooks are called without the lock: they may look at the pool, lease from it, and close it."""
    curious = Curious()
    pool = make_pool(FakeFactory(), listeners=[curious], max_size=1)
    curious.pool = pool
    with pool.acquire(streams=1):
        eventually(lambda: curious.done == ["opened"])
        with pytest.raises(PoolTimeoutError):
            pool.acquire(timeout=0)
    pool.close()
    eventually(lambda: curious.done == ["opened", "timed_out", "closed"])
    assert pool.stats().in_flight == 0


class Broken(Listener):
    """Raises in every hook."""

    def opening(self, event: Opening) -> None:
        """Raises."""
        raise RuntimeError("broken listener")

    opened = granted = timed_out = closed = opening  # type: ignore[assignment]


def test_a_listener_that_raises_disturbs_nothing(make_pool: PoolMaker, caplog: pytest.LogCaptureFixture) -> None:
    """What a hook raises is logged; the next listener still gets the event, and the pool goes on."""
    recorder = Recorder()
    pool = make_pool(FakeFactory(), name="orders", listeners=[Broken(), recorder], max_size=1)
    with caplog.at_level(logging.ERROR, "grpcpool"):
        held = pool.acquire()
        waiting = background(pool.acquire)
        eventually(lambda: pool.stats().waiting == 1)
        held.release()
        waiting.result(LONG).release()
        pool.close()
        eventually(lambda: recorder.of(Closed))
    assert {type(event) for event in recorder.told} == {Opening, Opened, Granted, Released, Closed}
    assert "pool 'orders': listener 'Broken' failed in opening" in caplog.text


class Abrupt(Listener):
    """Raises something that is not an `Exception`."""

    def __init__(self, error: type[BaseException]) -> None:
        """Raises `error` after every wait."""
        self._error = error

    def granted(self, event: Granted) -> None:
        """Raises."""
        raise self._error("abrupt listener")

    timed_out = granted  # type: ignore[assignment]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_listener_may_raise_anything(
    make_pool: PoolMaker, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    """Even an exception that ends threads does not end the pool's worker, and later deadlines are kept."""
    pool = make_pool(FakeFactory(), name="orders", listeners=[Abrupt(error)], max_size=1)
    with caplog.at_level(logging.ERROR, "grpcpool"), pool.acquire():
        for _ in range(2):
            with pytest.raises(PoolTimeoutError):
                background(lambda: pool.acquire(timeout=0.01)).result(LONG)
        eventually(lambda: caplog.text.count("pool 'orders': listener 'Abrupt' failed in timed_out") == 2)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_signal_is_not_taken_for_a_listeners_failure(error: type[BaseException]) -> None:
    """An exception that ends the program is passed on if it is raised in a hook on the main thread."""
    announcer = Announcer([Abrupt(error)])
    with pytest.raises(error):
        announcer.emit(TimedOut(pool="orders", waited=1.0))


def test_releases_are_reported(make_pool: PoolMaker, clock: ManualClock) -> None:
    """However a lease is released, a listener with that hook gets the event with the time that it was held."""
    recorder = Recorder()
    pool = make_pool(FakeFactory(), name="orders", listeners=[recorder])
    for end in ("release", "discard", "close"):
        lease = pool.acquire()
        clock.advance(1.5)
        getattr(lease, end)()
        lease.release()
    dropped = [pool.acquire()]
    with pytest.warns(ResourceWarning):
        dropped.clear()
    pool.stats()
    # Another thread may emit it.
    eventually(lambda: len(recorder.of(Released)) == 4)
    assert [event.held for event in recorder.of(Released)] == [1.5, 1.5, 1.5, 0.0]
    without_hook = make_pool(FakeFactory(), listeners=[Listener()])
    with without_hook.acquire() as lease:
        assert not lease._at_release


class Slow(Recorder):
    """Takes its time for a connection that is ready."""

    def __init__(self) -> None:
        """Starts without a record."""
        super().__init__()
        self.goes_on = threading.Event()

    def opened(self, event: Opened) -> None:
        """Waits until it may go on."""
        assert self.goes_on.wait(LONG)
        super().opened(event)


def test_a_release_comes_after_its_grant(make_pool: PoolMaker) -> None:
    """While a slow listener holds up the events of a grant, the lease's release waits for its turn."""
    slow = Slow()
    pool = make_pool(FakeFactory(), listeners=[slow])
    with pool.acquire(timeout=LONG):
        pass
    slow.goes_on.set()
    eventually(lambda: slow.of(Released))
    assert [type(event).__name__ for event in slow.told] == ["Opening", "Opened", "Granted", "Released"]


def test_leaks_are_reported(make_pool: PoolMaker, clock: ManualClock) -> None:
    """A lease held for longer than the threshold is reported once, with connection, time and stack."""
    recorder = Recorder()
    pool = make_pool(FakeFactory(), name="orders", listeners=[recorder], leak_threshold=60)
    with pool.acquire():
        clock.advance(59)
        assert not recorder.of(Leaked)
        clock.advance(2)
        clock.advance(1000)
    (leaked,) = recorder.of(Leaked)
    assert (leaked.pool, leaked.channel, leaked.held) == ("orders", 1, 61.0)
    assert "test_leaks_are_reported" in leaked.stack
    assert "watch_for_leak" not in leaked.stack


class _TimeLimitError(Exception):
    """As a soft time limit: raised by a signal handler."""


@pytest.fixture
def soft_limit() -> Iterator[None]:
    """SIGUSR1 raises `_TimeLimitError` in the main thread."""

    class Limit:
        def __call__(self, *_: object) -> None:
            raise _TimeLimitError

    # Handlers may be functions, methods, objects and what `functools.partial` makes of them.
    before = signal.signal(signal.SIGUSR1, partial(Limit(), 0))
    yield
    signal.signal(signal.SIGUSR1, before)


class _Slow(Listener):
    """Is interrupted in its hook, once."""

    def __init__(self) -> None:
        self.closed_channels: list[int] = []

    def draining(self, event: Draining) -> None:
        signal.raise_signal(signal.SIGUSR1)

    def closed(self, event: Closed) -> None:
        self.closed_channels.append(event.channel)


@pytest.mark.usefixtures("soft_limit")
def test_a_signal_handler_that_raises_in_a_hook(make_pool: PoolMaker, caplog: pytest.LogCaptureFixture) -> None:
    """What it raises reaches the code that was interrupted. The events that follow are emitted."""
    slow = _Slow()
    pool = make_pool(FakeFactory(), max_size=1, listeners=[slow])
    first, second = pool.acquire(streams=1), pool.acquire(streams=1)
    with pytest.raises(_TimeLimitError):
        first.discard()
    second.release()
    eventually(lambda: slow.closed_channels)
    assert not [record for record in caplog.records if record.exc_info]


class _SlowHandler(logging.Handler):
    """Is interrupted as it writes the first line of the main thread."""

    def emit(self, record: logging.LogRecord) -> None:
        if threading.current_thread() is threading.main_thread() and "opening" in record.getMessage():
            logging.getLogger("grpcpool").removeHandler(self)
            signal.raise_signal(signal.SIGUSR1)


@pytest.mark.usefixtures("soft_limit")
def test_a_signal_handler_that_raises_while_an_event_is_logged(make_pool: PoolMaker) -> None:
    """What it raises reaches the code that was interrupted, and the connection is opened."""
    logger = logging.getLogger("grpcpool")
    handler, level = _SlowHandler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        pool = make_pool(FakeFactory())
        with pytest.raises(_TimeLimitError):
            pool.open()
        pool.acquire(timeout=LONG).release()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_errors_that_no_signal_handler_raised(soft_limit: None) -> None:
    """An error of foreign code is not a handler's; `KeyboardInterrupt` may be."""
    for error in (ArithmeticError(), asyncio.CancelledError()):
        assert not may_be_of_handler(error)
    with pytest.raises(_TimeLimitError) as raised:
        signal.raise_signal(signal.SIGUSR1)
    assert may_be_of_handler(raised.value)
    assert may_be_of_handler(KeyboardInterrupt())
    assert not background(lambda: may_be_of_handler(raised.value)).result(LONG)
