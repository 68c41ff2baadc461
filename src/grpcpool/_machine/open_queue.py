"""The callers of `open()` that wait: what is dialled for them, and what becomes of it if they give up.

They fail as soon as a dial to each address has failed. They are patient where something else may help: while a
connection is lost, gRPC may reconnect it, and of several targets another may be used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from .._values.errors import Refusal
from .._values.slot_states import CloseReason, SlotState
from .effects import Outbox, Started
from .fleet import Fleet
from .openers import OpenWaiter
from .queue import WaitQueue
from .slot import Slot

Refuse = Callable[[OpenWaiter, Refusal, float], None]
"""Decides that an opener gets nothing."""


class OpenQueue:
    """The openers of one pool."""

    def __init__(self, fleet: Fleet, queue: WaitQueue, outbox: Outbox, refuse: Refuse) -> None:
        """Creates an empty queue, for the connections of `fleet`; `queue` holds those that wait for a place."""
        self._fleet = fleet
        self._slots = fleet.slots
        self._queue = queue
        self._outbox = outbox
        self._refuse = refuse
        self._openers: dict[OpenWaiter, None] = {}
        # What was dialled for openers that still wait, or have failed.
        self._dialled: set[Slot] = set()

    def __iter__(self) -> Iterator[OpenWaiter]:
        """The openers, in the order of arrival; the queue may change meanwhile."""
        return iter(tuple(self._openers))

    def next_deadline(self) -> float:
        """The earliest deadline of an opener; `math.inf` for none."""
        return min((opener.deadline for opener in self._openers), default=math.inf)

    def add(self, opener: OpenWaiter, now: float) -> None:
        """Dials what is missing to `min_size`; the opener waits for that."""
        first = next(iter(self._openers), None)
        # What is dialled while openers wait is for them.
        opener.before = first.before if first is not None else set(self._slots.in_state(SlotState.OPENING))
        self._dialled = {slot for slot in self._dialled if slot in self._slots}
        for _ in range(self._fleet.min_size - self._slots.connections):
            self._dialled.add(self._fleet.dial(now))
        if len(self._slots.in_service()) < self._fleet.min_size:
            # Else what is being dialled is for others, and its failure is theirs alone.
            opening = self._slots.in_state(SlotState.OPENING)
            opener.pending = {slot for slot in opening if slot.replaces is None and not slot.probes}
        self._openers[opener] = None
        if self._fleet.has_other_targets:
            self._be_patient(opener, now)
        self.start_ready(now)

    def start_ready(self, now: float) -> None:
        """Notifies the openers for which the connections are ready."""
        enough = self._slots.ready >= self._fleet.min_size
        for opener in self:
            opener.made |= {slot for slot in opener.pending if slot.state is not SlotState.OPENING}
            opener.pending -= opener.made
            if not enough and self._slots.lost:
                self._be_patient(opener, now)
            # Dials that hang are not waited for if others have taken their places.
            awaited = [slot for slot in opener.pending if not (enough and slot.hangs)]
            if not awaited and (enough or not opener.patient):
                self._outbox.append(Started(opener))
                self._dialled -= opener.made | opener.pending
                del self._openers[opener]
            else:
                self._fleet.alarm_at(opener.deadline)

    def _be_patient(self, opener: OpenWaiter, now: float) -> None:
        if not opener.patient and opener.deadline == math.inf:
            opener.deadline = now + self._fleet.config.connect_timeout
        opener.patient = True

    def open_failed(self, slot: Slot, now: float) -> None:
        """The slot's connection could not be made: refuses the openers that wait for it.

        If another address has not failed, they wait for a connection to that.
        """
        other = None
        for opener in self:
            if slot not in opener.pending or opener.patient:
                continue
            if other is None and self._may_try_another():
                other = self._fleet.dial(now)
            if other is None:
                self._fail(opener, now)
                continue
            self._replace(opener, slot, other)

    def _may_try_another(self) -> bool:
        fleet, addresses = self._fleet, self._fleet.addresses
        is_free = fleet.active and self._slots.connections < fleet.max_size
        return is_free and addresses.several and not addresses.failures

    def awaits(self, slot: Slot) -> bool:
        """Whether an opener waits for the slot."""
        return any(slot in opener.pending for opener in self)

    def replaced(self, slot: Slot, other: Slot) -> None:
        """Another connection is dialled instead: the openers wait for that."""
        for opener in self:
            if slot in opener.pending:
                self._replace(opener, slot, other)

    def _replace(self, opener: OpenWaiter, slot: Slot, other: Slot) -> None:
        opener.pending.discard(slot)
        opener.pending.add(other)
        if slot in self._dialled:
            self._dialled.add(other)

    def expire(self, now: float) -> None:
        """Refuses the openers whose deadline has come."""
        for opener in self:
            if opener.deadline <= now:
                self._fail(opener, now)

    def repair(self, now: float) -> None:
        """Completes refusals that were decided, and interrupted."""
        for opener in self:
            if opener.refusal is not None:
                self._fail(opener, now)

    def close(self, now: float) -> None:
        """Refuses all: the pool is closed."""
        for opener in self:
            self._refuse(opener, Refusal.CLOSED, now)
            del self._openers[opener]

    def cancel(self, opener: OpenWaiter, now: float) -> bool:
        """The opener gives up. Returns whether it still waited."""
        if opener not in self._openers:
            return False
        self._undo(opener, now)
        return True

    def _fail(self, opener: OpenWaiter, now: float) -> None:
        self._refuse(opener, Refusal.OPEN_FAILED, now)
        self._undo(opener, now)

    def _undo(self, opener: OpenWaiter, now: float) -> None:
        """Closes what an `open()` that failed, or was given up, had opened, unless others wait for it."""
        others = [other for other in self if other is not opener]
        shared = {slot for other in others for slot in other.pending | other.made}
        # What was dialled in the place of a dial that hangs is for all who wait.
        beside = set() if others else self._dialled_since(opener)
        if self._queue.length:
            shared |= opener.pending | beside
        for slot in ((opener.made | opener.pending) & self._dialled | beside) - shared:
            if slot in self._slots and slot.state is not SlotState.DRAINING:
                self._fleet.retire(slot, CloseReason.DISCARDED, now)
        del self._openers[opener]
        if not self._queue.length and not len(self._slots):
            self._fleet.active = False
            self._fleet.lookups.rest()

    def _dialled_since(self, opener: OpenWaiter) -> set[Slot]:
        """What was dialled because others hang or, for a patient opener, have failed."""
        again = opener.patient and not self._slots.in_service()
        opening = set(self._slots.in_state(SlotState.OPENING)) - opener.before
        return {slot for slot in opening if slot.beside or again}
