"""The history of a pool: events, samples, and their bounds."""

from __future__ import annotations

import dataclasses
import datetime as dt
import gc
import socket
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import grpc
import pytest

from grpcpool import ChannelStats, PoolStats
from grpcpool._values.errors import ConnectError
from grpcpool._values.plain_text import plain
from grpcpool._values.slot_states import CloseReason, SlotState
from grpcpool.contrib.inspector._history import EVENTS_KEPT, HistoryListener, PoolHistory
from grpcpool.events import (
    AddressesChanged,
    Avoided,
    Closed,
    Draining,
    Granted,
    Leaked,
    LookUpFailed,
    Lost,
    Opened,
    OpenFailed,
    Opening,
    Recovered,
    RefusedStream,
    Rejected,
    TimedOut,
)
from support.hostile import HOSTILE, is_safe
from support.waiting import background


def stats(in_flight: int, **figures: int) -> PoolStats:
    """Returns a snapshot with this number in flight, these figures, and zeros otherwise."""
    counters = dict.fromkeys(PoolStats.__dataclass_fields__, 0)
    return PoolStats(**{**counters, **figures, "in_flight": in_flight, "closed": {}, "channels": ()})  # type: ignore[arg-type]


def recorded(history: PoolHistory) -> list[tuple[str, int | None, int, dict[str, object]]]:
    """Returns the recorded events without their times."""
    return [(each.kind, each.channel, each.count, dict(each.details)) for each in history.events()]


class DetailsError(grpc.RpcError):
    """A gRPC error with details."""

    def details(self) -> str:
        """Returns the details."""
        return "connection refused"


def test_events_are_recorded_with_their_reasons() -> None:
    """Events of connections are recorded in order, with their reasons."""
    history = PoolHistory(1.0, 10.0)
    listener = HistoryListener(history)
    listener.opening(Opening(pool="p", channel=2, replaces=1))
    listener.opened(Opened(pool="p", channel=2, seconds=0.25))
    listener.draining(Draining(pool="p", channel=1, reason=CloseReason.AGE, in_flight=3))
    assert history.reason(1) == "age"
    listener.closed(Closed(pool="p", channel=1, reason=CloseReason.AGE, cancelled=0))
    assert history.reason(1) is None
    assert recorded(history) == [
        ("opened", 2, 1, {"seconds": 0.25, "replaces": 1}),
        ("draining", 1, 1, {"reason": "age", "in_flight": 3}),
        ("closed", 1, 1, {"reason": "age", "cancelled": 0}),
    ]


def test_equal_events_are_merged() -> None:
    """Equal events that calls cause are one event with a count, for each connection, the latest at the end."""
    history = PoolHistory(1.0, 10.0)
    listener = HistoryListener(history)
    for waited in range(1000):
        listener.timed_out(TimedOut(pool="p", waited=waited))
        listener.rejected(Rejected(pool="p", waiting=waited))
    listener.refused_stream(RefusedStream(pool="p", channel=1, limit=9))
    listener.refused_stream(RefusedStream(pool="p", channel=2, limit=5))
    listener.refused_stream(RefusedStream(pool="p", channel=1, limit=8))
    assert recorded(history) == [
        ("timed_out", None, 1000, {"waited": 999}),
        ("rejected", None, 1000, {"waiting": 999}),
        ("refused_stream", 2, 1, {"limit": 5}),
        ("refused_stream", 1, 2, {"limit": 8}),
    ]


def test_equal_events_in_a_row_are_one() -> None:
    """Thousands of events of one kind and connection in a row are one, with the last one's time and details."""
    history = PoolHistory(1.0, 10.0)
    listener = HistoryListener(history)
    for held in range(3000):
        listener.leaked(Leaked(pool="p", channel=1, held=held, stack=""))
    listener.leaked(Leaked(pool="p", channel=2, held=1, stack=""))
    assert recorded(history) == [("leaked", 1, 3000, {"held": 2999}), ("leaked", 2, 1, {"held": 1})]
    first, _ = history.events()
    assert first.at <= first.last_at


