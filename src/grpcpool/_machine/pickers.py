"""Pickers: the places of a pool, each in another order. The first slot in that order serves the next call.

The cost of a pick does not depend on the number of slots, with one exception: an ask for several streams for which the
first choice has no room looks at every slot.

`LeastLoaded`
    Slots lie in rings by what they carry, see `rings.py`. A pick takes the first or second one, at random, of the
    lowest ring that is not empty. This is join-the-shortest-queue: of all policies that do not look at the calls
    themselves, it keeps the loads closest (Winston 1977). Slots that carry equally much nearly take turns, and no two
    pools fall into step. The fullest slot is at most one above the emptiest while calls only arrive.
`Fill`
    The same rings. A pick takes from the highest ring below the target, last in first out. Few connections are in use
    and the others become idle. When all have reached the target it works like `LeastLoaded`.
`RoundRobin`
    Each slot in turn; it ignores load, except that it skips full slots.

Slots with a handicap, on which calls failed of late, rank behind others: `LeastLoaded` counts each such failure as ten
more calls, the other two pass over them while another slot has room. An ask for which only such slots have room gets
one of these. What a slot carries, and whether it has room, is not affected.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from .._values.config import PoolConfig
from .._values.slot_states import SlotState
from .places import Holder, Places
from .queue import WaitQueue
from .rings import Rings
from .slot import Link, Slot
from .slot_table import SlotTable

# Looking a member up in its enum takes longer than the rest of the line that needs it on every call.
_READY = SlotState.READY

# A coin is thrown this often, then the throws repeat: a prime, so that no regular pattern of calls falls into step.
_THROWS = 1021


class LeastLoaded(Rings):
    """The slot that carries least; of several, one of the two that have carried so much for longest."""

    def __init__(self, config: PoolConfig, slots: SlotTable, queue: WaitQueue, random: Callable[[], float]) -> None:
        super().__init__(config, slots, queue)
        # Whether the second slot of a ring is taken, not the first. Thrown in advance: a throw costs more than a pick.
        self._coin = itertools.cycle([random() < 0.5 for _ in range(_THROWS)])  # noqa: PLR2004 -- half of the throws

    def take(self, holder: Holder) -> Slot | None:
        # The first or second slot of the lowest ring. The head stands for a slot where there is none.
        here: Any = self._rings[self._low]
        slot: Slot = here.next
        if slot is here:
            here = self._rings[self._seek()]
            slot = here.next
            if slot is here:
                return None
        after = slot.next
        if after is not here and next(self._coin):
            slot, after = after, after.next
        load = slot.in_flight + 1
        if load >= self.growth_load:
            return None
        try:
            there = slot.rings[load]
        except IndexError:
            there = self._ring(slot, load)
        # From here on there is no call. As `reload`.
        before = slot.previous
        before.next, after.previous = after, before
        if load >= slot.takes_up_to:
            slot.next = slot.previous = None
        else:
            slot.next = there
            slot.previous = last = there.previous
            last.next = there.previous = slot
        # As `acquire`.
        slot.in_flight = load
        slot.calls += 1
        load = self.load = self.load + 1
        if load > self.peak:  # noqa: PLR1730 -- to call max() would cost more than the rest of the line
            self.peak = load
        holder._slot = slot
        holder._released = False
        return slot

    def take_whole(self, holder: Holder) -> Slot | None:
        # As `take`, but of the ring of empty slots, and into none.
        here: Any = self._rings[0]
        slot: Slot = here.next
        if slot is here:
            return self.acquire(None, holder) if self._avoided else None
        after = slot.next
        if after is not here and next(self._coin):
            slot, after = after, after.next
        # From here on there is no call.
        before = slot.previous
        before.next, after.previous = after, before
        slot.next = slot.previous = None
        # As `acquire`.
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
        here: Link
        if streams is None:
            # All of a slot: an empty one. There is nothing to seek.
            here = self._rings[0]
            if here.next is here:
                return self._empty() if self._avoided else None
        elif (here := self._rings[self._low]).next is here:
            here = self._rings[self._seek()]
            if here.next is here:
                return None
        slot: Slot = here.next
        if slot.next is not here and next(self._coin):
            slot = slot.next
        return slot if streams is None or slot.in_flight + streams <= slot.takes_up_to else self._roomy(streams)


class Fill(Rings):
    """The fullest slot below the target, so that as few as possible are in use."""

    def _handicap(self, failures: int) -> int:
        return self._worst if failures else 0

    def pick(self, streams: int | None) -> Slot | None:
        if streams is None:
            idle: Link = self._rings[0].previous
            if isinstance(idle, Slot):
                return idle
            return self._empty() if self._avoided else None
        low = self._seek()
        if not self._rings[low]:
            return None
        highest = min(self.target, len(self._rings)) - 1
        below = (load for load in range(highest, low - 1, -1) if self._rings[load])
        slot: Slot = self._rings[next(below, low)].previous
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
