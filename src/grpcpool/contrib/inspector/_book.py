"""What an inspector remembers of one pool: its latest events and samples, in two rings that never grow.

Nothing here is done for each call. What calls cause (timeouts, rejections, refusals) may come by the thousand, so that
what is alike within `MERGED_FOR` seconds is one event with a count: a flood leaves the life of connections in sight.

In a forked child the book is empty, as the pool is.
"""

from __future__ import annotations

import dataclasses
import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

import grpc

from ..._errors import ConnectError, brief
from ..._forking import watch_for_fork
from ..._listener import (
    ChannelEvent,
    Closed,
    Draining,
    Leaked,
    Listener,
    Opened,
    OpenFailed,
    Opening,
    PoolEvent,
    RefusedStream,
    Rejected,
    TimedOut,
)
from ..._stats import PoolStats

EVENTS_KEPT = 200
"""How many events are remembered."""

MERGED_FOR = 10.0
"""Seconds within which events of a kind that comes with calls are counted as one."""

Detail = str | int | float | None


class Sample(NamedTuple):
    """A pool at one moment of the last minutes; the fields are those of `PoolStats`."""

    at: float
    in_flight: int
    size: int
    waiting: int
    acquired: int


@dataclasses.dataclass(slots=True)
class Noted:
    """An event, or several of a kind: when first and last, how many, and what the last one said."""

    id: int
    kind: str
    channel: int | None
    at: float
    last_at: float
    details: Mapping[str, Detail]
    count: int = 1


class Book:
    """Remembers one pool; for any thread."""

    def __init__(self, every: float, keep: float) -> None:
        """Takes a sample no more often than `every` seconds, and remembers `keep` seconds of them."""
        self._every = every
        self._samples_kept = math.ceil(keep / every) + 1
        self._begin()
        watch_for_fork(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._events: deque[Noted] = deque(maxlen=EVENTS_KEPT)
        self._samples: deque[Sample] = deque(maxlen=self._samples_kept)
        self._latest: dict[tuple[str, int | None], Noted] = {}
        self._replaces: dict[int, int] = {}
        self._retired: dict[int, str] = {}
        self._noted = 0
        self._sampled_at = -math.inf

    def after_fork_in_child(self) -> object:
        """Starts afresh: what the parent's pool lived through is not the child's."""
        self._begin()
        return None

    # --- samples ------------------------------------------------------------------------------------------------

    def sample(self, stats: PoolStats) -> None:
        """Remembers `stats`, unless the last sample was taken just now."""
        now = time.monotonic()
        with self._lock:
            # Some slack, for a timer that rings a little early must not halve the rate.
            if now < self._sampled_at + 0.8 * self._every:
                return
            self._sampled_at = now
            sample = Sample(time.time(), stats.in_flight, stats.size, stats.waiting, stats.acquired)
            self._samples.append(sample)

    def samples(self) -> list[Sample]:
        """The samples, oldest first."""
        with self._lock:
            return list(self._samples)

    # --- events -------------------------------------------------------------------------------------------------

    def note(self, kind: str, channel: int | None, *, merged: bool = False, **details: Detail) -> None:
        """Remembers an event; with `merged`, as one more of the last of its kind if that is not long ago."""
        now = time.time()
        with self._lock:
            last = self._latest.get((kind, channel)) if merged else None
            if last is not None and 0 <= now - last.at < MERGED_FOR:
                last.count, last.last_at, last.details = last.count + 1, now, details
                return
            self._noted += 1
            noted = Noted(self._noted, kind, channel, now, now, details)
            self._events.append(noted)
            if merged:
                self._latest[kind, channel] = noted

    def events(self) -> list[Noted]:
        """Copies of the events, oldest first."""
        with self._lock:
            return [dataclasses.replace(noted) for noted in self._events]

    # --- connections --------------------------------------------------------------------------------------------

    def opening(self, channel: int, replaces: int) -> None:
        """Remembers, until the connection is open, whose successor it is."""
        with self._lock:
            self._replaces[channel] = replaces

    def opened(self, channel: int) -> int | None:
        """Forgets that; says whose successor it is."""
        with self._lock:
            return self._replaces.pop(channel, None)

    def retired(self, channel: int, reason: str) -> None:
        """Remembers, until the connection is closed, why it takes no new calls."""
        with self._lock:
            self._retired[channel] = reason

    def closed(self, channel: int) -> None:
        """Forgets the connection."""
        with self._lock:
            self._replaces.pop(channel, None)
            self._retired.pop(channel, None)
            self._latest.pop(("refused_stream", channel), None)

    def reason(self, channel: int) -> str | None:
        """Why the connection takes no new calls, if it was told to."""
        with self._lock:
            return self._retired.get(channel)


class Ear(Listener):
    """Writes a pool's events into a book, for as long as there is one: a pool cannot be told to forget a listener."""

    def __init__(self, book: Book) -> None:
        """Does not hold `book`, nor does anything that the pool holds."""
        self._book = weakref.ref(book)

    def opening(self, event: Opening) -> None:
        """Is shown by the connection itself; only whom it replaces must be remembered."""
        if (book := self._book()) is not None and event.replaces is not None:
            book.opening(event.channel, event.replaces)

    def opened(self, event: Opened) -> None:
        """A connection is in service."""
        if (book := self._book()) is not None:
            replaces = book.opened(event.channel)
            book.note("opened", event.channel, seconds=event.seconds, replaces=replaces)

    def open_failed(self, event: OpenFailed) -> None:
        """A connection could not be made."""
        if (book := self._book()) is not None:
            book.closed(event.channel)
            self._note("open_failed", event, error=_in_words(event.error), retry_in=_finite(event.retry_in))

    def closed(self, event: Closed) -> None:
        """A connection left the pool."""
        if (book := self._book()) is not None:
            book.closed(event.channel)
            self._note("closed", event, reason=str(event.reason), cancelled=event.cancelled)

    def draining(self, event: Draining) -> None:
        """A connection takes no new calls."""
        if (book := self._book()) is not None:
            book.retired(event.channel, str(event.reason))
            self._note("draining", event, reason=str(event.reason), in_flight=event.in_flight)

    def timed_out(self, event: TimedOut) -> None:
        """A waiter waited in vain."""
        self._note("timed_out", event, merged=True, waited=event.waited)

    def rejected(self, event: Rejected) -> None:
        """Too many waited already."""
        self._note("rejected", event, merged=True, waiting=event.waiting)

    def refused_stream(self, event: RefusedStream) -> None:
        """A server refused a call."""
        self._note("refused_stream", event, merged=True, limit=event.limit)

    def leaked(self, event: Leaked) -> None:
        """A lease is held for long. The stack stays in the log: it may show what is nobody's business."""
        self._note("leaked", event, held=event.held)

    def _note(self, kind: str, event: PoolEvent, *, merged: bool = False, **details: Detail) -> None:
        book = self._book()
        if book is not None:
            channel = event.channel if isinstance(event, ChannelEvent) else None
            book.note(kind, channel, merged=merged, **details)


def _in_words(error: BaseException) -> str:
    """What gRPC says; of an error of the user's own factory or prime only the name, for its text may hold secrets."""
    return brief(error) if isinstance(error, ConnectError | grpc.RpcError) else type(error).__name__


def _finite(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) else None
