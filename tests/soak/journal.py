"""What was done to the servers and to the pool, and when.

Only some of it explains a failed call: a killed or frozen server, and, for acquires of whole connections, a pool that
is kept small. These are troubles, with a beginning and an end. All else in the journal (a refresh, a resize, a
discarded connection, or one replaced for its age) must not make any call fail.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

from grpcpool import Listener
from grpcpool.events import Closed, PoolEvent
from support.pools import HOOKS

# The part of the journal shown for a failed call: this many seconds before it began, and some after it ended.
_AROUND = 1.0
_LONG_BEFORE = 10.0
_REMEMBERED = 2_000
_TOO_MANY = ("granted", "refused_stream", "released")


class Kind(enum.StrEnum):
    """The kinds of trouble."""

    KILLED = "killed"
    """A server is gone, from the kill until it serves again."""
    FROZEN = "frozen"
    """A server stands still; its connections stay open."""
    NARROW = "narrow"
    """The pool may have few connections."""


@dataclasses.dataclass(slots=True, eq=False)
class Trouble:
    """A trouble of one server (by number) or of the pool (-1), for a time."""

    kind: Kind
    server: int
    began: float
    ended: float = math.inf
    running: int = 0
    """Calls that were open when it began."""
    certain: float = math.inf
    """From when on it was surely so: on a busy machine a process that is killed takes its time to die."""


class Journal:
    """Takes notes, from any thread."""

    def __init__(self) -> None:
        """Starts now."""
        self.began = time.monotonic()
        self.troubles: list[Trouble] = []
        self._guard = threading.Lock()
        self._notes: deque[tuple[float, str]] = deque(maxlen=_REMEMBERED)

    def note(self, what: str) -> None:
        """Notes that something was done, or has happened."""
        with self._guard:
            self._notes.append((time.monotonic(), what))

    def begin(self, kind: Kind, server: int = -1, *, running: int = 0) -> Trouble:
        """Notes the beginning of a trouble."""
        self.note(f"{kind}{f': server {server}' if server >= 0 else ''}")
        trouble = Trouble(kind, server, time.monotonic(), running=running)
        with self._guard:
            self.troubles.append(trouble)
        return trouble

    def end(self, trouble: Trouble) -> None:
        """Notes the end of a trouble."""
        trouble.ended = time.monotonic()
        trouble.certain = min(trouble.certain, trouble.ended)
        self.note(f"no longer {trouble.kind}{f': server {trouble.server}' if trouble.server >= 0 else ''}")

    def at(self, moment: float) -> str:
        """The moment, in seconds since the start."""
        return f"{moment - self.began:8.3f}"

    def around(self, began: float, ended: float) -> Iterable[str]:
        """What happened shortly before, during and after a time; and the troubles of a longer time."""
        with self._guard:
            notes = [(moment, what) for moment, what in self._notes if began - _AROUND <= moment <= ended + _AROUND / 5]
        recent = [trouble for trouble in self.troubles if trouble.ended >= began - _LONG_BEFORE]
        for trouble in recent:
            until = self.at(trouble.ended) if trouble.ended < math.inf else "now"
            yield f"{self.at(trouble.began)} to {until}: {trouble.kind} {trouble.server if trouble.server >= 0 else ''}"
        for moment, what in notes:
            yield f"{self.at(moment)} {what}"


class Witness(Listener):
    """Counts the pool's events, and writes most of them into the journal."""

    def __init__(self, journal: Journal) -> None:
        """Starts with no counts."""
        self.counts: Counter[str] = Counter()
        self.cut = 0
        """Leases and calls that were still on a connection at its close."""
        self.unsent = 0
        """Calls that gRPC could not send, which the pool therefore ran, or tried to run, on another connection."""
        self._journal = journal
        self._guard = threading.Lock()

    def watch(self, driver: Any) -> None:
        """Counts the calls of the driver's pool that gRPC could not send."""
        release_unsent = driver.release_unsent

        def counted(*arguments: Any, **how: bool) -> bool:
            unsent: bool = release_unsent(*arguments, **how)
            with self._guard:
                self.unsent += unsent
            return unsent

        driver.release_unsent = counted

    def record(self, hook: str, event: PoolEvent) -> None:
        """Counts an event."""
        with self._guard:
            self.counts[hook] += 1
            if isinstance(event, Closed):
                self.cut += event.cancelled
        if hook not in _TOO_MANY:
            self._journal.note(f"    pool: {event}")


for _hook in HOOKS:
    setattr(Witness, _hook, lambda self, event, hook=_hook: self.record(hook, event))
