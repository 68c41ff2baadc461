"""The history of one pool for the inspector: its latest events and samples, in two bounded buffers, and its waits.

Nothing here runs for each call, only for calls that waited. Events that calls cause (timeouts, rejections, refused
streams) may come by the thousand, an unreachable server fails every attempt to connect, a connection may be lost again
and again, and so may a resolver fail or change its mind. So equal events in a row, or within some seconds, are one
event with a count, and do not push others out of the buffer.

Hooks may run in a finalizer, which may interrupt any line of a thread, also one of this module. So an event is first
put in a queue, and recorded at once only if nobody holds the history's lock; otherwise the next that takes it does so.

Moments are those of a clock that no change of the calendar moves, and that goes on while the system is suspended; they
become dates when they are read.

In a forked child the history is empty, as the pool is.
"""

from __future__ import annotations

import dataclasses
import math
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import grpc

from ..._shared.fork import watch_for_fork
from ..._values.errors import ConnectError, brief
from ..._values.events import (
    AddressesChanged,
    AnyEvent,
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
    Released,
    TimedOut,
)
from ..._values.listener import HOOKS, Listener
from ..._values.plain_text import plain
from ..._values.slot_states import CloseReason
from ..._values.stats import PoolStats
from ._waits import Waits, WaitSummary

EVENTS_KEPT = 500
"""The number of events that are kept: those of two rolling restarts of 64 connections."""

MERGED_FOR = 10.0
"""Seconds within which equal events that calls cause are merged into one."""

FAILURES_MERGED_FOR = 60.0
"""Seconds within which failed attempts to connect or to look up, and losses of one connection, are one event."""

# The kinds of events that are merged for each connection.
_MERGED_BY_CHANNEL = ("refused_stream", "lost", "recovered", "avoided")

# `time.monotonic()` stands still on Linux and on macOS while the system is suspended. Windows has none of these.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))

Detail = str | int | float | None


class Known(NamedTuple):
    """What was known at a moment: the connections that something is noted of, and how many failed to open."""

    channels: frozenset[int]
    open_failures: int


class Sample(NamedTuple):
    """The state of a pool at one moment; the fields are those of `PoolStats`."""

    at: float
    in_flight: int
    size: int
    waiting: int
    acquired: int
    failures: int
    timeouts: int
    rejected: int


@dataclasses.dataclass(slots=True, eq=False)
class RecordedEvent:
    """An event, or several equal ones: when it happened first and last, how often, and the last one's details.

    `address` is that of `channel`, if it was ever seen.
    """

    id: int
    kind: str
    channel: int | None
    address: str | None
    at: float
    last_at: float
    details: Mapping[str, Detail]
    count: int = 1


