"""The slots of a pool, counted by state as they move.

`connections` is what `max_size` bounds: connections that are open or opening. A successor that is being opened counts
together with the connection that it is to replace; a draining connection does not count.

Invariant: the counts are those of the slots held, and no slot held is closed.
"""

from __future__ import annotations

from collections.abc import Iterator

from .._values.slot_states import SlotState
from .slot import Slot, SlotEvent

_IN_SERVICE = (SlotState.READY, SlotState.LOST)


class SlotTable:
    """Holds every slot that is not closed."""

    def __init__(self) -> None:
        """Creates an empty table."""
        self._slots: dict[int, Slot] = {}
        self._born = 0
        self._count = dict.fromkeys(SlotState, 0)
        # Slots that are opening to replace one that is still in service.
        self.successors = 0

    def __len__(self) -> int:
        """How many connections are open or opening, draining ones included."""
        return len(self._slots)

    def __iter__(self) -> Iterator[Slot]:
        """The slots, oldest first; the table may change meanwhile."""
        return iter(tuple(self._slots.values()))

    def __contains__(self, slot: Slot) -> bool:
        """Whether the slot is still in the pool."""
        return slot.id in self._slots

    @property
    def opening(self) -> int:
        """Connections being opened."""
        return self._count[SlotState.OPENING]

    @property
    def ready(self) -> int:
        """Connections up and in service."""
        return self._count[SlotState.READY]

    @property
    def lost(self) -> int:
        """Connections in service, but known to be down."""
        return self._count[SlotState.LOST]

    @property
    def draining(self) -> int:
        """Connections that take nothing new."""
        return self._count[SlotState.DRAINING]

    @property
    def connections(self) -> int:
        """What counts against `max_size`."""
        count = self._count
        return count[SlotState.OPENING] + count[SlotState.READY] + count[SlotState.LOST] - self.successors

    def in_service(self) -> list[Slot]:
        """The ready and the lost slots, oldest first."""
        return [slot for slot in self._slots.values() if slot.state in _IN_SERVICE]

    def in_state(self, state: SlotState) -> list[Slot]:
        """The slots in `state`, oldest first."""
        return [slot for slot in self._slots.values() if slot.state is state]

    def add(self, *, limit: int, now: float, deadline: float, replaces: Slot | None = None) -> Slot:
        """Adds a slot that is about to be dialled, the successor of `replaces` if that is given."""
        self._born += 1
        slot = Slot(self._born, limit=limit, now=now, deadline=deadline)
        self._slots[slot.id] = slot
        self._count[SlotState.OPENING] += 1
        if replaces is not None:
            slot.replaces, replaces.successor = replaces, slot
            self.successors += 1
        return slot

    def move(self, slot: Slot, event: SlotEvent) -> None:
        """Moves `slot` to its next state. A closed slot stays here until `forget`."""
        self._count[slot.state] -= 1
        slot.move(event)
        self._count[slot.state] += 1

    def forget(self, slot: Slot) -> None:
        """Removes a closed slot."""
        self._count[SlotState.CLOSED] -= 1
        del self._slots[slot.id]

    def recount(self) -> None:
        """Derives the counts from the slots, after a change was interrupted."""
        self._count = dict.fromkeys(SlotState, 0)
        for slot in self:
            self._count[slot.state] += 1
        self.successors = sum(slot.replaces is not None for slot in self)

    def part(self, successor: Slot) -> Slot | None:
        """Separates `successor` from the slot that it was to replace; returns that slot, if there is one."""
        replaced = successor.replaces
        if replaced is not None:
            successor.replaces = replaced.successor = None
            self.successors -= 1
        return replaced
