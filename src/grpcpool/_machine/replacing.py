"""When connections in service are replaced: a successor is dialled, and when it is ready the old connection drains.

Due for a successor is a connection that

- has reached its age, or was open at a `refresh`;
- leads to an address that the target has no more. If enough others are ready, it drains at once;
- is lost, needed, and not back after two seconds: the factory may know more than gRPC's own reconnecting;
- answers nothing, see `silence.py`;
- leads to the address with the most connections, while another address has two less, see `addresses.py`.

At most a quarter of the pool is replaced at a time; successors that hang do not count. One that fails leaves the old
connection in service until its address may be dialled again.

A lost connection is needed if calls are on it, or wait; if there are less than `min_size`; or if it is the only one to
its address. One that is not needed is not reconnected either; when it is due for a successor, it is closed instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from .._values.slot_states import CloseReason, SlotState
from .fleet import Fleet
from .slot import Slot

# After an ask that found nothing up, connections are needed for so long: the next ask may be on its way.
_NEEDED_FOR = 10.0


class Replacing:
    """Replaces the connections of one pool."""

    def __init__(self, fleet: Fleet) -> None:
        """For the connections of `fleet`."""
        self._fleet = fleet
        self._slots = fleet.slots
        self._addresses = fleet.addresses
        self._silence = fleet.silence
        self._asked_until = self._recalled_until = -math.inf

    def refresh(self, now: float) -> None:
        """Marks every connection of this moment for replacement."""
        for slot in self._slots:
            if slot.state is not SlotState.DRAINING:
                slot.retire_at, slot.reason = -math.inf, CloseReason.REFRESH
            else:
                self._fleet.not_to_take_back(slot, CloseReason.REFRESH, now)

    def rotate(self, asked: int, now: float) -> None:
        """Dials successors for the slots that are due, and evens out the addresses."""
        if not self._fleet.active or now < self._addresses.retry_at:
            return
        due = [slot for slot, at in self._due(asked, now) if at <= now]
        for slot in sorted(due, key=lambda slot: slot.retire_at):
            if not self.may_replace():
                return
            self._replace(slot, now)
        while self._fleet.usage.in_use and self.may_replace():
            surplus = self._addresses.surplus(now)
            if surplus is None:
                return
            slot, address = surplus
            slot.reason = CloseReason.REFRESH
            self._fleet.dial(now, replaces=slot, address=address)

    def _replace(self, slot: Slot, now: float) -> None:
        unresponsive = self._is_unresponsive(slot, now)
        if unresponsive and self._addresses.several:
            # Its server would not answer a successor either.
            self._addresses.failed(slot, now)
        gone = self._addresses.is_gone(slot)
        successor = self._fleet.dial(now, replaces=slot)
        if gone:
            slot.reason = CloseReason.ADDRESS_GONE
        elif unresponsive:
            slot.reason = CloseReason.UNRESPONSIVE
            self._silence.allow_longer(successor, slot)

    def retire_due(self, asked: int, now: float) -> None:
        """Drains connections that are to go, and need no successor.

        These are the lost ones that are due and not needed. And those to addresses that are gone, if the others are
        enough.
        """
        lost = self._slots.in_state(SlotState.LOST) if self._slots.lost else ()
        for slot in [slot for slot in lost if slot.retire_at <= now and slot.successor is None]:
            if not self.which_are_needed(asked, now)(slot):
                self._fleet.retire(slot, slot.reason, now)
        gone = [slot for slot in self._slots.in_service() if self._addresses.is_gone(slot)]
        if gone and self._others(SlotState.READY) >= self._enough(asked):
            for slot in gone:
                self._fleet.retire(slot, CloseReason.ADDRESS_GONE, now)

    def _others(self, *states: SlotState) -> int:
        """How many connections that do not hang lead to addresses that are not gone."""
        slots = [slot for state in states for slot in self._slots.in_state(state)]
        return sum(not (slot.hangs or self._addresses.is_gone(slot)) for slot in slots)

    def _enough(self, asked: int) -> int:
        return max(1, self._fleet.needed(asked))

    def review_silence(self, slot: Slot, asked: int, now: float) -> None:
        """A call on the slot was not answered: replaces it if it has been silent for too long, or looks then."""
        if self._addresses.is_gone(slot):
            at = self._gone_at(asked)
        else:
            at = min(slot.retire_at, self._silent_until(slot, now))
        if at <= now:
            self.rotate(asked, now)
        else:
            self._fleet.alarm_at(at)

    def note_ask(self, now: float) -> bool:
        """A place was asked for while nothing was up; returns whether this is the first such ask of late."""
        first = now >= self._asked_until
        self._asked_until = now + _NEEDED_FOR
        return first

    def recall(self, now: float) -> None:
        """Lost connections are missed: what asks for a place may have gone before they are back."""
        self._recalled_until = now + _NEEDED_FOR

    def which_are_needed(self, asked: int, now: float) -> Callable[[Slot], bool]:
        """Which lost connections should come back: because of the calls on them, or because they are missed.

        Returns:
            Whether one of them should. It is of use only as long as nothing changes.
        """
        fleet = self._fleet
        are_missed = (fleet.active and self._slots.ready < fleet.min_size) or asked
        if are_missed or now < max(self._asked_until, self._recalled_until):
            return lambda _: True
        unserved = self._addresses.unserved() if fleet.usage.in_use else set()
        return lambda slot: slot.in_flight > 0 or slot.address in unserved

    def next_due(self, asked: int, now: float) -> float:
        """When the next slot is due for a successor, if it may have one."""
        return min((at for _, at in self._due(asked, now)), default=math.inf)

    def _due(self, asked: int, now: float) -> Iterator[tuple[Slot, float]]:
        """When each slot in service without a successor is due for one."""
        waiting = [slot for slot in self._slots.in_service() if slot.successor is None]
        # What takes a look at all slots is found out once for all of them.
        gone = set(filter(self._addresses.is_gone, waiting))
        gone_at = self._gone_at(asked) if gone else math.inf
        lost = [slot for slot in waiting if slot.state is SlotState.LOST]
        needed = set(filter(self.which_are_needed(asked, now), lost)) if lost else set()
        overdue = {slot for slot in waiting if slot.overdue_calls and slot.state is SlotState.READY}
        suspected = overdue if overdue and not self._silence.are_all_silent() else set()
        for slot in waiting:
            at = slot.retire_at
            if slot in gone:
                at = gone_at
            elif slot in needed:
                at = min(at, slot.given_up_at)
            elif slot in suspected:
                at = min(at, self._silence.ends_at(slot, now))
            yield slot, at

    def _gone_at(self, asked: int) -> float:
        """When those are due whose address is gone: at once, unless others are enough, or will be."""
        return math.inf if self._others(SlotState.READY, SlotState.OPENING) >= self._enough(asked) else -math.inf

    def _is_unresponsive(self, slot: Slot, now: float) -> bool:
        return slot.state is SlotState.READY and now < slot.retire_at and self._silent_until(slot, now) <= now

    def _silent_until(self, slot: Slot, now: float) -> float:
        at = self._silence.ends_at(slot, now)
        return at if at < math.inf and not self._silence.are_all_silent() else math.inf

    def may_replace(self) -> bool:
        """Whether one more connection may be replaced now: a quarter at a time, and while failing one attempt."""
        if self._addresses.failures and self._slots.opening:
            return False
        return self._slots.successors_under_way < max(1, -(-self._slots.connections // 4))
