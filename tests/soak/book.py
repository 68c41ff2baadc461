"""The book of calls: each that was begun, and what became of it.

Only what failed, and needs an explanation, is kept; the rest is counted, so that a long soak takes no more memory
than a short one. An ask for a lease stands in the book like a call, and so does each call over it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import math
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import grpc

from grpcpool import PoolError
from soak.wishes import Wish

LATE = 3.0
"""Seconds after its deadline within which a call must be over, on a machine that others keep busy."""

# What does not tell whether the call had a place by then.
_MAYBE_PLACED = ("CANCELLED", "dropped", "INTERNAL", "UNKNOWN", "BrokenError")


@dataclasses.dataclass(slots=True, eq=False)
class Call:
    """One call, or one ask for a lease.

    Attributes:
        number: In the order of beginning.
        caller: Who made it.
        name: Of what kind it is.
        means: What it may come to by its caller's own will.
        began: When.
        due: When it must be over.
        waits: Whether it is `wait_for_ready`.
        whole: Whether it asks for a whole connection.
        sent_once: Whether it is none of those that the pool sends again if a server refuses them.
        on_lease: Whether it has no place of its own.
        ended: When.
        outcome: ``ok``, ``dropped``, a status code, or the name of the error.
        details: What the error says.
        by_pool: Whether the pool, not gRPC, made it fail.
        told_to_end: Whether chaos has cancelled it.
    """

    number: int
    caller: str
    name: str
    means: frozenset[str]
    began: float
    due: float
    waits: bool = False
    whole: bool = False
    sent_once: bool = False
    on_lease: bool = False
    ended: float = math.inf
    outcome: str = "never ended"
    details: str = ""
    by_pool: bool = False
    told_to_end: bool = False


class Entry:
    """A call while it lasts, for a ``with`` statement."""

    def __init__(self, book: Book, call: Call) -> None:
        """Of a call that has begun."""
        self._book = book
        self._call = call

    def __enter__(self) -> Call:
        """The call."""
        return self._call

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> bool:
        """It is over; nobody else hears of its error."""
        self._book.end(self._call, exc_val)
        return not isinstance(exc_val, KeyboardInterrupt | SystemExit | GeneratorExit)


class Book:
    """Keeps it, from any thread."""

    def __init__(self) -> None:
        """Is empty."""
        self.counts: Counter[tuple[str, str]] = Counter()
        """Calls that are over, by name and outcome."""
        self.begun = 0
        self.asked = 0
        """Calls and leases that asked the pool for a place."""
        self.placed = 0
        """Those of them that had one for sure."""
        self.timed_out = 0
        """Those of them that the pool let wait in vain."""
        self.unclear = 0
        """Those of them of which nobody can say either."""
        self._guard = threading.Lock()
        self._numbers = itertools.count(1)
        self._open: dict[int, Call] = {}
        self._to_explain: list[Call] = []
        self._cancels: dict[int, tuple[Call, Callable[[], object]]] = {}

    # --- for callers --------------------------------------------------------------------------------------------

    def begin(self, caller: str, wish: Wish, *, name: str | None = None, **how: Any) -> Call:
        """A call begins; `name` and what follows override what the wish says."""
        now = time.monotonic()
        given = {"means": wish.means, "due": now + wish.timeout, "sent_once": wish.kind in ("collect", "chat"), **how}
        number = next(self._numbers)
        call = Call(number=number, caller=caller, name=name or wish.name, began=now, waits=wish.waits, **given)
        with self._guard:
            self._open[call.number] = call
            self.begun += 1
            self.asked += not call.on_lease
        return call

    def end(self, call: Call, error: BaseException | None) -> None:
        """It is over; if it did not fail, it went well, or was dropped."""
        ended = time.monotonic()
        if error is not None:
            call.outcome, call.details = outcome_of(error), details_of(error)
            call.by_pool = isinstance(error, PoolError) or isinstance(error.__cause__, PoolError)
        elif call.outcome != "dropped":
            call.outcome = "ok"
        with self._guard:
            call.ended = ended
            del self._open[call.number]
            self.counts[call.name, call.outcome] += 1
            if not call.on_lease:
                self._count_place(call)
            if call.outcome not in call.means or call.ended > call.due + LATE:
                self._to_explain.append(call)

    def _count_place(self, call: Call) -> None:
        if call.by_pool:
            self.timed_out += call.outcome in ("DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "PoolTimeoutError")
        elif call.outcome in _MAYBE_PLACED:
            self.unclear += 1
        else:
            self.placed += 1

    def call(self, caller: str, wish: Wish, **how: Any) -> Entry:
        """A call is what is in the ``with`` block; whatever it raises goes into the book, and no further."""
        return Entry(self, self.begin(caller, wish, **how))

    @contextmanager
    def cancellable(self, call: Call, cancel: Callable[[], object]) -> Iterator[None]:
        """While the block lasts, chaos may cancel the call, by `cancel`."""
        with self._guard:
            self._cancels[call.number] = (call, cancel)
        try:
            yield
        finally:
            with self._guard:
                del self._cancels[call.number]

    # --- for chaos ----------------------------------------------------------------------------------------------

    def cancellables(self) -> list[tuple[Call, Callable[[], object]]]:
        """The calls that could be cancelled now, and how."""
        with self._guard:
            return list(self._cancels.values())

    # --- for who judges -----------------------------------------------------------------------------------------

    @property
    def open(self) -> list[Call]:
        """The calls that are not over."""
        with self._guard:
            return list(self._open.values())

    def take_to_explain(self) -> list[Call]:
        """The calls that did not end as meant, since this was asked last."""
        with self._guard:
            taken, self._to_explain = self._to_explain, []
        return taken


def outcome_of(error: BaseException) -> str:
    """In a word, what a call failed with."""
    if isinstance(error, asyncio.CancelledError | grpc.FutureCancelledError):
        return "CANCELLED"
    if isinstance(error, grpc.RpcError):
        code: grpc.StatusCode = error.code()
        return code.name
    return type(error).__name__


def details_of(error: BaseException) -> str:
    """What it says; of what should not happen at all, from where."""
    if isinstance(error, grpc.RpcError):
        return str(error.details())
    if isinstance(error, PoolError | asyncio.CancelledError | grpc.FutureCancelledError):
        return str(error)
    return "".join(traceback.format_exception(error))
