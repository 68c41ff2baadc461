"""A slot that is kept for one waiter that asks for much: a whole connection, or several streams.

Calls never stop coming in a busy pool, and each takes what becomes free, so that no connection would ever be free of
calls. Therefore the oldest waiter, if it asks for much and nothing fits, has one slot reserved: that takes nothing new,
and is granted to it once it has emptied far enough. If it asks for more than any slot may carry, as a server may lower
the limit, the next one has. If another slot fits first, or the waiter leaves, the reservation ends. There is one at a
time.

Invariants:
    * A waiter whose ask fits an empty slot is granted after finitely many releases, whatever else arrives.
    * If nothing is reserved, no ready slot would do for any waiter that is older than the first that asks for one
      stream (or something is being dialled).

So there is nothing to look for where a waiter asks for one stream, or for the same as another before it. Nor is there
where a whole connection passes from a lease to a waiter while nothing is reserved: if another slot would do for any
waiter, it would have done for that one.
"""

from __future__ import annotations

import itertools

from .._values.slot_states import SlotState
from .places import Places
from .queue import Waiter, WaitQueue
from .slot import Slot
from .slot_table import SlotTable


class Reservation:
    """The reservation of one pool, if there is one."""

    def __init__(self, slots: SlotTable, places: Places, queue: WaitQueue) -> None:
        """Reserves nothing yet."""
        self._slots = slots
        self._places = places
        self._queue = queue
        # The reserved slot.
        self.slot: Slot | None = None
        self._waiter: Waiter | None = None
        self._closed = False

    def close(self) -> None:
        """Ends the reservation, and reserves no more: the pool is closed."""
        self._closed = True
        self.end()

    def waiter_for(self, slot: Slot) -> Waiter | None:
        """The waiter for which `slot` is reserved, if it has room for it by now."""
        waiter = self._waiter
        return waiter if waiter is not None and waiter.queued and slot.has_room(waiter.streams) else None

    def review(self) -> Slot | None:
        """Ends the reservation if it serves no purpose any more, and begins the next.

        Returns:
            The slot that was reserved, if others may have room on it now.
        """
        freed = None
        slot, waiter = self.slot, self._waiter
        if slot is not None and waiter is not None and not (waiter.queued and _may_serve(slot, waiter)):
            freed = slot if slot.state is SlotState.READY else None
            self.end()
        if self.slot is None and not self._closed and self._queue.has_large_asks():
            self._begin()
        return None if freed is self.slot else freed

    def _begin(self) -> None:
        # What is being dialled comes for the oldest.
        if self._slots.under_way:
            return
        for waiter in itertools.takewhile(lambda waiter: waiter.streams != 1, self._queue.heads()):
            fitting = [slot for slot in self._slots.in_state(SlotState.READY) if _may_serve(slot, waiter)]
            slot = min(fitting, key=lambda slot: slot.in_flight, default=None)
            if slot is not None:
                self.slot, self._waiter = slot, waiter
                self._mark(slot, reserved=True)
                return

    def end(self) -> None:
        """Ends the reservation: the slot takes others again."""
        slot, self.slot, self._waiter = self.slot, None, None
        if slot is not None:
            self._mark(slot, reserved=False)

    def _mark(self, slot: Slot, *, reserved: bool) -> None:
        slot.reserve(reserved=reserved)
        if slot.state is SlotState.READY:
            self._places.refresh(slot)

    def repair(self) -> None:
        """Ends everything, after a change was interrupted: `review` begins again."""
        self.slot = self._waiter = None
        for slot in self._slots:
            slot.reserve(reserved=False)


def _may_serve(slot: Slot, waiter: Waiter) -> bool:
    """Whether the slot, once it has emptied, has room for the waiter."""
    return slot.state is SlotState.READY and not slot.exclusive and slot.limit >= (waiter.streams or 1)