class PoolHistory:
    """The events and samples of one pool. Thread-safe, also if a finalizer interrupts it and emits an event."""

    def __init__(self, every: float, keep: float) -> None:
        """Keeps at most one sample every `every` seconds, for `keep` seconds."""
        self._every = every
        self._keep = keep
        self._samples_kept = math.ceil(keep / every) + 1
        self._reset()
        watch_for_fork(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        # Events that are not recorded yet, and when they happened.
        self._noted: deque[tuple[AnyEvent, float]] = deque()
        self._record = Record(Waits(self._keep, _moment()))
        self._samples: deque[Sample] = deque(maxlen=self._samples_kept)
        self._sampled_at = -math.inf

    def _after_fork_in_child(self) -> object:
        """Clears the history: the parent's events are not the child's."""
        self._reset()
        return None

    def note(self, event: AnyEvent) -> None:
        """Records an event."""
        self._noted.append((event, _moment()))
        # Waiting for the lock would be a deadlock if this interrupts the thread that holds it.
        if not self._lock.locked():
            with self._lock:
                self._up_to_date()

    def _up_to_date(self) -> Record:
        """Returns the record with all events; the lock is held."""
        while self._noted:
            event, moment = self._noted.popleft()
            self._record.add(event, moment)
        return self._record

    def known(self) -> Known:
        """Returns what is known so far, for `sample`."""
        with self._lock:
            return self._up_to_date().known()

    def sample(self, stats: PoolStats, known: Known | None = None) -> None:
        """Adds a sample from `stats`, unless the last one is too recent; notes what they say about connections.

        They say nothing about what happened after they were taken: `known` is what was known before. Without it,
        nothing has happened since.
        """
        with self._lock:
            now = _moment()
            record = self._up_to_date()
            record.compare(stats, record.known() if known is None else known)
            # With some slack: a timer that fires slightly early must not halve the rate.
            if now < self._sampled_at + 0.8 * self._every:
                return
            self._sampled_at = now
            figures = (getattr(stats, name) for name in Sample._fields[1:])
            self._samples.append(Sample(now, *figures))

    def samples(self) -> list[Sample]:
        """Returns the samples with their dates, oldest first."""
        with self._lock:
            epoch = _epoch()
            return [sample._replace(at=epoch + sample.at) for sample in self._samples]

    def waits(self) -> WaitSummary:
        """Returns the number of recent waits, and their percentiles."""
        with self._lock:
            return self._up_to_date().waits.summary(_moment())

    def events(self) -> list[RecordedEvent]:
        """Returns copies of the events with their dates, oldest first."""
        with self._lock:
            epoch = _epoch()
            events = list(self._up_to_date().events)
            return [dataclasses.replace(each, at=epoch + each.at, last_at=epoch + each.last_at) for each in events]

    def is_down(self, stats: PoolStats) -> bool:
        """Returns whether no connection is up, although some were, or the last attempt to open one failed."""
        with self._lock:
            return not stats.ready and (stats.lost > 0 or self._up_to_date().failing)

    def reason(self, channel: int) -> str | None:
        """Returns why the connection is draining; `None` if it is not."""
        with self._lock:
            return self._up_to_date().retired.get(channel)


def _moment() -> float:
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


def _epoch() -> float:
    """The date of the clock's zero, by today's calendar."""
    return time.time() - _moment()


class Record(Listener):
    """What has become of the events so far. Not thread-safe: `PoolHistory` calls it under its lock."""

    def __init__(self, waits: Waits) -> None:
        """Starts without events; adds waits to `waits`."""
        self.waits = waits
        self.events: deque[RecordedEvent] = deque(maxlen=EVENTS_KEPT)
        # Why connections are draining.
        self.retired: dict[int, str] = {}
        # Whether an attempt to connect failed, and no connection has been up since.
        self.failing = False
        self._latest: dict[tuple[str, int | None], RecordedEvent] = {}
        # Which connection an opening one replaces.
        self._replaces: dict[int, int] = {}
        # The addresses of the connections in the last snapshot, and in the last one that had others.
        self._addresses: dict[int, str] = {}
        self._addresses_before: dict[int, str] = {}
        self._count = 0
        self._open_failures = 0
        self._now = 0.0

    def add(self, event: AnyEvent, moment: float) -> None:
        """Records an event of that moment."""
        self._now = moment
        getattr(self, HOOKS[type(event)])(event)

    def known(self) -> Known:
        """Returns what is known so far."""
        merged = (of for _, of in self._latest if of is not None)
        return Known(frozenset((*self._replaces, *self.retired, *merged)), self._open_failures)

    def compare(self, stats: PoolStats, known: Known) -> None:
        """Notes the connections' addresses and that some are up; forgets those of `known` that are gone.

        A successor that is given up while it opens is not an event.
        """
        if stats.ready and known.open_failures == self._open_failures:
            self.failing = False
        self._note_addresses(stats)
        for channel in known.channels.difference(channel.id for channel in stats.channels):
            self._forget(channel)

    def _note_addresses(self, stats: PoolStats) -> None:
        known = {channel.id: channel.address for channel in stats.channels if channel.address is not None}
        if known == self._addresses:
            return
        self._addresses_before, self._addresses = self._addresses, known
        # The first events of a connection may come before its first snapshot, and the last ones after its last.
        for event in self.events:
            event.address = event.address or self._address(event.channel)

    def _address(self, channel: int | None) -> str | None:
        if channel is None:
            return None
        return self._addresses.get(channel) or self._addresses_before.get(channel)

    def _forget(self, channel: int) -> None:
        self._replaces.pop(channel, None)
        self.retired.pop(channel, None)
        for kind in _MERGED_BY_CHANNEL:
            self._latest.pop((kind, channel), None)

    def _add(
        self,
        kind: str,
        channel: int | None,
        details: Mapping[str, Detail],
        *,
        within: float = 0.0,
        of: int | None = None,
    ) -> None:
        """Adds an event, or merges it into the last equal one if that began less than `within` seconds ago.

        Events are equal if they have the same `kind` and, if it is given, concern the same connection, `of`. Events of
        one kind and connection in a row are merged in any case.
        """
        now = self._now
        address = self._address(channel)
        last = self._latest.get((kind, of))
        merged = last is not None and last in self.events and now - last.at < within
        if not merged and self.events:
            last = self.events[-1]
            merged = (last.kind, last.channel) == (kind, channel)
        if last is not None and merged:
            last.count, last.last_at, last.channel, last.details = last.count + 1, now, channel, details
            last.address = address
            # Keeps the latest event at the end.
            self.events.remove(last)
            self.events.append(last)
            return
        self._count += 1
        event = RecordedEvent(self._count, kind, channel, address, now, now, details)
        self.events.append(event)
        if within:
            self._latest[kind, of] = event

    # --- the hooks ----------------------------------------------------------------------------------------------

    def opening(self, event: Opening) -> None:
        """Notes which connection is replaced; the snapshot itself shows that one is opening."""
        if event.replaces is not None:
            self._replaces[event.channel] = event.replaces

    def opened(self, event: Opened) -> None:
        """Records that a connection is open."""
        self.failing = False
        replaces = self._replaces.pop(event.channel, None)
        self._add("opened", event.channel, {"seconds": event.seconds, "replaces": replaces})

    def open_failed(self, event: OpenFailed) -> None:
        """Records that a connection failed to open."""
        self.failing = True
        self._open_failures += 1
        self._forget(event.channel)
        retry_in = event.retry_in if math.isfinite(event.retry_in) else None
        details: dict[str, Detail] = {"error": _error_text(event.error), "retry_in": retry_in}
        self._add("open_failed", event.channel, details, within=FAILURES_MERGED_FOR)

    def lost(self, event: Lost) -> None:
        """Records that a connection is down."""
        cause = None if event.cause is None else _error_text(event.cause)
        details: dict[str, Detail] = {"cause": cause, "up": event.up}
        self._add("lost", event.channel, details, within=FAILURES_MERGED_FOR, of=event.channel)

    def recovered(self, event: Recovered) -> None:
        """Records that a connection is up again."""
        self.failing = False
        details: dict[str, Detail] = {"seconds": event.seconds}
        self._add("recovered", event.channel, details, within=FAILURES_MERGED_FOR, of=event.channel)

    def avoided(self, event: Avoided) -> None:
        """Records that a connection ranks behind others."""
        details: dict[str, Detail] = {"code": None if event.code is None else event.code.name}
        self._add("avoided", event.channel, details, within=FAILURES_MERGED_FOR, of=event.channel)

    def closed(self, event: Closed) -> None:
        """Records that a connection was closed; one that was not needed was up until then."""
        if event.reason in (CloseReason.IDLE, CloseReason.SHRINK):
            self.failing = False
        self._forget(event.channel)
        self._add("closed", event.channel, {"reason": str(event.reason), "cancelled": event.cancelled})

    def draining(self, event: Draining) -> None:
        """Records that a connection is draining."""
        self.retired[event.channel] = str(event.reason)
        self._add("draining", event.channel, {"reason": str(event.reason), "in_flight": event.in_flight})

    def addresses_changed(self, event: AddressesChanged) -> None:
        """Records that the target has other addresses: how many, as a list may be long."""
        details: dict[str, Detail] = {
            "addresses": len(event.addresses),
            "new": len(event.new),
            "gone": len(event.gone),
        }
        self._add("addresses_changed", None, details, within=MERGED_FOR)

    def look_up_failed(self, event: LookUpFailed) -> None:
        """Records that the target's addresses could not be looked up."""
        error = _error_text(event.error)
        self._add("look_up_failed", None, {"error": error}, within=FAILURES_MERGED_FOR)

    def granted(self, event: Granted) -> None:
        """Records how long a waiter waited for its place."""
        self.waits.add(event.waited, self._now)

    def timed_out(self, event: TimedOut) -> None:
        """Records that a waiter timed out, and how long it waited."""
        self.waits.add(event.waited, self._now, timed_out=True)
        self._add("timed_out", None, {"waited": event.waited}, within=MERGED_FOR)

    def rejected(self, event: Rejected) -> None:
        """Records that the queue was full."""
        self._add("rejected", None, {"waiting": event.waiting}, within=MERGED_FOR)

    def refused_stream(self, event: RefusedStream) -> None:
        """Records that a server refused a stream."""
        self._add("refused_stream", event.channel, {"limit": event.limit}, within=MERGED_FOR, of=event.channel)

    def leaked(self, event: Leaked) -> None:
        """Records a lease that is held for long, without its stack, which may reveal secrets."""
        self._add("leaked", event.channel, {"held": event.held})


class HistoryListener(Listener):
    """Records a pool's events in a history, which it holds weakly: listeners cannot be removed from a pool."""

    def __init__(self, history: PoolHistory) -> None:
        """Holds `history` weakly, so that the pool does not keep it alive."""
        self._history = weakref.ref(history)

    def _note(self, event: AnyEvent) -> None:
        if (history := self._history()) is not None:
            history.note(event)


for _event, _hook in HOOKS.items():
    # Releases would cost each lease something.
    if _event is not Released:
        setattr(HistoryListener, _hook, HistoryListener._note)


def _error_text(error: BaseException) -> str:
    """Returns gRPC's or the resolver's message; for errors of the user's code only the type: the text may hold secrets.

    The page inserts it as text, so that it cannot add elements; escaped, it cannot reorder the line either.
    """
    is_known = isinstance(error, ConnectError | grpc.RpcError | socket.gaierror)
    return plain(brief(error)) if is_known else type(error).__name__
