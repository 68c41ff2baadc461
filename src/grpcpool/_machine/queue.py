"""The waiters: first come, first served among equal asks, and cheap to leave.

An ask is a number of streams, or `None` for a whole connection. Each ask has a line of its own, so that a waiter for a
whole connection does not hold up others for which there is room. A line is a dict, which keeps the order of arrival
and lets any waiter leave from the middle at once. Deadlines are in a heap; a waiter that has left stays in it until its
deadline, or until such waiters are the majority.

A call that is sent again pauses first: it waits, but asks for its place only from `not_before` on, as the last of all.

Invariants:
    * A waiter is queued, or answered; never both, and answered once.
    * `length` is the number of queued waiters, `asked` the sum of the streams that those ask for that do not pause.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator

from .._values.errors import PoolError, Refusal
from .slot import Slot


class Waiter:
    """A request for a place that is not answered yet. Drivers subclass it with the means to pass the answer on.

    Attributes:
        streams: The ask: so many streams of one connection, or (`None`) all of it.
        deadline: Moment at which it is refused; `math.inf` for never.
        not_before: Moment until which it pauses.
        fail_fast: Whether it fails at once when no connection is up (gRPC's ``wait_for_ready`` unset).
        since: When it asked.
        number: Its position in the order of arrival while it is queued; else 0.
        refusal: Why it gets nothing, once that is decided.
        waited: The seconds that count as its wait, once it has got a place from the queue.
    """

    __slots__ = (
        "_released",
        "_slot",
        "deadline",
        "fail_fast",
        "not_before",
        "number",
        "refusal",
        "since",
        "streams",
        "waited",
    )

    # Whether it is a call, and not a lease.
    is_call = False

    def __init__(
        self,
        streams: int | None,
        *,
        since: float,
        deadline: float,
        fail_fast: bool = False,
        not_before: float = -math.inf,
    ) -> None:
        """Describes the ask; it waits only once the machine has queued it."""
        self.streams = streams
        self.since = since
        self.deadline = deadline
        self.fail_fast = fail_fast
        self.not_before = not_before
        self.number = 0
        self.refusal: Refusal | None = None
        self.waited: float | None = None
        # As a holder: the slot of its place from the moment of the decision, which is before the answer arrives.
        self._slot: Slot | None = None
        self._released = False

    @property
    def queued(self) -> bool:
        """Whether it still waits."""
        return self.number > 0

    @property
    def decided(self) -> bool:
        """Whether its answer is decided; it may still be on its way."""
        return self._slot is not None or self.refusal is not None

    def granted(self, slot: Slot) -> None:
        """The driver notifies it that it has a place on `slot`."""

    def refused(self, error: PoolError) -> None:
        """The driver notifies it that it gets nothing because of `error`."""


class _Line(dict[Waiter, None]):
    """The waiters with the same ask, in the order of arrival; and in `fail_fast` those that would rather fail."""

    __slots__ = ("fail_fast", "weight")

    def __init__(self, weight: int) -> None:
        """Creates an empty line, of waiters that count as `weight` streams each."""
        self.weight = weight
        self.fail_fast: dict[Waiter, None] = {}


class _Lines(dict[int | None, _Line]):
    """The lines by their asks. One that is looked up and does not exist is created; none stays empty."""

    def __init__(self, target_streams: int) -> None:
        """Creates no line yet; a whole connection weighs as much as `target_streams`."""
        self._target = target_streams

    def __missing__(self, ask: int | None) -> _Line:
        line = self[ask] = _Line(self._target if ask is None else min(ask, self._target))
        return line


def _by_arrival(waiters: Iterable[Waiter]) -> list[Waiter]:
    return sorted(waiters, key=lambda waiter: waiter.number)


class WaitQueue:
    """The waiters of one pool."""

    def __init__(self, target_streams: int) -> None:
        """Creates an empty queue; a whole connection weighs as much as `target_streams`."""
        self._by_ask = _Lines(target_streams)
        self._paused = _Line(0)
        self._deadlines: list[tuple[float, int, Waiter]] = []
        self._arrivals = 0
        self.length = 0
        self.asked = 0

    def __iter__(self) -> Iterator[Waiter]:
        """The waiters, in the order of arrival."""
        # As a set: after an interruption one may both pause and ask.
        return iter(_by_arrival({waiter for line in (*self._by_ask.values(), self._paused) for waiter in line}))

    def asking(self) -> list[Waiter]:
        """The waiters that do not pause, in the order of arrival."""
        return _by_arrival(waiter for line in self._by_ask.values() for waiter in line)

    def push(self, waiter: Waiter) -> bool:
        """Queues `waiter` behind the others with the same ask; returns whether there are any."""
        line = self._by_ask[waiter.streams]
        behind = bool(line)
        self._enter(waiter, line)
        self.asked += line.weight
        return behind

    def pause(self, waiter: Waiter) -> None:
        """Queues `waiter`, which asks for its place only later."""
        self._enter(waiter, self._paused)

    def to_wake(self, now: float) -> list[Waiter]:
        """The waiters whose pause is over, for `wake`."""
        return [waiter for waiter in self._paused if waiter.not_before <= now] if self._paused else []

    def wake(self, waiter: Waiter) -> None:
        """A waiter that pauses asks for its place from now on."""
        arrivals = self._arrivals = self._arrivals + 1
        line = self._by_ask[waiter.streams]
        line[waiter] = None
        waiter.number = arrivals
        # In this order: an interruption between the two is repaired.
        del self._paused[waiter]
        if waiter.fail_fast:
            del self._paused.fail_fast[waiter]
            line.fail_fast[waiter] = None
        self.asked += line.weight
        if waiter.deadline != math.inf:
            # Its number in the heap was that of its pause.
            heapq.heappush(self._deadlines, (waiter.deadline, waiter.number, waiter))

    def _enter(self, waiter: Waiter, line: _Line) -> None:
        arrivals = self._arrivals = self._arrivals + 1
        line[waiter] = None
        if waiter.fail_fast:
            line.fail_fast[waiter] = None
        waiter.number = arrivals
        self.length += 1
        if waiter.deadline != math.inf:
            heapq.heappush(self._deadlines, (waiter.deadline, waiter.number, waiter))

    def remove(self, waiter: Waiter) -> bool:
        """Removes `waiter`; returns whether it was still queued."""
        if not waiter.number:
            return False
        paused = waiter in self._paused
        line = self._paused if paused else self._by_ask[waiter.streams]
        del line[waiter]
        if waiter.fail_fast:
            del line.fail_fast[waiter]
        waiter.number = 0
        if not line and not paused:
            del self._by_ask[waiter.streams]
        self.asked -= line.weight
        self.length -= 1
        if len(self._deadlines) > 2 * self.length + 64:
            self._deadlines = [entry for entry in self._deadlines if entry[1] == entry[2].number]
            heapq.heapify(self._deadlines)
        return True

    def has_large_asks(self) -> bool:
        """Whether anything but single streams is asked for."""
        return len(self._by_ask) > (1 in self._by_ask)

    def has_stream_asks(self) -> bool:
        """Whether anything but whole connections is asked for."""
        return len(self._by_ask) > (None in self._by_ask)

    def heads(self) -> list[Waiter]:
        """The first waiter of each ask, in the order of arrival; without those that pause."""
        return _by_arrival(next(iter(line)) for line in self._by_ask.values())

    def first_fitting(self, slot: Slot, *, fail_fast: bool = False) -> Waiter | None:
        """The first waiter that `slot` has room for, if any; it stays queued.

        Args:
            slot: Where there may be room.
            fail_fast: Consider only waiters that would rather fail on this slot than wait.
        """
        best: Waiter | None = None
        for ask, queue in self._by_ask.items():
            if not slot.has_room(ask):
                continue
            head = next(iter(queue.fail_fast if fail_fast else queue), None)
            if head is not None and (best is None or head.number < best.number):
                best = head
        return best

    def heir(self, ask: int | None) -> Waiter | None:
        """The waiter to which a place for that ask passes on as it is: the first, if all ask for the same."""
        line = self._by_ask.get(ask)
        if not line or len(self._by_ask) > 1:
            return None
        first = next(iter(line))
        # As `decided`, without a call. An interruption has left such a one: it leaves first, see `Grants.complete`.
        return first if first._slot is None and first.refusal is None else None

    def fail_fast(self) -> list[Waiter]:
        """The waiters that would rather fail than wait, in the order of arrival."""
        return _by_arrival(waiter for line in (*self._by_ask.values(), self._paused) for waiter in line.fail_fast)

    def has_fail_fast(self) -> bool:
        """Whether there are such waiters."""
        return any(line.fail_fast for line in (*self._by_ask.values(), self._paused))

    def first_expired(self, now: float) -> Waiter | None:
        """The waiter with the earliest deadline, if that has come; it stays queued."""
        return self._deadlines[0][2] if self._next_refusal() <= now else None

    def recount(self) -> None:
        """Derives the counts from the waiters, after a change was interrupted."""
        for ask in [ask for ask, line in self._by_ask.items() if not line]:
            del self._by_ask[ask]
        for waiter in [waiter for waiter in self._paused if waiter in self._by_ask.get(waiter.streams, ())]:
            del self._paused[waiter]
        for line in (*self._by_ask.values(), self._paused):
            line.fail_fast = {waiter: None for waiter in line if waiter.fail_fast}
        self.length = sum(map(len, self._by_ask.values())) + len(self._paused)
        self.asked = sum(line.weight * len(line) for line in self._by_ask.values())
        self._deadlines = [(w.deadline, w.number, w) for w in self if w.deadline != math.inf]
        heapq.heapify(self._deadlines)

    def next_deadline(self) -> float:
        """The earliest moment at which a waiter is refused, or its pause is over; `math.inf` for none."""
        wakes_at = min((waiter.not_before for waiter in self._paused), default=math.inf) if self._paused else math.inf
        return min(wakes_at, self._next_refusal())

    def _next_refusal(self) -> float:
        while self._deadlines and self._deadlines[0][1] != self._deadlines[0][2].number:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else math.inf
