"""When the next tick of a pool is due: the earliest deadline of all that it waits for.

Deadlines are brought forward as they arise (`Fleet.alarm_at`). When a connection has opened, or could not, and after
each tick, the earliest is derived again. So a deadline that has gone leads to one tick without need, at most. When a
connection leaves service, a tick is due at once: what was not missed before may be now.
"""

from __future__ import annotations

import math

from .._values.slot_states import SlotState
from .endpoints import Endpoints
from .fleet import Fleet
from .growing import Growing
from .open_queue import OpenQueue
from .queue import WaitQueue
from .replacing import Replacing
from .shrinking import Shrinking
from .slot import Slot

# How long an opening may take after the loop or the process stood still.
_EXTENSION = 1.0


class Deadlines:
    """The deadlines of one pool."""

    def __init__(
        self,
        fleet: Fleet,
        growing: Growing,
        shrinking: Shrinking,
        replacing: Replacing,
        endpoints: Endpoints,
        queue: WaitQueue,
        openers: OpenQueue,
    ) -> None:
        """For the connections of `fleet`, and those that wait for a place, or in `open()`."""
        self._fleet = fleet
        self._growing = growing
        self._shrinking = shrinking
        self._replacing = replacing
        self._addresses = fleet.addresses
        self._endpoints = endpoints
        self._queue = queue
        self._openers = openers

    def rearm(self, now: float) -> None:
        """Derives the next deadline."""
        fleet, asked = self._fleet, self._queue.asked
        retry_at, unclear_until = self._addresses.retry_at, fleet.unclear_until
        deadlines = [
            fleet.peak_watch_ends_at,
            fleet.lookups.next_at(),
            self._endpoints.next_at(now),
            self._queue.next_deadline(),
            self._openers.next_deadline(),
            self._shrinking.next_end(),
            min(map(_attention, fleet.slots.all), default=math.inf),
        ]
        if fleet.active and self._replacing.may_replace():
            deadlines.append(max(self._replacing.next_due(asked, now), retry_at))
        # While that is unclear, `min_size` alone is filled.
        at = retry_at if self._growing.shortage(0) > 0 else max(retry_at, unclear_until)
        if at > now and self._growing.shortage(asked) > 0:
            deadlines.append(at)
        if fleet.usage.in_use:
            deadlines.append(self._addresses.next_retry(now))
        fleet.alarm = max(min(deadlines), now)

    def late(self, slot: Slot) -> TimeoutError:
        """Why an opening whose deadline has come has failed."""
        connect_timeout = self._fleet.config.connect_timeout
        if slot.awaits_address and self._fleet.lookups.discovered:
            return self._fleet.lookups.late()
        # As when it was dialled, to the last digit.
        if slot.deadline < slot.opened_at + connect_timeout:
            allowed = slot.deadline - slot.opened_at
            return TimeoutError(f"not ready within {allowed:.1f} s, and another address may be")
        return TimeoutError(f"not ready within connect_timeout, {connect_timeout} s")

    def extend_opening(self, slot: Slot, now: float) -> None:
        """An opening is late because the loop or the process has stood still: it has a second more, once.

        By its state it is connected, or it had no time to connect.
        """
        config = self._fleet.config
        if slot.state is SlotState.OPENING and slot.deadline <= slot.opened_at + config.connect_timeout:
            slot.deadline = now + _EXTENSION
            # What is overdue stays so.
            self._fleet.alarm_at(slot.deadline)


def _attention(slot: Slot) -> float:
    """When the slot itself needs a tick."""
    if slot.state in (SlotState.OPENING, SlotState.DRAINING):
        return min(slot.deadline, slot.hangs_at, slot.kept_until if slot.kept else math.inf)
    return min(slot.limit_grows_at, slot.avoided_until, slot.doubted_until)
