"""The slots of a pool, counted by state and by address as they move.

`connections` is what `max_size` bounds: connections that are open or opening. A successor that is being opened counts
together with the connection that it is to replace; a draining connection does not count.

The table remembers how it has counted each slot. So what changes about one costs nothing for the others, and cannot be
counted twice.

Invariant: the counts are those of the slots held, and no slot held is closed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from .._values.slot_states import SlotState
from .slot import Slot, SlotEvent

IN_SERVICE = (SlotState.READY, SlotState.LOST)
"""The states of connections that are in use, or are to come back."""


class _Kind(NamedTuple):
    """What a slot is counted by."""

    state: SlotState
    hangs: bool
    is_successor: bool
    has_successor: bool
    probes: bool
    address: str | None


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
        successors_under_way: Those of them that do not hang.
        connections: What counts against `max_size`.
        leading: How many lead to each address, or are to; of one that is being replaced and its successor, the latter.
        ready_to, lost_to, opening_to, hanging_to: How many are ready, and so on, to each address.
    """

    def __init__(self) -> None:
        """Creates an empty table."""
        self._slots: dict[int, Slot] = {}
        self._born = 0
        self.all: tuple[Slot, ...] = ()
        self._reset()

    def _reset(self) -> None:
        self._counted: dict[Slot, _Kind] = {}
        self.opening = self.ready = self.lost = self.draining = self.successors = self.connections = 0
        self.under_way = self.hanging = self.probing = self.successors_under_way = 0
        self.leading: Counter[str | None] = Counter()
        self.ready_to: Counter[str | None] = Counter()
        self.lost_to: Counter[str | None] = Counter()
        self.opening_to: Counter[str | None] = Counter()
        self.hanging_to: Counter[str | None] = Counter()

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
        return [slot for slot in self.all if slot.state in IN_SERVICE]

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
            self.count(replaces)
        self.all = (*self.all, slot)
        self.count(slot)
        return slot

    def move(self, slot: Slot, event: SlotEvent) -> None:
        """Moves `slot` to its next state. A closed slot stays here until `forget`."""
        slot.move(event)
        self.count(slot)

    def forget(self, slot: Slot) -> None:
        """Removes a closed slot."""
        del self._slots[slot.id]
        self.all = tuple(self._slots.values())
        self._add(self._counted.pop(slot), -1)

    def separate(self, successor: Slot) -> Slot | None:
        """Separates `successor` from the slot that it was to replace; returns that slot, if there is one."""
        replaced = successor.replaces
        if replaced is not None:
            successor.replaces = replaced.successor = None
            self.count(successor)
            self.count(replaced)
        return replaced

    def mark_hanging(self, slot: Slot) -> None:
        """The connection takes too long to open."""
        slot.hangs, slot.hangs_at = True, math.inf
        self.count(slot)

    def count(self, slot: Slot) -> None:
        """Counts the slot as what it is by now, and not as what it was before; does nothing if it is not in here."""
        if slot not in self:
            return
        before = self._counted.get(slot)
        kind = _Kind(
            slot.state,
            hangs=slot.hangs,
            is_successor=slot.replaces is not None,
            has_successor=slot.successor is not None,
            probes=slot.probes,
            address=slot.address,
        )
        if before is not None:
            self._add(before, -1)
        self._counted[slot] = kind
        self._add(kind, 1)

    def _add(self, kind: _Kind, number: int) -> None:
        if kind.is_successor:
            self.successors += number
            self.successors_under_way += 0 if kind.hangs else number
        if kind.probes:
            # It leads to a target that is not used, and counts for nothing else.
            self.probing += number
        elif kind.state is SlotState.OPENING:
            self._add_opening(kind, number)
        elif kind.state is SlotState.READY:
            self.ready += number
        elif kind.state is SlotState.LOST:
            self.lost += number
        elif kind.state is SlotState.DRAINING:
            self.draining += number
        self.connections = self.opening + self.ready + self.lost - self.successors
        self._add_to_address(kind, number)

    def _add_opening(self, kind: _Kind, number: int) -> None:
        self.opening += number
        if kind.hangs:
            self.hanging += number
        elif not kind.is_successor:
            self.under_way += number

    def _add_to_address(self, kind: _Kind, number: int) -> None:
        match kind.state:
            case SlotState.OPENING:
                _add(self.opening_to, kind.address, 0 if kind.probes else number)
                _add(self.hanging_to, kind.address, number if kind.hangs else 0)
            case SlotState.READY:
                _add(self.ready_to, kind.address, number)
            case SlotState.LOST:
                _add(self.lost_to, kind.address, number)
            case _:
                return
        _add(self.leading, kind.address, 0 if kind.has_successor else number)

    def recount(self) -> None:
        """Counts all slots again, after a change was interrupted."""
        self.all = tuple(self._slots.values())
        self._reset()
        for slot in self.all:
            self.count(slot)


def _add(counts: Counter[str | None], address: str | None, number: int) -> None:
    counts[address] += number
    if not counts[address]:
        # Addresses come and go.
        del counts[address]