def test_losses_and_failures_are_merged() -> None:
    """A connection that is lost again and again, and calls that fail in turn, have one line for each kind."""
    history = PoolHistory(1.0, 10.0)
    listener = HistoryListener(history)
    for seconds in range(1000):
        for channel in (1, 2):
            listener.avoided(Avoided(pool="p", channel=channel, code=grpc.StatusCode.INTERNAL))
            listener.lost(Lost(pool="p", channel=channel, cause=DetailsError(), up=0))
            listener.recovered(Recovered(pool="p", channel=channel, seconds=seconds))
    listener.avoided(Avoided(pool="p", channel=1, code=None))
    assert recorded(history) == [
        ("lost", 1, 1000, {"cause": "connection refused", "up": 0}),
        ("recovered", 1, 1000, {"seconds": 999}),
        ("avoided", 2, 1000, {"code": "INTERNAL"}),
        ("lost", 2, 1000, {"cause": "connection refused", "up": 0}),
        ("recovered", 2, 1000, {"seconds": 999}),
        ("avoided", 1, 1001, {"code": None}),
    ]


def test_changes_of_addresses_and_failed_look_ups_are_merged() -> None:
    """A resolver that fails and changes its answer again and again has one line for each kind."""
    history = PoolHistory(1.0, 10.0)
    listener = HistoryListener(history)
    for _ in range(1000):
        listener.addresses_changed(AddressesChanged(pool="p", addresses=("a:1",), new=("a:1",), gone=()))
        listener.look_up_failed(LookUpFailed(pool="p", error=ValueError("password 1234")))
    listener.addresses_changed(AddressesChanged(pool="p", addresses=("b:1", "c:1"), new=("b:1", "c:1"), gone=("a:1",)))
    assert recorded(history) == [
        ("look_up_failed", None, 1000, {"error": "ValueError"}),
        ("addresses_changed", None, 1001, {"addresses": 2, "new": 2, "gone": 1}),
    ]


def test_the_resolvers_message_is_shown() -> None:
    """The message of a failed look-up in the DNS is shown: it is that of the system's resolver."""
    history = PoolHistory(1.0, 10.0)
    HistoryListener(history).look_up_failed(LookUpFailed(pool="p", error=socket.gaierror(-2, "Name not known")))
    assert [each.details for each in history.events()] == [{"error": "[Errno -2] Name not known"}]


def test_a_cause_in_the_users_code_is_not_shown() -> None:
    """For an error of the user's own code only the type is shown; there may be no cause."""
    history = PoolHistory(1.0, 10.0)
    listener = HistoryListener(history)
    listener.lost(Lost(pool="p", channel=1, cause=ValueError("password 1234"), up=1))
    listener.lost(Lost(pool="p", channel=2, up=0))
    assert [each.details["cause"] for each in history.events()] == ["ValueError", None]


def test_a_pool_is_down_while_nothing_is_up() -> None:
    """It is down if connections are lost, or the last attempt failed, and none is up; not if it has none by intent."""
    history = PoolHistory(1.0, 10.0)
    listener = HistoryListener(history)
    nothing = stats(0)
    assert not history.is_down(nothing)
    assert history.is_down(stats(0, lost=1))
    assert not history.is_down(stats(0, lost=1, ready=1))
    failed = OpenFailed(pool="p", channel=1, error=DetailsError(), retry_in=0.5)
    listener.open_failed(failed)
    assert history.is_down(nothing)
    assert not history.is_down(stats(0, ready=1))
    listener.recovered(Recovered(pool="p", channel=2, seconds=1.0))
    assert not history.is_down(nothing)
    listener.open_failed(failed)
    listener.opened(Opened(pool="p", channel=3, seconds=0.1))
    assert not history.is_down(nothing)


def test_a_pool_at_rest_is_not_down() -> None:
    """A failed attempt to grow is not an outage, neither then nor after the other connections closed as not needed."""
    failed = OpenFailed(pool="p", channel=2, error=DetailsError(), retry_in=0.5)
    for reason in (CloseReason.IDLE, CloseReason.SHRINK):
        history = PoolHistory(1.0, 10.0)
        listener = HistoryListener(history)
        listener.open_failed(failed)
        listener.closed(Closed(pool="p", channel=1, reason=reason, cancelled=0))
        assert not history.is_down(stats(0))
    history = PoolHistory(1.0, 10.0)
    listener = HistoryListener(history)
    listener.open_failed(failed)
    history.sample(stats(0, ready=1))
    listener.closed(Closed(pool="p", channel=1, reason=CloseReason.DISCARDED, cancelled=0))
    assert not history.is_down(stats(0))
    listener.open_failed(failed)
    listener.closed(Closed(pool="p", channel=1, reason=CloseReason.LOST, cancelled=0))
    assert history.is_down(stats(0))


