"""The history of one pool for the inspector: its latest events and samples, in two bounded buffers, and its waits.

Nothing here runs for each call, only for calls that waited. Events that calls cause (timeouts, rejections, refused
streams) may come by the thousand, an unreachable server fails every attempt to connect, a connection may be lost again
and again, and so may a resolver fail or change its mind. So equal events in a row, or within some seconds, are one
event with a count, and do not push others out of the buffer.

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
from ..._values.listener import Listener
from ..._values.plain_text import plain
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

Detail = str | int | float | None


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
    """The events and samples of one pool. Thread-safe."""

    def __init__(self, every: float, keep: float) -> None:
        """Keeps at most one sample every `every` seconds, for `keep` seconds."""
        self._every = every
        self._keep = keep
        self._samples_kept = math.ceil(keep / every) + 1
        self._reset()
        watch_for_fork(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._events: deque[RecordedEvent] = deque(maxlen=EVENTS_KEPT)
        self._samples: deque[Sample] = deque(maxlen=self._samples_kept)
        self._latest: dict[tuple[str, int | None], RecordedEvent] = {}
        self._replaces: dict[int, int] = {}
        self._retired: dict[int, str] = {}
        # The addresses of the connections in the last snapshot, and in the last one that had others.
        self._addresses: dict[int, str] = {}
        self._addresses_before: dict[int, str] = {}
        self._waits = Waits(self._keep, time.monotonic())
        # Whether the last attempt to connect failed.
        self._failing = False
        self._event_count = 0
        self._sampled_at = -math.inf

    def _after_fork_in_child(self) -> object:
        """Clears the history: the parent's events are not the child's."""
        self._reset()
        return None

    # --- samples ------------------------------------------------------------------------------------------------

    def sample(self, stats: PoolStats) -> None:
        """Adds a sample from `stats`, unless the last one is too recent; notes the connections' addresses."""
        now = time.monotonic()
        with self._lock:
            self._note_addresses(stats)
            # With some slack: a timer that fires slightly early must not halve the rate.
            if now < self._sampled_at + 0.8 * self._every:
                return
            self._sampled_at = now
            figures = (getattr(stats, name) for name in Sample._fields[1:])
            self._samples.append(Sample(time.time(), *figures))

    def _note_addresses(self, stats: PoolStats) -> None:
        known = {channel.id: channel.address for channel in stats.channels if channel.address is not None}
        if known == self._addresses:
            return
        self._addresses_before, self._addresses = self._addresses, known
        # The first events of a connection may come before its first snapshot, and the last ones after its last.
        for event in self._events:
            event.address = event.address or self._address(event.channel)

    def _address(self, channel: int | None) -> str | None:
        if channel is None:
            return None
        return self._addresses.get(channel) or self._addresses_before.get(channel)

    def samples(self) -> list[Sample]:
        """Returns the samples, oldest first."""
        with self._lock:
            return list(self._samples)

    # --- waits --------------------------------------------------------------------------------------------------

    def waited(self, seconds: float, *, timed_out: bool = False) -> None:
        """Adds a wait that has just ended."""
        with self._lock:
            self._waits.add(seconds, time.monotonic(), timed_out=timed_out)

    def waits(self) -> WaitSummary:
        """Returns the number of recent waits, and their percentiles."""
        with self._lock:
            return self._waits.summary(time.monotonic())

    # --- events -------------------------------------------------------------------------------------------------

    def record(
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
        now = time.time()
        with self._lock:
            address = self._address(channel)
            last = self._latest.get((kind, of))
            merged = last is not None and last in self._events and 0 <= now - last.at < within
            if not merged and self._events:
                last = self._events[-1]
                merged = (last.kind, last.channel) == (kind, channel)
            if last is not None and merged:
                last.count, last.last_at, last.channel, last.details = last.count + 1, now, channel, details
                last.address = address
                # Keeps the latest event at the end.
                self._events.remove(last)
                self._events.append(last)
                return
            self._event_count += 1
            event = RecordedEvent(self._event_count, kind, channel, address, now, now, details)
            self._events.append(event)
            if within:
                self._latest[kind, of] = event

    def events(self) -> list[RecordedEvent]:
        """Returns copies of the events, oldest first."""
        with self._lock:
            return [dataclasses.replace(event) for event in self._events]

    # --- connections --------------------------------------------------------------------------------------------

    def opening(self, channel: int, replaces: int) -> None:
        """Notes which connection this one replaces, until it is open."""
        with self._lock:
            self._replaces[channel] = replaces

    def opened(self, channel: int) -> int | None:
        """Returns which connection this one replaces, and forgets it."""
        with self._lock:
            self._failing = False
            return self._replaces.pop(channel, None)

    def failed(self, channel: int) -> None:
        """Notes that the server is unreachable, until a connection is open; forgets this one."""
        self.closed(channel)
        with self._lock:
            self._failing = True

    def recovered(self) -> None:
        """Notes that the server can be reached."""
        with self._lock:
            self._failing = False

    def is_down(self, stats: PoolStats) -> bool:
        """Returns whether no connection is up, although some were, or the last attempt to open one failed."""
        with self._lock:
            return not stats.ready and (stats.lost > 0 or self._failing)

    def retired(self, channel: int, reason: str) -> None:
        """Notes why the connection is draining, until it is closed."""
        with self._lock:
            self._retired[channel] = reason

    def closed(self, channel: int) -> None:
        """Forgets the connection."""
        with self._lock:
            self._replaces.pop(channel, None)
            self._retired.pop(channel, None)
            for kind in _MERGED_BY_CHANNEL:
                self._latest.pop((kind, channel), None)

    def reason(self, channel: int) -> str | None:
        """Returns why the connection is draining; `None` if it is not."""
        with self._lock:
            return self._retired.get(channel)


class HistoryListener(Listener):
    """Records a pool's events in a history, which it holds weakly: listeners cannot be removed from a pool."""

    def __init__(self, history: PoolHistory) -> None:
        """Holds `history` weakly, so that the pool does not keep it alive."""
        self._history = weakref.ref(history)

    def opening(self, event: Opening) -> None:
        """Notes which connection is replaced; the snapshot itself shows that one is opening."""
        if (history := self._history()) is not None and event.replaces is not None:
            history.opening(event.channel, event.replaces)

    def opened(self, event: Opened) -> None:
        """Records that a connection is open."""
        if (history := self._history()) is not None:
            replaces = history.opened(event.channel)
            history.record("opened", event.channel, {"seconds": event.seconds, "replaces": replaces})

    def open_failed(self, event: OpenFailed) -> None:
        """Records that a connection failed to open."""
        if (history := self._history()) is not None:
            history.failed(event.channel)
            retry_in = event.retry_in if math.isfinite(event.retry_in) else None
            details: dict[str, Detail] = {"error": _error_text(event.error), "retry_in": retry_in}
            history.record("open_failed", event.channel, details, within=FAILURES_MERGED_FOR)

    def lost(self, event: Lost) -> None:
        """Records that a connection is down."""
        if (history := self._history()) is not None:
            cause = None if event.cause is None else _error_text(event.cause)
            details: dict[str, Detail] = {"cause": cause, "up": event.up}
            history.record("lost", event.channel, details, within=FAILURES_MERGED_FOR, of=event.channel)

    def recovered(self, event: Recovered) -> None:
        """Records that a connection is up again."""
        if (history := self._history()) is not None:
            history.recovered()
            details: dict[str, Detail] = {"seconds": event.seconds}
            history.record("recovered", event.channel, details, within=FAILURES_MERGED_FOR, of=event.channel)

    def avoided(self, event: Avoided) -> None:
        """Records that a connection ranks behind others."""
        if (history := self._history()) is not None:
            details: dict[str, Detail] = {"code": None if event.code is None else event.code.name}
            history.record("avoided", event.channel, details, within=FAILURES_MERGED_FOR, of=event.channel)

    def closed(self, event: Closed) -> None:
        """Records that a connection was closed."""
        if (history := self._history()) is not None:
            history.closed(event.channel)
            history.record("closed", event.channel, {"reason": str(event.reason), "cancelled": event.cancelled})

    def draining(self, event: Draining) -> None:
        """Records that a connection is draining."""
        if (history := self._history()) is not None:
            history.retired(event.channel, str(event.reason))
            history.record("draining", event.channel, {"reason": str(event.reason), "in_flight": event.in_flight})

    def addresses_changed(self, event: AddressesChanged) -> None:
        """Records that the target has other addresses: how many, as a list may be long."""
        if (history := self._history()) is not None:
            details: dict[str, Detail] = {
                "addresses": len(event.addresses),
                "new": len(event.new),
                "gone": len(event.gone),
            }
            history.record("addresses_changed", None, details, within=MERGED_FOR)

    def look_up_failed(self, event: LookUpFailed) -> None:
        """Records that the target's addresses could not be looked up."""
        if (history := self._history()) is not None:
            error = _error_text(event.error)
            history.record("look_up_failed", None, {"error": error}, within=FAILURES_MERGED_FOR)

    def granted(self, event: Granted) -> None:
        """Records how long a waiter waited for its place."""
        if (history := self._history()) is not None:
            history.waited(event.waited)

    def timed_out(self, event: TimedOut) -> None:
        """Records that a waiter timed out, and how long it waited."""
        if (history := self._history()) is not None:
            history.waited(event.waited, timed_out=True)
            history.record("timed_out", None, {"waited": event.waited}, within=MERGED_FOR)

    def rejected(self, event: Rejected) -> None:
        """Records that the queue was full."""
        if (history := self._history()) is not None:
            history.record("rejected", None, {"waiting": event.waiting}, within=MERGED_FOR)

    def refused_stream(self, event: RefusedStream) -> None:
        """Records that a server refused a stream."""
        if (history := self._history()) is not None:
            history.record("refused_stream", event.channel, {"limit": event.limit}, within=MERGED_FOR, of=event.channel)

    def leaked(self, event: Leaked) -> None:
        """Records a lease that is held for long, without its stack, which may reveal secrets."""
        if (history := self._history()) is not None:
            history.record("leaked", event.channel, {"held": event.held})


def _error_text(error: BaseException) -> str:
    """Returns gRPC's or the resolver's message; for errors of the user's code only the type: the text may hold secrets.

    The page inserts it as text, so that it cannot add elements; escaped, it cannot reorder the line either.
    """
    is_known = isinstance(error, ConnectError | grpc.RpcError | socket.gaierror)
    return plain(brief(error)) if is_known else type(error).__name__
