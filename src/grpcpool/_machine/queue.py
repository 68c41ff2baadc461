"""Those who wait for a place: first come, first served among equal asks, and cheap to leave.

An ask is a number of streams, or `None` for a whole connection. Each ask has a queue of its own, so that someone
who asks for a whole connection does not hold up those for whom there is room. A queue is a dict, which keeps the
order of arrival and lets anyone leave from the middle at once. Deadlines lie in a heap; who has left stays in it
until his deadline, or until the leavers are the majority.

Invariants:
    * A waiter is queued, or answered; never both, and answered once.
    * ``length`` is the number of the queued, `asked` the streams that they ask for, in sum.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator

from .._values.errors import PoolError
from .slot import Slot


class Waiter:
    """Someone who asked for a place. Drivers subclass it with the means to tell him the answer.

    Attributes:
        streams: What he asks for: so many streams of one connection, or (`None`) all of it.
        deadline: Moment at which he is refused; `math.inf` for never.
        fail_fast: Whether he is to fail at once when no connection is up (gRPC's ``wait_for_ready`` unset).
        since: When he asked.
        queued: Whether he still waits.
        known: Whether the machine knows of him; the driver's to set.
        answered: Whether he has been told his answer; the driver's to set.
    """

    __slots__ = ("answered", "deadline", "fail_fast", "known", "number", "queued", "since", "streams")

    def __init__(self, streams: int | None, *, since: float, deadline: float, fail_fast: bool = False) -> None:
        """Describes the ask; it waits only once the machine has queued it."""
        self.streams = streams
        self.since = since
        self.deadline = deadline
        self.fail_fast = fail_fast
        self.queued = False
        self.known = False
        self.answered = False
        self.number = 0

    def granted(self, slot: Slot | None) -> None:
        """The driver tells him: the place on `slot` is his (`None`: what he waited for in `open()` is open)."""

    def refused(self, error: PoolError) -> None:
        """The driver tells him: he gets nothing, for `error`."""


class WaitQueue:
    """The waiters of one pool."""

    def __init__(self, target_streams: int) -> None:
        """Makes an empty queue; a whole connection weighs as much as `target_streams`."""
        self._target = target_streams
        self._by_ask: dict[int | None, dict[Waiter, None]] = {}
        self._deadlines: list[tuple[float, int, Waiter]] = []
        self._arrivals = 0
        self.length = 0
        self.asked = 0

    def __iter__(self) -> Iterator[Waiter]:
        """Those who wait, in the order in which they came."""
        waiters = [waiter for queue in self._by_ask.values() for waiter in queue]
        return iter(sorted(waiters, key=lambda waiter: waiter.number))

    def push(self, waiter: Waiter) -> None:
        """Queues `waiter` behind those who ask for the same."""
        self._arrivals += 1
        waiter.number = self._arrivals
        waiter.queued = True
        self._by_ask.setdefault(waiter.streams, {})[waiter] = None
        self.length += 1
        self.asked += self._weight(waiter)
        if waiter.deadline != math.inf:
            heapq.heappush(self._deadlines, (waiter.deadline, waiter.number, waiter))

    def remove(self, waiter: Waiter) -> bool:
        """Lets `waiter` leave; says whether he was still waiting."""
        if not waiter.queued:
            return False
        waiter.queued = False
        queue = self._by_ask[waiter.streams]
        del queue[waiter]
        if not queue:
            del self._by_ask[waiter.streams]
        self.length -= 1
        self.asked -= self._weight(waiter)
        if len(self._deadlines) > 2 * self.length + 64:
            self._deadlines = [entry for entry in self._deadlines if entry[2].queued]
            heapq.heapify(self._deadlines)
        return True

    def pop_fitting(self, slot: Slot, *, fail_fast: bool = False) -> Waiter | None:
        """Takes out the first of those whom `slot` has room for, if any.

        Args:
            slot: Where there may be room.
            fail_fast: Consider only those who would rather fail on this slot than wait.
        """
        best: Waiter | None = None
        for ask, queue in self._by_ask.items():
            if not slot.has_room(ask):
                continue
            head = next((w for w in queue if w.fail_fast), None) if fail_fast else next(iter(queue))
            if head is not None and (best is None or head.number < best.number):
                best = head
        if best is not None:
            self.remove(best)
        return best

    def pop_expired(self, now: float) -> Waiter | None:
        """Takes out one whose deadline has come, earliest first, if any."""
        while self._deadlines and self._deadlines[0][0] <= now:
            waiter = heapq.heappop(self._deadlines)[2]
            if self.remove(waiter):
                return waiter
        return None

    def next_deadline(self) -> float:
        """The earliest deadline of those who wait; `math.inf` for none."""
        while self._deadlines and not self._deadlines[0][2].queued:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else math.inf

    def _weight(self, waiter: Waiter) -> int:
        if waiter.streams is None:
            return self._target
        return min(waiter.streams, self._target)
