"""What an inspector remembers of one pool: its latest events and samples, in two rings that never grow.

Nothing here is done for each call. What comes with calls (timeouts, rejections, refusals) may come by the thousand, and
a server that is away fails every attempt to connect. So what is alike within some seconds is one event with a count: a
flood leaves the life of connections in sight.

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

from ..._shared.fork import watch_for_fork
from ..._values.errors import ConnectError, brief
from ..._values.events import Closed, Draining, Leaked, Opened, OpenFailed, Opening, RefusedStream, Rejected, TimedOut
from ..._values.listener import Listener
from ..._values.stats import PoolStats

EVENTS_KEPT = 200
"""How many events are remembered."""

MERGED_FOR = 10.0
"""Seconds within which events of a kind that comes with calls are counted as one."""

FAILURES_MERGED_FOR = 60.0
"""Seconds within which failures to connect are."""

Detail = str | int | float | None


class Sample(NamedTuple):
    """A pool at one moment of the last minutes; the fields are those of `PoolStats`."""

    at: float
    in_flight: int
    size: int
    waiting: int
    acquired: int


@dataclasses.dataclass(slots=True, eq=False)
class Noted:
    """An event, or several that are alike: when first and last, how many, and what the last one said."""

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

    def note(
        self,
        kind: str,
        channel: int | None,
        details: Mapping[str, Detail],
        *,
        within: float = 0.0,
        of: int | None = None,
    ) -> None:
        """Remembers an event: as one more of the last that is alike, if that began no longer than `within` seconds ago.

        Alike are those of a `kind`, and `of` a connection, if it is given.
        """
        now = time.time()
        with self._lock:
            last = self._latest.get((kind, of))
            if last is not None and last in self._events and 0 <= now - last.at < within:
                last.count, last.last_at, last.channel, last.details = last.count + 1, now, channel, details
                # Whoever reads finds the latest at the end.
                self._events.remove(last)
                self._events.append(last)
                return
            self._noted += 1
            noted = Noted(self._noted, kind, channel, now, now, details)
            self._events.append(noted)
            if within:
                self._latest[kind, of] = noted

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
            book.note("opened", event.channel, {"seconds": event.seconds, "replaces": replaces})

    def open_failed(self, event: OpenFailed) -> None:
        """A connection could not be made."""
        if (book := self._book()) is not None:
            book.closed(event.channel)
            retry_in = event.retry_in if math.isfinite(event.retry_in) else None
            details: dict[str, Detail] = {"error": _in_words(event.error), "retry_in": retry_in}
            book.note("open_failed", event.channel, details, within=FAILURES_MERGED_FOR)

    def closed(self, event: Closed) -> None:
        """A connection left the pool."""
        if (book := self._book()) is not None:
            book.closed(event.channel)
            book.note("closed", event.channel, {"reason": str(event.reason), "cancelled": event.cancelled})

    def draining(self, event: Draining) -> None:
        """A connection takes no new calls."""
        if (book := self._book()) is not None:
            book.retired(event.channel, str(event.reason))
            book.note("draining", event.channel, {"reason": str(event.reason), "in_flight": event.in_flight})

    def timed_out(self, event: TimedOut) -> None:
        """A waiter waited in vain."""
        if (book := self._book()) is not None:
            book.note("timed_out", None, {"waited": event.waited}, within=MERGED_FOR)

    def rejected(self, event: Rejected) -> None:
        """Too many waited already."""
        if (book := self._book()) is not None:
            book.note("rejected", None, {"waiting": event.waiting}, within=MERGED_FOR)

    def refused_stream(self, event: RefusedStream) -> None:
        """A server refused a call."""
        if (book := self._book()) is not None:
            book.note("refused_stream", event.channel, {"limit": event.limit}, within=MERGED_FOR, of=event.channel)

    def leaked(self, event: Leaked) -> None:
        """A lease is held for long. The stack stays in the log: it may show what is nobody's business."""
        if (book := self._book()) is not None:
            book.note("leaked", event.channel, {"held": event.held})


def _in_words(error: BaseException) -> str:
    """What gRPC says; of an error of the user's own factory or prime only the name, for its text may hold secrets."""
    return brief(error) if isinstance(error, ConnectError | grpc.RpcError) else type(error).__name__
