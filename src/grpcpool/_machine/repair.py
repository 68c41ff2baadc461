"""Completes a step that an exception has ended halfway, from what is certain.

Certain are each slot's state and what it carries, which waiters are queued, and what has been decided for them. All
counts are derived from these again. Effects may be asked for twice; a driver carries out an act once.
"""

from __future__ import annotations

from .._values.slot_states import SlotState
from .effects import Open, Watch
from .fleet import Fleet
from .grants import Grants
from .open_queue import OpenQueue
from .queue import WaitQueue


class Repair:
    """Repairs one pool."""

    def __init__(self, fleet: Fleet, queue: WaitQueue, grants: Grants, openers: OpenQueue) -> None:
        """For the connections of `fleet`, the waiters in `queue`, their answers and the openers."""
        self._fleet = fleet
        self._slots = fleet.slots
        self._places = fleet.places
        self._outbox = fleet.outbox
        self._queue = queue
        self._grants = grants
        self._openers = openers

    def complete(self, now: float) -> None:
        """Makes everything fit what is certain, and completes what had been decided."""
        self._slots.recount()
        self._queue.recount()
        self._grants.reservation.repair()
        self._places.recount()
        self._complete_slots(now)
        for waiter in self._queue:
            self._grants.complete(waiter, now)
        self._openers.repair(now)

    def _complete_slots(self, now: float) -> None:
        for slot in self._slots:
            match slot.state:
                case SlotState.CLOSED:
                    self._places.drop(slot)
                    self._fleet.forget(slot)
                case SlotState.OPENING if not slot.dialled and not slot.awaits_address:
                    self._outbox.append(Open(slot))
                case SlotState.LOST:
                    self._outbox.append(Watch(slot))
                case SlotState.READY if slot.replaces is not None:
                    self._fleet.retire_replaced(slot, now)
                case _:
                    pass
