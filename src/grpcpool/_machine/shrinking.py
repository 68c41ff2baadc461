"""When there are more connections than are needed: the least needed of them drain.

A slot idle for `idle_timeout` closes, above `min_size`. One to the address with the most connections goes first; so
those that stay are spread over the addresses. And when for a whole `idle_timeout` the peak of the load would have
fitted on fewer slots at `target_streams` each, the least needed slot is drained and a new watch begins. While the pool
is in use, one to each address is kept.

Dials that hang, and those that were begun beside them, end when what is up is enough. A connection beyond `max_size`
ends when it carries nothing any more, or rather one that is down, or a dial that nothing waits for.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from .._values.slot_states import CloseReason, SlotState
from .fleet import Fleet
from .growing import Growing
from .slot import Slot

# What has the smallest number is needed least.
_RANKS = {SlotState.OPENING: 0, SlotState.LOST: 1, SlotState.READY: 2}


class Shrinking:
    """Reduces the number of connections of one pool."""

    def __init__(self, fleet: Fleet, growing: Growing) -> None:
        """For the connections of `fleet`; `growing` remembers what was too few."""
        self._fleet = fleet
        self._growing = growing
        self._slots = fleet.slots

    def resize(self, min_size: int, max_size: int, now: float) -> None:
        """Changes the bounds and drains surplus connections."""
        self._fleet.min_size, self._fleet.max_size = min_size, max_size
        # A successor goes with the slot that it was to replace, and does not count: each of these is one less.
        for slot in self._least_needed(dialled=True)[: max(0, self._slots.connections - max_size)]:
            self._fleet.retire(slot, CloseReason.SHRINK, now)
        self._fleet.size_changed(now)

    def shrink(self, asked: int, now: float) -> None:
        """At the end of a watch, drains a slot without which the peak, and `asked` that wait, would have fit."""
        if self._fleet.config.idle_timeout is None or now < self._fleet.peak_watch_ends_at:
            return
        most = max(self._fleet.places.peak, self._fleet.places.load + asked)
        needed = max(self._fleet.min_size, -(-most // self._fleet.target))
        if self._fleet.usage.in_use:
            needed = max(needed, min(self._fleet.max_size, self._fleet.addresses.keeps()))
        if most >= self._growing.outgrown_at:
            # Otherwise what is drained now would be dialled again at the next such peak.
            needed = max(needed, self._growing.outgrown + 1)
        if len(self._slots.in_service()) > needed and (slots := self._least_needed(dialled=False)):
            self._fleet.retire(slots[0], CloseReason.SHRINK, now)
        if self._fleet.peak_watch_ends_at <= now:
            self._fleet.begin_peak_watch(now, self._fleet.config.idle_timeout)

    def end_idle(self, now: float) -> None:
        """Closes what has been idle for `idle_timeout`, above `min_size`.

        What is due waits while another idle one is to close before it, because more connections lead where that does:
        for one more `idle_timeout` at most, because that may be in use again and again.
        """
        for slot in self._idle(SlotState.LOST):
            if self._ends_at(slot) <= now:
                self._fleet.retire(slot, CloseReason.LOST, now)
        waits = False
        for slot in self._idle(SlotState.READY):
            if self._ends_at(slot, waits=waits) <= now:
                self._fleet.retire(slot, CloseReason.IDLE, now)
            else:
                waits = True

    def next_end(self) -> float:
        """When `end_idle` is due. What is busy now is looked at again at the end of the watch, at the latest."""
        ends = [self._ends_at(slot) for slot in self._idle(SlotState.LOST)]
        ends += [self._ends_at(slot, waits=number > 0) for number, slot in enumerate(self._idle(SlotState.READY))]
        return min(ends, default=math.inf)

    def _ends_at(self, slot: Slot, *, waits: bool = False) -> float:
        """When an idle slot closes; one that `waits` for another to close before it, at the latest."""
        idle_timeout = self._fleet.config.idle_timeout
        if idle_timeout is None:
            return math.inf
        ends_at = slot.counts_as_idle_since() + idle_timeout
        return ends_at + idle_timeout if waits else ends_at

    def _idle(self, state: SlotState) -> list[Slot]:
        """The idle slots in this state that `min_size` does not need, in the order in which they are to close."""
        spare = (self._slots.ready if state is SlotState.READY else self._slots.connections) - self._fleet.min_size
        if spare <= 0 or self._fleet.config.idle_timeout is None:
            return []
        slots = self._slots.in_state(state)
        idle = [slot for slot in slots if not slot.in_flight and slot.successor is None]
        if state is SlotState.LOST:
            # Wherever they lead: they serve nothing there.
            return sorted(idle, key=Slot.counts_as_idle_since)[:spare]
        return _least_needed_first(idle, slots)[:spare]

    def end_superfluous(self, asked: int, now: float) -> None:
        """If nothing waits, and what is up is enough, ends dials that hang, and those beside them."""
        needed = math.inf if asked else self._fleet.needed(0)
        for slot in self._slots.in_state(SlotState.OPENING):
            if self._slots.ready < needed:
                return
            if self._fleet.addresses.several and not self._fleet.addresses.is_gone(slot):
                continue  # It is to make its server one of those that are used.
            if (slot.hangs or slot.beside) and slot.replaces is None:
                self._fleet.retire(slot, CloseReason.SHRINK, now)

    def end_overflow(self, slot: Slot, asked: int, now: float) -> None:
        """A connection beyond `max_size` carries nothing any more: it goes, or rather another that is of no use."""
        while self._slots.connections > self._fleet.max_size and slot.state in (SlotState.READY, SlotState.LOST):
            other = self._useless(asked) if slot.state is SlotState.READY else None
            if other is None:
                self._fleet.retire(slot, CloseReason.OVERFLOW, now)
            else:
                self._fleet.retire(other, CloseReason.LOST, now)
        slot.overflow = slot.state not in (SlotState.READY, SlotState.LOST)

    def _useless(self, asked: int) -> Slot | None:
        """A connection that is down and carries nothing, or a dial that hangs, or that nothing waits for."""
        return next((slot for slot in self._slots if not slot.probes and _is_useless(slot, asked)), None)

    def _least_needed(self, *, dialled: bool) -> list[Slot]:
        """The slots in service, and those that are opening (if `dialled`), the least needed first."""
        opening = self._slots.in_state(SlotState.OPENING) if dialled else []
        slots = [slot for slot in opening if slot.replaces is None] + self._slots.in_service()
        return _least_needed_first(slots, slots)


def _least_needed_first(slots: Sequence[Slot], others: Sequence[Slot]) -> list[Slot]:
    """Sorts `slots`: opening ones, then lost ones, then the least loaded where most of the `others` lead.

    Each that goes leaves one less that leads there. Of equals, what has been idle for longest comes first.
    """
    leading = Counter(slot.address for slot in others)
    ordered = []
    for slot in sorted(slots, key=lambda slot: (*_rank(slot), *_use(slot))):
        # With its number, which differs, so that slots are never compared.
        ordered.append((*_rank(slot), -leading[slot.address], *_use(slot), slot.id, slot))
        leading[slot.address] -= 1
    return [slot for *_, slot in sorted(ordered)]


def _use(slot: Slot) -> tuple[int, float]:
    return slot.in_flight, slot.counts_as_idle_since()


def _rank(slot: Slot) -> tuple[int, bool]:
    return _RANKS[slot.state], slot.exclusive


def _is_useless(slot: Slot, asked: int) -> bool:
    if slot.state is SlotState.LOST:
        return not slot.in_flight
    return slot.state is SlotState.OPENING and slot.replaces is None and (slot.hangs or not asked)
