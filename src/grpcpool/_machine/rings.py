"""Slots in rings, by what they carry: the order from which `LeastLoaded` and `Fill` pick, see `pickers.py`.

The *rank* of a slot is what it carries, and its handicap, see `handicaps.py`. Slots of the same rank lie in a ring, in
the order in which they came to it. A ring begins and ends with its head::

    _rings[0]   +--> head <--> slot <--> slot <--+     two slots that carry nothing
                +--------------------------------+
    _rings[1]   +--> head <--+                         none
                +------------+
    _rings[2]   +--> head <--> slot <--+               one that carries two calls
                +----------------------+
       ...

A slot that moves leaves its ring, and becomes the last of another one. That is a matter of its neighbours alone, and of
no call: no signal handler can interrupt it. `reload` does that. What every call pays for does so in place, with the
same lines and names: to call `reload` would cost as much as the move.

A slot knows its rings: `slot.rings[load]` is that for a load. Without a handicap these are `_rings`; those of a slot
with a handicap begin with a later one, so that the handicap is not added for each call. A ring is made when a slot
first comes to carry so much, or a little earlier: `max_streams` may be a million, if there is to be no limit.

Invariants:
    * A ready slot with room lies in the ring of its rank, and in no other.
    * Any other slot lies in none: it has no neighbours.
    * All rings below `_low` are empty.
"""

from __future__ import annotations

from collections.abc import Iterator

from .._values.config import PoolConfig
from .._values.slot_states import SlotState
from .places import Holder, Places
from .queue import WaitQueue
from .slot import Link, Slot
from .slot_table import SlotTable

# Looking a member up in its enum takes longer than the rest of the line that needs it on every call.
_READY = SlotState.READY

# Each failure of late counts as so many calls, all together as no more than the last number.
_PENALTY = 10
_WORST = 1000

# So many rings there are at first, at most. There are as many again each time that one is missing.
_FIRST_RINGS = 256


class _Ring(Link):
    """The head of a ring, which stands for a slot before the first, and after the last."""

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


class Rings(Places):
    """The places of a pool whose slots lie in rings. How one of them is picked is left to subclasses."""

    def __init__(self, config: PoolConfig, slots: SlotTable, queue: WaitQueue) -> None:
        """Creates empty rings."""
        super().__init__(config, slots, queue)
        self._max_streams = config.max_streams
        # The greatest handicap ranks a slot behind all others.
        self._worst = min(-(-config.max_streams // _PENALTY) * _PENALTY, _WORST)
        self._rings: list[_Ring] = []
        # With the last a search ends, whether that has a slot or not. Without a handicap, a slot carries no more than
        # `max_streams`.
        self._end = self._end_without_handicaps = -1
        # No ring below this one has a slot.
        self._low = 0
        self._make_rings(min(config.max_streams + 1, _FIRST_RINGS))
        # The slots in service with a handicap, whether they have room or not.
        self._avoided: set[Slot] = set()

    # --- moving -------------------------------------------------------------------------------------------------

    def reload(self, slot: Slot, load: int) -> None:
        after = slot.next
        if after is not None:
            before = slot.previous
            before.next, after.previous = after, before
        if load >= slot.takes_up_to:
            slot.next = slot.previous = None
            return
        try:
            there = slot.rings[load]
        except IndexError:
            there = self._ring(slot, load)
        slot.next = there
        slot.previous = last = there.previous
        last.next = there.previous = slot
        if load < self._low:  # noqa: PLR1730 -- to call min() would cost more than the rest of the method
            self._low = load

    def release(self, slot: Slot, streams: int | None, now: float, holder: Holder) -> int:
        if slot.state is not _READY or self.queue.length:
            return Places.release(self, slot, streams, now, holder)
        # As `Places.release`.
        holder._released = True
        if streams is None:
            slot.exclusive = False
            load = slot.in_flight = 0
            self.load -= self.target
        else:
            load = slot.in_flight = slot.in_flight - streams
            self.load -= streams
        slot.used_at = now
        # As `reload`.
        after = slot.next
        if after is not None:
            before = slot.previous
            before.next, after.previous = after, before
        if load >= slot.takes_up_to:
            slot.next = slot.previous = None
        else:
            # It has carried more, but maybe all that it may, for which there is no ring.
            try:
                there = slot.rings[load]
            except IndexError:
                there = self._ring(slot, load)
            slot.next = there
            slot.previous = last = there.previous
            last.next = there.previous = slot
            if load < self._low:  # noqa: PLR1730 -- as above
                self._low = load
        return slot.overflow

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
        for ring in self._rings:
            ring.next = ring.previous = ring
        self._low = self._end
        self._avoided.clear()
        for slot in self.slots.in_state(_READY):
            slot.next = slot.previous = None
            self.enter(slot)

    # --- finding ------------------------------------------------------------------------------------------------

    def lightest(self) -> Slot | None:
        ring = self._rings[self._seek()]
        if not ring:
            return None
        lightest: Slot = ring.next
        return self._lightest_of_all() if self._avoided and lightest.in_flight else lightest

    def _seek(self) -> int:
        """Finds the lowest ring that is not empty; the last if all are."""
        end = self._end if self._avoided else self._end_without_handicaps
        rings, low = self._rings, self._low
        while low < end and (ring := rings[low]).next is ring:
            low += 1
        self._low = low
        return low

    def _roomy(self, streams: int) -> Slot | None:
        """The first slot with room for several streams: limits differ once a server has refused some."""
        return next((slot for slot in self._in_order() if slot.has_room(streams)), None)

    def _in_order(self) -> Iterator[Slot]:
        return (slot for ring in self._rings[self._low :] for slot in ring)

    def _lightest_of_all(self) -> Slot:
        return min(self._in_order(), key=lambda slot: slot.in_flight)

    def _empty(self) -> Slot | None:
        """An empty slot with a handicap. Those without lie in the first ring."""
        return next((slot for slot in self._in_order() if not slot.in_flight), None)

    # --- the rings of a slot ------------------------------------------------------------------------------------

    def _handicap(self, failures: int) -> int:
        """As how many calls so many failures count."""
        return min(_PENALTY * failures, self._worst)

    def _ring(self, slot: Slot, load: int) -> Link:
        """The ring of the slot for a load for which it has none yet."""
        handicap = self._handicap(slot.recent_failures)
        made = len(self._rings)
        missing = handicap + load + 1 - made
        if missing > 0:
            self._make_rings(max(missing, min(made, self._max_streams + self._worst + 1 - made)))
        self._assign(slot, handicap, load)
        return slot.rings[load]

    def _assign(self, slot: Slot, handicap: int, load: int) -> None:
        """Gives the slot its rings, at least up to this load if so many have been made."""
        end = handicap + 2 * load + _FIRST_RINGS
        slot.rings = self._rings[handicap:end] if handicap else self._rings

    def _make_rings(self, number: int) -> None:
        """Makes so many more rings."""
        more = [_Ring() for _ in range(number)]
        end = self._end + number
        end_without_handicaps = min(end, self._max_streams)
        # From here on there is no call. In place: it is the list of each slot without a handicap.
        self._rings += more
        self._end = end
        self._end_without_handicaps = end_without_handicaps