def test_a_snapshot_says_nothing_about_later_events() -> None:
    """What happens between a snapshot and its sample is not undone by it."""
    history = PoolHistory(1.0, 10.0)
    listener = HistoryListener(history)
    known, taken = history.known(), with_addresses(c1="10.0.0.7:1")
    listener.opening(Opening(pool="p", channel=2, replaces=1))
    listener.draining(Draining(pool="p", channel=3, reason=CloseReason.AGE, in_flight=3))
    listener.open_failed(OpenFailed(pool="p", channel=4, error=DetailsError(), retry_in=0.5))
    history.sample(dataclasses.replace(taken, ready=1), known)
    listener.opened(Opened(pool="p", channel=2, seconds=0.1))
    assert history.reason(3) == "age"
    assert recorded(history)[-1][-1] == {"seconds": 0.1, "replaces": 1}
    listener.open_failed(OpenFailed(pool="p", channel=5, error=DetailsError(), retry_in=0.5))
    known = history.known()
    listener.open_failed(OpenFailed(pool="p", channel=6, error=DetailsError(), retry_in=0.5))
    history.sample(dataclasses.replace(taken, ready=1), known)
    assert history.is_down(stats(0))


def test_failures_to_connect_are_merged() -> None:
    """Repeated failures to connect are one event, and leave room for others."""
    history = PoolHistory(1.0, 10.0)
    listener = HistoryListener(history)
    for channel in (1, 2):
        listener.open_failed(OpenFailed(pool="p", channel=channel, error=DetailsError(), retry_in=0.5))
    assert recorded(history) == [("open_failed", 2, 2, {"error": "connection refused", "retry_in": 0.5})]


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ConnectError("not ready within 10 s"), "not ready within 10 s"),
        (ValueError("password 1234"), "ValueError"),
    ],
)
def test_only_grpcs_own_messages_are_shown(error: BaseException, shown: str) -> None:
    """For an error of the user's own code only the type is shown, because the text may contain secrets."""
    history = PoolHistory(1.0, 10.0)
    HistoryListener(history).open_failed(OpenFailed(pool="p", channel=1, error=error, retry_in=float("inf")))
    assert recorded(history) == [("open_failed", 1, 1, {"error": shown, "retry_in": None})]


def test_no_stack_is_recorded() -> None:
    """A leak is recorded without the stack that acquired the lease."""
    history = PoolHistory(1.0, 10.0)
    HistoryListener(history).leaked(Leaked(pool="p", channel=1, held=3.0, stack="a = 'secret'"))
    assert recorded(history) == [("leaked", 1, 1, {"held": 3.0})]


def test_the_buffers_are_bounded() -> None:
    """Only the latest events and samples are kept."""
    history = PoolHistory(1e-9, 4e-9)
    listener = HistoryListener(history)
    for number in range(EVENTS_KEPT + 10):
        listener.opened(Opened(pool="p", channel=number, seconds=0.0))
        history.sample(stats(number))
    assert [each.channel for each in history.events()] == list(range(10, EVENTS_KEPT + 10))
    assert [each.in_flight for each in history.samples()] == list(range(EVENTS_KEPT + 5, EVENTS_KEPT + 10))


def test_samples_have_a_minimum_interval() -> None:
    """Several samples within the interval are one; it has the time at which it was taken."""
    history = PoolHistory(3600.0, 7200.0)
    before = dt.datetime.now(dt.UTC).timestamp()
    for number in range(5):
        history.sample(stats(number))
    (sample,) = history.samples()
    assert sample.in_flight == 0
    assert before - 1 < sample.at < before + 60


def test_samples_have_the_counters_of_trouble() -> None:
    """Each sample has how many calls failed, timed out and were rejected so far."""
    history = PoolHistory(1.0, 10.0)
    history.sample(stats(1, failures=2, timeouts=3, rejected=4))
    (sample,) = history.samples()
    assert (sample.in_flight, sample.failures, sample.timeouts, sample.rejected) == (1, 2, 3, 4)


