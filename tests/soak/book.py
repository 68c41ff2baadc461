"""The book of calls: each call that was begun, and how it ended.

Only calls that need an explanation are kept; all others are counted, so that a long soak takes no more memory than a
short one. An acquire is recorded like a call, and so is each call over its lease.
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
"""Seconds after its deadline in which a call must be over, on a busy machine."""

# These outcomes do not show whether the call had a place by then.
_MAYBE_PLACED = ("CANCELLED", "dropped", "INTERNAL", "UNKNOWN", "BrokenError")


@dataclasses.dataclass(slots=True, eq=False)
class Call:
    """One call, or one acquire.

    Attributes:
        number: In the order of beginning.
        caller: The caller's name.
        name: Its kind and manner.
        means: The outcomes that its caller intends.
        began: When.
        due: When it must be over.
        waits: Whether it is `wait_for_ready`.
        whole: Whether it asks for a whole connection.
        sent_once: Whether the pool does not send it again after a refusal.
        on_lease: Whether it has no place of its own.
        chosen: When its connection was, on a lease: when that was granted. Otherwise when it began.
        ended: When.
        outcome: ``ok``, ``dropped``, a status code, or the name of the error.
        details: The error's text.
        by_pool: Whether the pool, not gRPC, made it fail.
        cancelled_by_chaos: Whether chaos has cancelled it.
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
    chosen: float = math.nan
    ended: float = math.inf
    outcome: str = "never ended"
    details: str = ""
    by_pool: bool = False
    cancelled_by_chaos: bool = False

    def __post_init__(self) -> None:
        """Without a lease its connection is chosen as it begins."""
        if math.isnan(self.chosen):
            self.chosen = self.began


class Entry:
    """A call while it lasts, for a ``with`` statement."""

    def __init__(self, book: Book, call: Call) -> None:
        """For a call that has begun."""
        self._book = book
        self._call = call

    def __enter__(self) -> Call:
        """The call."""
        return self._call

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> bool:
        """Records its end, and suppresses its error."""
        self._book.end(self._call, exc_val)
        return not isinstance(exc_val, KeyboardInterrupt | SystemExit | GeneratorExit)


class Book:
    """The book, usable from any thread."""

    def __init__(self) -> None:
        """Starts empty."""
        self.counts: Counter[tuple[str, str]] = Counter()
        """Calls that are over, by name and outcome."""
        self.begun = 0
        self.asked = 0
        """Calls and acquires that asked the pool for a place."""
        self.placed = 0
        """Those of them that certainly had one."""
        self.timed_out = 0
        """Those of them that timed out in the pool."""
        self.unclear = 0
        """Those of them for which neither is certain."""
        self._guard = threading.Lock()
        self._numbers = itertools.count(1)
        self._open: dict[int, Call] = {}
        self._to_explain: list[Call] = []
        self._cancels: dict[int, tuple[Call, Callable[[], object]]] = {}

    # --- for callers --------------------------------------------------------------------------------------------

    def begin(self, caller: str, wish: Wish, *, name: str | None = None, **how: Any) -> Call:
        """Records the begin of a call; `name` and the other arguments override what the wish says."""
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
        """Records the end of a call; without an error it went well, or was dropped."""
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
        """Records the ``with`` block as a call, with whatever it raises, which goes no further."""
        return Entry(self, self.begin(caller, wish, **how))

    @contextmanager
    def cancellable(self, call: Call, cancel: Callable[[], object]) -> Iterator[None]:
        """During the block, chaos may cancel the call with `cancel`."""
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

    # --- for the judge ------------------------------------------------------------------------------------------

    @property
    def open(self) -> list[Call]:
        """The calls that are not over."""
        with self._guard:
            return list(self._open.values())

    def take_to_explain(self) -> list[Call]:
        """The calls that did not end as intended, since this was last asked."""
        with self._guard:
            taken, self._to_explain = self._to_explain, []
        return taken


def outcome_of(error: BaseException) -> str:
    """The kind of error, in a word."""
    if isinstance(error, asyncio.CancelledError | grpc.FutureCancelledError):
        return "CANCELLED"
    if isinstance(error, grpc.RpcError):
        code: grpc.StatusCode = error.code()
        return code.name
    return type(error).__name__


def details_of(error: BaseException) -> str:
    """The error's text; for an unexpected error also its traceback."""
    if isinstance(error, grpc.RpcError):
        return str(error.details())
    if isinstance(error, PoolError | asyncio.CancelledError | grpc.FutureCancelledError):
        return str(error)
    return "".join(traceback.format_exception(error))
