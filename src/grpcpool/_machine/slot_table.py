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
    """Holds every slot that is not closed.

    Attributes:
        all: The slots, oldest first; one that is just being closed included.
        opening: Connections being opened.
        hanging: Those of them that take too long, and are not counted on any more.
        under_way: Those of them that are counted on, except successors.
        probing: Connections being opened to find out whether a preferred target is up; no other number counts them.
        ready: Connections up and in service.
        lost: Connections in service, but known to be down.
        draining: Connections that take nothing new.
        successors: Connections being opened to replace one that is still in service.
        connections: What counts against `max_size`.
    """

    def __init__(self) -> None:
        """Creates an empty table."""
        self._slots: dict[int, Slot] = {}
        self._born = 0
        self.all: tuple[Slot, ...] = ()
        self.opening = self.ready = self.lost = self.draining = self.successors = self.connections = 0
        self.under_way = self.hanging = self.probing = 0

    def __len__(self) -> int:
        """How many connections are open or opening, draining ones included."""
        return len(self.all)

    def __iter__(self) -> Iterator[Slot]:
        """The slots, oldest first; the table may change meanwhile."""
        return iter(self.all)

    def __contains__(self, slot: Slot) -> bool:
        """Whether the slot is still in the pool."""
        return slot.id in self._slots

    def in_service(self) -> list[Slot]:
        """The ready and the lost slots, oldest first."""
        return [slot for slot in self.all if slot.state in _IN_SERVICE]

    def in_state(self, state: SlotState) -> list[Slot]:
        """The slots in `state`, oldest first; without those that only find out whether a preferred target is up."""
        return [slot for slot in self.all if slot.state is state and not slot.probes]

    def add(self, *, limit: int, now: float, deadline: float, replaces: Slot | None = None) -> Slot:
        """Adds a slot that is about to be dialled, the successor of `replaces` if that is given."""
        self._born += 1
        slot = Slot(self._born, limit=limit, now=now, deadline=deadline)
        self._slots[slot.id] = slot
        if replaces is not None:
            slot.replaces, replaces.successor = replaces, slot
        self.recount()
        return slot

    def move(self, slot: Slot, event: SlotEvent) -> None:
        """Moves `slot` to its next state. A closed slot stays here until `forget`."""
        slot.move(event)
        self.recount()

    def forget(self, slot: Slot) -> None:
        """Removes a closed slot."""
        del self._slots[slot.id]
        self.recount()

    def part(self, successor: Slot) -> Slot | None:
        """Separates `successor` from the slot that it was to replace; returns that slot, if there is one."""
        replaced = successor.replaces
        if replaced is not None:
            successor.replaces = replaced.successor = None
            self.recount()
        return replaced

    def recount(self) -> None:
        """Derives the counts from the slots. Slots change seldom, and the counts are read with every ask."""
        self.all = tuple(self._slots.values())
        # Those to targets that are not used count for nothing.
        counted = [slot for slot in self.all if not slot.probes]
        states = [slot.state for slot in counted]
        self.probing = len(self.all) - len(counted)
        self.opening = states.count(SlotState.OPENING)
        self.ready = states.count(SlotState.READY)
        self.lost = states.count(SlotState.LOST)
        self.draining = states.count(SlotState.DRAINING)
        self.successors = sum(slot.replaces is not None for slot in self.all)
        opening = [slot for slot in counted if slot.state is SlotState.OPENING]
        self.hanging = sum(slot.hangs for slot in opening)
        self.under_way = sum(not slot.hangs and slot.replaces is None for slot in opening)
        self.connections = self.opening + self.ready + self.lost - self.successors