def test_waits_are_counted() -> None:
    """Waits that ended with a place and waits that timed out are counted; rejections did not wait."""
    history = PoolHistory(1.0, 10.0)
    listener = HistoryListener(history)
    for _ in range(99):
        listener.granted(Granted(pool="p", channel=1, waited=0.01))
    listener.timed_out(TimedOut(pool="p", waited=2.0))
    listener.rejected(Rejected(pool="p", waiting=1))
    waits = history.waits()
    assert (waits.count, waits.timed_out) == (100, 1)
    assert waits.p50 == waits.p90 == waits.p99 == pytest.approx(0.01, rel=0.06)
    listener.timed_out(TimedOut(pool="p", waited=2.0))
    assert history.waits().p99 == pytest.approx(2.0, rel=0.06)


def with_addresses(**addresses: str | None) -> PoolStats:
    """Returns a snapshot with these connections, ``c1`` at its address."""
    now = dt.datetime.now(dt.UTC)
    channels = [
        ChannelStats(
            id=int(name[1:]),
            state=SlotState.READY,
            address=address,
            in_flight=0,
            limit=1,
            exclusive=False,
            created_at=now,
            used_at=now,
            calls=0,
        )
        for name, address in addresses.items()
    ]
    return dataclasses.replace(stats(0), channels=tuple(channels))


def test_events_have_the_connections_address() -> None:
    """An event has its connection's address, also before the first snapshot and after the last; or it is unknown."""
    history = PoolHistory(1.0, 10.0)
    listener = HistoryListener(history)
    listener.opened(Opened(pool="p", channel=1, seconds=0.1))
    history.sample(with_addresses(c1="10.0.0.7:1", c2="10.0.0.8:1", c3=None))
    listener.lost(Lost(pool="p", channel=2, up=0))
    listener.lost(Lost(pool="p", channel=3, up=0))
    listener.rejected(Rejected(pool="p", waiting=1))
    for _ in range(2):
        history.sample(with_addresses(c4="10.0.0.9:1"))
    listener.closed(Closed(pool="p", channel=1, reason=CloseReason.AGE, cancelled=0))
    history.sample(with_addresses())
    listener.closed(Closed(pool="p", channel=2, reason=CloseReason.AGE, cancelled=0))
    assert [(each.channel, each.address) for each in history.events()] == [
        (1, "10.0.0.7:1"),
        (2, "10.0.0.8:1"),
        (3, None),
        (None, None),
        (1, "10.0.0.7:1"),
        (2, None),
    ]


def test_connections_that_are_gone_are_forgotten() -> None:
    """What was noted of a connection is forgotten with it, also if no event says that it is gone."""
    history = PoolHistory(1.0, 10.0)
    listener = HistoryListener(history)
    listener.opening(Opening(pool="p", channel=2, replaces=1))
    listener.opening(Opening(pool="p", channel=3, replaces=1))
    listener.draining(Draining(pool="p", channel=4, reason=CloseReason.AGE, in_flight=3))
    listener.lost(Lost(pool="p", channel=5, up=1))
    history.sample(with_addresses(c1="10.0.0.7:1", c3="10.0.0.7:1"))
    assert history.reason(4) is None
    for channel in (2, 3):
        listener.opened(Opened(pool="p", channel=channel, seconds=0.1))
    assert [dict(each.details).get("replaces") for each in history.events()] == [None, None, None, 1]
    listener.lost(Lost(pool="p", channel=5, up=1))
    assert [each.count for each in history.events() if each.kind == "lost"] == [1, 1]


@pytest.fixture
def calendar(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], None]]:
    """Moves the calendar by some seconds, as a correction of the system's time does."""
    real, moved = time.time, 0.0

    def move(seconds: float) -> None:
        nonlocal moved
        moved += seconds

    monkeypatch.setattr(time, "time", lambda: real() + moved)
    yield move
    monkeypatch.undo()


