"""Connections that may be down because their server seems to be gone: for a moment, each takes one call more at most.

A server that goes away takes all of its connections with it, but gRPC notices that of one after another, within
milliseconds. Calls that have failed are often made again at once. Each would fail once more on every connection that
gRPC does not know to be down yet. So once a call has shown that a connection is down, and another one to the same
address is found down as well, those that are left are in *doubt*. Each takes only one call more than it carries, until
gRPC has noticed what there is to notice. Where a call ends, another one begins, as ever: a connection that is well
carries on, and only what comes on top waits.

One loss alone puts nothing in doubt: servers relay the errors of others in gRPC's words for a loss (see `losses.py`),
and one server of many may be gone behind the address of a balancer.

Invariants:
    * A doubt delays. It ends `NOTICED_WITHIN` after the last loss, and `_LONGEST` after it has begun at the latest:
      what waits is served then, even where connections are lost all the time.
    * Nothing is refused because of a doubt: what cannot wait, because it has no time or the queue is full, ends it.
    * Nothing is dialled for what waits only because of a doubt.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from .._values.slot_states import SlotState
from .places import Places
from .slot import Slot

NOTICED_WITHIN: Final = 0.02
"""Seconds by which gRPC has noticed a loss that a call has shown. Calls notice it some milliseconds earlier."""

# Losses of one address within this many seconds are those of one server, if there are that many.
_TOGETHER = 0.05
_MANY = 2

# One loss after another may prolong the doubts by this many seconds in all.
_LONGEST = 0.1


class Doubts:
    """The doubts about the connections of one pool."""

    def __init__(self, places: Places, alarm_at: Callable[[float], None]) -> None:
        """Doubts nothing yet; `alarm_at` brings the pool's next deadline forward."""
        self._slots = places.slots
        self._places = places
        self._alarm_at = alarm_at
        # When the last doubt ends (`-math.inf`: there is none), and when it does at the latest.
        self.until = self._latest = -math.inf

    def review(self, lost: Slot, now: float) -> None:
        """The slot is lost: begins to doubt the others to its address, if their server seems to be gone."""
        begun_at = now - _TOGETHER
        # Without what has never been up, and what is only blocked.
        gone = [
            slot
            for slot in self._to_same_address(lost, SlotState.LOST)
            if slot.been_up and slot.announced and slot.lost_at >= begun_at
        ]
        if len(gone) < _MANY or not any(slot.lost_by_call for slot in gone):
            return
        if now >= self.until:
            self._latest = now + _LONGEST
        until = min(now + NOTICED_WITHIN, self._latest)
        for slot in self._to_same_address(lost, SlotState.READY):
            if not slot.exclusive:
                self.until = until
                self._alarm_at(until)
                slot.doubt(until)
                self._places.refresh(slot)

    def _to_same_address(self, slot: Slot, state: SlotState) -> list[Slot]:
        return [other for other in self._slots.in_state(state) if other.address == slot.address]

    def end(self, now: float) -> bool:
        """Ends the doubts for which it is time; returns whether there are any: then slots may have room."""
        if self.until == -math.inf:
            return False
        doubted = [slot for slot in self._slots if slot.doubted and slot.doubted_until <= now]
        for slot in doubted:
            slot.trust()
            if slot.state is SlotState.READY:
                self._places.refresh(slot)
        if self.until <= now:
            self.until = -math.inf
        return bool(doubted)
