"""Pickers: the places of a pool, each in another order. The first slot in that order serves the next call.

The cost of a pick does not depend on the number of slots, with one exception: an ask for several streams for which the
first choice has no room looks at every slot.

`LeastLoaded`
    Slots lie in buckets by what they carry; a pick takes the first or second one, at random, of the lowest bucket that
    is not empty, and a slot that comes into a bucket becomes its last. This is join-the-shortest-queue: of all policies
    that do not look at the calls themselves, it keeps the loads closest (Winston 1977). Slots that carry equally much
    nearly take turns, and no two pools fall into step. The fullest slot is at most one above the emptiest while calls
    only arrive.
`Fill`
    The same buckets; a pick takes from the highest bucket below the target, last in first out. Few connections are
    in use and the others become idle. When all have reached the target it works like `LeastLoaded`.
`RoundRobin`
    Each slot in turn; it ignores load, except that it skips full slots.

Slots with a handicap, on which calls failed of late, rank behind others: `LeastLoaded` counts each such failure as ten
more calls, the other two pass over them while another slot has room. An ask for which only such slots have room gets
one of these. What a slot carries, and whether it has room, is not affected.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from .._values.config import PoolConfig
from .._values.slot_states import SlotState
from .places import Holder, Places
from .queue import WaitQueue
from .slot import Link, Slot
from .slot_table import SlotTable

# Looking a member up in its enum takes longer than the rest of the line that needs it on every call.
_READY = SlotState.READY

# A coin is thrown this often, then the throws repeat: a prime, so that no regular pattern of calls falls into step.
_THROWS = 1021

# Each failure of late counts as so many calls, all together as no more than the last number.
_PENALTY = 10
_WORST = 1000

# So many buckets there are at first, at most. There are as many again each time that one is missing.
_FIRST_BUCKETS = 256


class _Bucket(Link):
    """Slots that rank equally, in the order in which they came to: a ring that begins and ends with the bucket."""

    __slots__ = ()

    def __init__(self) -> None:
        self.next = self.previous = self

    def __bool__(self) -> bool:
        return self.next is not self

    def __iter__(self) -> Iterator[Slot]:
        slot = self.next
        while slot is not self:
            yield slot
            slot = slot.next


class _Buckets(Places):
    """Slots in buckets by `in_flight`; those with a handicap by `in_flight` and their handicap.

    A slot that moves leaves its ring, and becomes the last of another one. That is a matter of its neighbours alone,
    and of no call: no signal handler can interrupt it. What every call pays for does so in place, as `reload` does:
    to call that would cost as much as the move.

    A bucket is made when a slot first comes to carry so much, or a little earlier: `max_streams` may be a million, if
    there is to be no limit.
    """

    def __init__(self, config: PoolConfig, slots: SlotTable, queue: WaitQueue) -> None:
        super().__init__(config, slots, queue)
        self._max_streams = config.max_streams
        # The greatest handicap ranks a slot behind all others.
        self._worst = min(-(-config.max_streams // _PENALTY) * _PENALTY, _WORST)
        self._buckets: list[_Bucket] = []
        # With the last a search ends, whether that has a slot or not. Without a handicap, a slot carries no more than
        # `max_streams`.
        self._end = self._end_without_handicaps = -1
        # No bucket below this one has a slot.
        self._low = 0
        self._make_buckets(min(config.max_streams + 1, _FIRST_BUCKETS))
        # The slots in service with a handicap, whether they have room or not.
        self._avoided: set[Slot] = set()

    def _handicap(self, failures: int) -> int:
        """As how many calls so many failures count."""
        return min(_PENALTY * failures, self._worst)

    def _make_buckets(self, number: int) -> None:
        """Makes so many more buckets."""
        more = [_Bucket() for _ in range(number)]
        end = self._end + number
        end_without_handicaps = min(end, self._max_streams)
        # From here on there is no call. In place: it is the list of each slot without a handicap.
        self._buckets += more
        self._end = end
        self._end_without_handicaps = end_without_handicaps

    def _bucket(self, slot: Slot, load: int) -> Link:
        """The bucket of the slot for a load for which it has none yet."""
        handicap = self._handicap(slot.recent_failures)
        made = len(self._buckets)
        missing = handicap + load + 1 - made
        if missing > 0:
            self._make_buckets(max(missing, min(made, self._max_streams + self._worst + 1 - made)))
        self._assign(slot, handicap, load)
        return slot.buckets[load]

    def _assign(self, slot: Slot, handicap: int, load: int) -> None:
        """Gives the slot its buckets, at least up to this load if so many have been made.

        Those of a slot with a handicap begin with a later one, so that its handicap is not added for each call.
        """
        end = handicap + 2 * load + _FIRST_BUCKETS
        slot.buckets = self._buckets[handicap:end] if handicap else self._buckets

    def reload(self, slot: Slot, load: int) -> None:
        after = slot.next
        if after is not None:
            before = slot.previous
            before.next, after.previous = after, before
        if load >= slot.takes_up_to:
            slot.next = slot.previous = None
            return
        try:
            bucket = slot.buckets[load]
        except IndexError:
            bucket = self._bucket(slot, load)
        last = bucket.previous
        slot.previous, slot.next = last, bucket
        last.next = bucket.previous = slot
        if load < self._low:  # noqa: PLR1730 -- to call min() would cost more than the rest of the method
            self._low = load

    def release(self, slot: Slot, streams: int | None, now: float, holder: Holder) -> int:
        if slot.state is not _READY:
            return Places.release(self, slot, streams, now, holder)
        # As `Places.release`, and `reload` in place.
        holder._released = True
        if streams is None:
            slot.exclusive = False
            load = slot.in_flight = 0
            self.load -= self.target
        else:
            load = slot.in_flight = slot.in_flight - streams
            self.load -= streams
        slot.used_at = now
        after = slot.next
        if after is not None:
            before = slot.previous
            before.next, after.previous = after, before
        if load >= slot.takes_up_to:
            slot.next = slot.previous = None
        else:
            # It has carried more, but maybe all that it may, for which there is no bucket.
            try:
                bucket = slot.buckets[load]
            except IndexError:
                bucket = self._bucket(slot, load)
            slot.next = bucket
            slot.previous = last = bucket.previous
            last.next = bucket.previous = slot
            if load < self._low:  # noqa: PLR1730 -- as above
                self._low = load
        return slot.overflow or self.queue.length

    def remove(self, slot: Slot) -> None:
        if slot.next is not None:
            slot.previous.next, slot.next.previous = slot.next, slot.previous
            slot.next = slot.previous = None
        self._avoided.discard(slot)

    def __contains__(self, slot: Slot) -> bool:
        return slot.next is not None

    def rank(self, slot: Slot) -> None:
        here = slot in self
        self.remove(slot)
        handicap = self._handicap(slot.recent_failures)
        self._assign(slot, handicap, slot.in_flight)
        if handicap and slot.state is _READY:
            self._avoided.add(slot)
        if here:
            self.refresh(slot)

    def rebuild(self) -> None:
        for bucket in self._buckets:
            bucket.next = bucket.previous = bucket
        self._low = self._end
        self._avoided.clear()
        for slot in self.slots.in_state(_READY):
            slot.next = slot.previous = None
            self.enter(slot)

    def lightest(self) -> Slot | None:
        bucket = self._buckets[self._seek()]
        if not bucket:
            return None
        lightest: Slot = bucket.next
        return self._lightest_of_all() if self._avoided and lightest.in_flight else lightest

    def _seek(self) -> int:
        """Finds the lowest bucket that is not empty; the last if all are."""
        end = self._end if self._avoided else self._end_without_handicaps
        buckets, low = self._buckets, self._low
        while low < end and (bucket := buckets[low]).next is bucket:
            low += 1
        self._low = low
        return low

    def _roomy(self, streams: int) -> Slot | None:
        """The first slot with room for several streams: limits differ once a server has refused some."""
        return next((slot for slot in self._in_order() if slot.has_room(streams)), None)

    def _in_order(self) -> Iterator[Slot]:
        return (slot for bucket in self._buckets[self._low :] for slot in bucket)

    def _lightest_of_all(self) -> Slot:
        return min(self._in_order(), key=lambda slot: slot.in_flight)

    def _empty(self) -> Slot | None:
        """An empty slot with a handicap. Those without lie in the first bucket."""
        return next((slot for slot in self._in_order() if not slot.in_flight), None)


class LeastLoaded(_Buckets):
    """The slot that carries least; of several, one of the two that have carried so much for longest."""

    def __init__(self, config: PoolConfig, slots: SlotTable, queue: WaitQueue, random: Callable[[], float]) -> None:
        super().__init__(config, slots, queue)
        # Whether the second slot of a ring is taken, not the first. Thrown in advance: a throw costs more than a pick.
        self._coin = itertools.cycle([random() < 0.5 for _ in range(_THROWS)])  # noqa: PLR2004 -- half of the throws

    def take(self, holder: Holder) -> Slot | None:
        # A ring begins and ends with its bucket, which stands for a slot there.
        bucket: Any = self._buckets[self._low]
        slot: Slot = bucket.next
        if slot is bucket:
            bucket = self._buckets[self._seek()]
            slot = bucket.next
            if slot is bucket:
                return None
        after = slot.next
        if after is not bucket and next(self._coin):
            slot, after = after, after.next
        load = slot.in_flight + 1
        if load >= self.growth_load:
            return None
        try:
            bucket = slot.buckets[load]
        except IndexError:
            bucket = self._bucket(slot, load)
        # From here on there is no call.
        before = slot.previous
        before.next, after.previous = after, before
        if load >= slot.takes_up_to:
            slot.next = slot.previous = None
        else:
            slot.next = bucket
            slot.previous = last = bucket.previous
            last.next = bucket.previous = slot
        slot.in_flight = load
        slot.calls += 1
        load = self.load = self.load + 1
        if load > self.peak:  # noqa: PLR1730 -- to call max() would cost more than the rest of the line
            self.peak = load
        holder._slot = slot
        holder._released = False
        return slot

    def take_whole(self, holder: Holder) -> Slot | None:
        # As `pick`.
        bucket: Any = self._buckets[0]
        slot: Slot = bucket.next
        if slot is bucket:
            return self.acquire(None, holder) if self._avoided else None
        after = slot.next
        if after is not bucket and next(self._coin):
            slot, after = after, after.next
        # From here on there is no call.
        before = slot.previous
        before.next, after.previous = after, before
        slot.next = slot.previous = None
        slot.exclusive = True
        slot.in_flight = 1
        slot.calls += 1
        load = self.load = self.load + self.target
        if load > self.peak:  # noqa: PLR1730 -- as above
            self.peak = load
        holder._slot = slot
        holder._released = False
        return slot

    def pick(self, streams: int | None) -> Slot | None:
        bucket: Link
        if streams is None:
            # All of a slot: an empty one. There is nothing to seek.
            bucket = self._buckets[0]
            if bucket.next is bucket:
                return self._empty() if self._avoided else None
        elif (bucket := self._buckets[self._low]).next is bucket:
            bucket = self._buckets[self._seek()]
            if bucket.next is bucket:
                return None
        slot: Slot = bucket.next
        if slot.next is not bucket and next(self._coin):
            slot = slot.next
        return slot if streams is None or slot.in_flight + streams <= slot.takes_up_to else self._roomy(streams)


class Fill(_Buckets):
    """The fullest slot below the target, so that as few as possible are in use."""

    def _handicap(self, failures: int) -> int:
        return self._worst if failures else 0

    def pick(self, streams: int | None) -> Slot | None:
        if streams is None:
            idle: Slot | _Bucket = self._buckets[0].previous
            if isinstance(idle, Slot):
                return idle
            return self._empty() if self._avoided else None
        low = self._seek()
        if not self._buckets[low]:
            return None
        highest = min(self.target, len(self._buckets)) - 1
        below = (load for load in range(highest, low - 1, -1) if self._buckets[load])
        slot: Slot = self._buckets[next(below, low)].previous
        return slot if slot.in_flight + streams <= slot.takes_up_to else self._roomy(streams)


class RoundRobin(Places):
    """Each slot in turn."""

    def __init__(self, config: PoolConfig, slots: SlotTable, queue: WaitQueue) -> None:
        """Creates an empty circle."""
        super().__init__(config, slots, queue)
        self._circle: OrderedDict[Slot, None] = OrderedDict()
        self._idle: OrderedDict[Slot, None] = OrderedDict()
        self._avoided: set[Slot] = set()

    def reload(self, slot: Slot, load: int) -> None:
        """A slot that is to carry more has had its turn; one that carries less keeps its turn."""
        if load >= slot.takes_up_to:
            self._take_out(slot)
            return
        self._circle[slot] = None
        if load > slot.in_flight:
            self._circle.move_to_end(slot)
        if load:
            self._idle.pop(slot, None)
        else:
            self._idle[slot] = None

    def remove(self, slot: Slot) -> None:
        """Removes a slot that leaves service; does nothing if the slot is not here."""
        self._take_out(slot)
        self._avoided.discard(slot)

    def __contains__(self, slot: Slot) -> bool:
        """Whether it has turns."""
        return slot in self._circle

    def _take_out(self, slot: Slot) -> None:
        self._circle.pop(slot, None)
        self._idle.pop(slot, None)

    def rank(self, slot: Slot) -> None:
        """A slot with a handicap keeps its turn, and is passed over."""
        if slot.recent_failures and slot.state is _READY:
            self._avoided.add(slot)
        else:
            self._avoided.discard(slot)

    def pick(self, streams: int | None) -> Slot | None:
        """The slot whose turn it is, of those with room for the ask."""
        fitting = iter(self._idle) if streams is None else (slot for slot in self._circle if slot.has_room(streams))
        if not self._avoided:
            return next(fitting, None)
        first = next(fitting, None)
        if first not in self._avoided:
            return first
        return next((slot for slot in fitting if slot not in self._avoided), first)

    def lightest(self) -> Slot | None:
        """A slot that carries least, of those with room."""
        return min(self._circle, key=lambda slot: slot.in_flight, default=None)


def make_places(config: PoolConfig, slots: SlotTable, queue: WaitQueue, random: Callable[[], float]) -> Places:
    """Creates the places of one pool, with the picker that `config` names.

    Args:
        config: The pool's settings.
        slots: Its slots.
        queue: Its waiters.
        random: Returns a float from 0 to below 1.
    """
    match config.picker:
        case "least_loaded":
            return LeastLoaded(config, slots, queue, random)
        case "fill":
            return Fill(config, slots, queue)
        case "round_robin":
            return RoundRobin(config, slots, queue)