@pytest.mark.parametrize("hours", [-1, 8])
def test_a_change_of_the_calendar_does_not_show(calendar: Callable[[float], None], hours: int) -> None:
    """After it, events and samples have their order, their distances and the new dates, and are merged as before."""
    history = PoolHistory(1e-9, 1.0)
    listener = HistoryListener(history)

    def happen() -> None:
        listener.rejected(Rejected(pool="p", waiting=1))
        listener.opened(Opened(pool="p", channel=1, seconds=0.1))
        history.sample(stats(1))

    began = time.monotonic()
    happen()
    calendar(3600.0 * hours)
    happen()
    listener.rejected(Rejected(pool="p", waiting=1))
    now, passed = time.time(), time.monotonic() - began
    events = history.events()
    moments = [moment for event in events for moment in (event.at, event.last_at)]
    moments += [sample.at for sample in history.samples()]
    assert [(each.kind, each.count) for each in events] == [("opened", 1), ("opened", 1), ("rejected", 3)]
    assert all(event.at <= event.last_at for event in events)
    assert all(now - passed - 0.1 <= moment <= now + 0.1 for moment in moments), (now, moments)


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="needs a clock that goes on")
def test_a_suspension_does_not_move_dates(calendar: Callable[[float], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """After it, events, samples and waits have the dates at which they happened."""
    history = PoolHistory(1.0, 300.0)
    listener = HistoryListener(history)
    read, hours = time.clock_gettime, 8 * 3600.0
    before = time.time()
    listener.timed_out(TimedOut(pool="p", waited=1.0))
    history.sample(stats(1))
    assert history.waits().count == 1
    # The calendar and this clock go on; `time.monotonic()` does not.
    calendar(hours)
    monkeypatch.setattr(time, "clock_gettime", lambda of: read(of) + hours * (of == time.CLOCK_BOOTTIME))
    (event,), (sample,) = history.events(), history.samples()
    assert [moment - before for moment in (event.at, event.last_at, sample.at)] == [pytest.approx(0, abs=600)] * 3
    assert history.waits().count == 0


class _Finalizers:
    """Calls a function once at each line of the history's module, as a finalizer may interrupt it."""

    def __init__(self, finalize: Callable[[], object]) -> None:
        self._finalize = finalize
        self.lines: set[int] = set()

    def trace(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        """Is called by the interpreter for each call, and each line of a call that it is the answer to."""
        if frame.f_globals["__name__"] != PoolHistory.__module__:
            return None
        if frame.f_lineno not in self.lines:
            self.lines.add(frame.f_lineno)
            self._finalize()
        return self.trace


def test_a_finalizer_may_interrupt_each_line() -> None:
    """A finalizer that releases a lease, which serves a waiter, does not wait for the lock that its thread holds."""
    history = PoolHistory(1.0, 10.0)
    listener = HistoryListener(history)
    finalizers = _Finalizers(lambda: listener.granted(Granted(pool="p", channel=1, waited=0.01)))

    def work() -> None:
        sys.settrace(finalizers.trace)
        try:
            listener.lost(Lost(pool="p", channel=1, up=0))
            listener.timed_out(TimedOut(pool="p", waited=2.0))
            history.sample(with_addresses(c1="10.0.0.7:1"))
            history.events()
            history.samples()
            history.waits()
            history.reason(1)
            history.is_down(stats(0))
        finally:
            sys.settrace(None)

    background(work).result(20)
    assert len(finalizers.lines) > 50
    assert history.waits().count == len(finalizers.lines) + 1


def test_in_a_forked_child_it_is_empty() -> None:
    """The parent's events, samples and waits are not the child's."""
    history = PoolHistory(1.0, 10.0)
    HistoryListener(history).granted(Granted(pool="p", channel=1, waited=1.0))
    HistoryListener(history).opened(Opened(pool="p", channel=1, seconds=0.0))
    history.sample(stats(1))
    history._after_fork_in_child()
    assert (history.events(), history.samples()) == ([], [])
    assert history.waits().count == 0


def test_a_pool_does_not_hold_the_history() -> None:
    """After the inspector is dropped, its history is collected, and the listener does nothing."""
    history = PoolHistory(1.0, 10.0)
    listener = HistoryListener(history)
    gone = weakref.ref(history)
    del history
    gc.collect()
    assert gone() is None
    listener.opening(Opening(pool="p", channel=1, replaces=0))
    listener.opened(Opened(pool="p", channel=1, seconds=0.0))
    listener.rejected(Rejected(pool="p", waiting=1))


class HostileError(DetailsError):
    """A gRPC error whose details a hostile server sent."""

    def details(self) -> str:
        """Returns the details."""
        return HOSTILE


def test_a_servers_text_is_plain() -> None:
    """Control characters that a server sent do not reach the page."""
    history = PoolHistory(1.0, 10.0)
    HistoryListener(history).open_failed(OpenFailed(pool="p", channel=1, error=HostileError(), retry_in=0.5))
    ((_, _, _, details),) = recorded(history)
    assert details["error"] == plain(HOSTILE)
    assert is_safe(plain(HOSTILE))
