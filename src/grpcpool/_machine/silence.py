"""Connections that answer nothing: their server is frozen, or packets are lost, and gRPC does not notice for minutes.

A connection is suspected when several calls in a row, all begun after its last answer, ran into their deadlines. If it
has not answered anything for `unresponsive_after` seconds by then, it is replaced. Whatever the server sent counts as
an answer: the end of a call with any status, a message of a stream. As long as every connection is silent, none is
replaced: then it is probably the network, or the calls ask for too much. A successor that is as silent has twice as
long, the next four times, until one answers.

An answered call pays nothing for this. A release notes its moment in any case (`Slot.used_at`). That of a call that was
not answered notes the same moment as `silent_at`; that of a lease does so if the two were equal before it
(`Places.release_unanswered`). So if the two differ, something has been answered.
"""

from __future__ import annotations

import math

from .._values.slot_states import SlotState
from .slot import Slot
from .slot_table import SlotTable

# So many calls in a row: one or two may have asked for too much.
_OVERDUE = 3


class Silence:
    """Which connections of one pool answer nothing."""

    def __init__(self, unresponsive_after: float | None, slots: SlotTable) -> None:
        """For the connections in `slots`; `unresponsive_after` as in `PoolConfig`."""
        self._after = math.inf if unresponsive_after is None else unresponsive_after
        self._slots = slots

    def unanswered(self, slot: Slot, began: float, now: float) -> None:
        """A call on the slot has ended without an answer; its place is released at the same moment.

        Args:
            slot: The slot.
            began: When the call began, if it ended at its deadline; `math.inf` if it was cancelled.
            now: The moment.
        """
        self._listen(slot, now)
        slot.silent_at = now
        if slot.answered_at <= began < math.inf:
            slot.overdue_calls += 1

    def _listen(self, slot: Slot, now: float) -> None:
        """Takes note of what has been answered since the last look."""
        if slot.used_at == slot.silent_at and slot.heard == slot.heard_before:
            return
        # When exactly a message came is not known.
        slot.answered_at = slot.used_at if slot.heard == slot.heard_before else now
        if slot.silent_at != -math.inf:
            slot.silence_factor = 1
        slot.heard_before = slot.heard
        slot.silent_at = slot.used_at
        slot.overdue_calls = 0

    def begin_again(self, slot: Slot, now: float) -> None:
        """The slot has another connection: what was not answered before says nothing of that."""
        slot.overdue_calls, slot.answered_at = 0, now
        slot.silent_at, slot.heard_before = slot.used_at, slot.heard

    def ends_at(self, slot: Slot, now: float) -> float:
        """When a ready slot that stays silent is to be replaced, unless all are; `math.inf` if it is not suspected."""
        if slot.overdue_calls < _OVERDUE:
            return math.inf
        self._listen(slot, now)
        if slot.overdue_calls < _OVERDUE:
            return math.inf
        return slot.answered_at + slot.silence_factor * self._after

    def are_all_silent(self) -> bool:
        """Whether every ready slot is silent."""
        return all(map(self._is_silent, self._slots.in_state(SlotState.READY)))

    def _is_silent(self, slot: Slot) -> bool:
        return slot.overdue_calls > 0 and slot.used_at == slot.silent_at and slot.heard == slot.heard_before

    def allow_longer(self, successor: Slot, replaced: Slot) -> None:
        """The slot that is `replaced` was silent: its successor has twice as long to answer."""
        successor.silence_factor = 2 * replaced.silence_factor
