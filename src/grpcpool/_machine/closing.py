"""How a pool ends: waiters are refused, what is idle is closed, and the rest drains until a deadline for all of it.

Once it has begun, it is not undone. It may be brought forward.
"""

from __future__ import annotations

import math

from .._values.errors import Refusal
from .._values.slot_states import CloseReason, SlotState
from .fleet import Fleet
from .grants import Grants
from .open_queue import OpenQueue
from .queue import WaitQueue


class Closing:
    """The end of one pool."""

    def __init__(self, fleet: Fleet, queue: WaitQueue, grants: Grants, openers: OpenQueue) -> None:
        """Does not begin yet. For the connections of `fleet`, the waiters in `queue` and the openers."""
        self._fleet = fleet
        self._queue = queue
        self._grants = grants
        self._openers = openers
        # When what is left is cut off.
        self.deadline = math.inf

    def begin(self, now: float) -> None:
        """Ends the pool, at the deadline at the latest. Done again, it does what an interruption has left out."""
        self._fleet.active = False
        self._fleet.lookups.close()
        self._grants.reservation.close()
        self._grants.refuse_all([*self._queue], Refusal.CLOSED, now)
        self._openers.close(now)
        for slot in self._fleet.slots:
            if slot.kept:
                self._fleet.keep_no_longer(slot, CloseReason.POOL_CLOSED, now)
            if slot.state is SlotState.DRAINING:
                slot.deadline = min(slot.deadline, self.deadline)
            elif slot.state is not SlotState.CLOSED:
                self._fleet.retire(slot, CloseReason.POOL_CLOSED, now, deadline=self.deadline)
