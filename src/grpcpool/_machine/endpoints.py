"""Which of several targets is used, if they are given in an order of preference.

Calls go to the first target that has a ready connection. When the one that is used has failed for long enough, see
`failover.py`, the next is used, and only then connected. Meanwhile one connection to each preferred target is dialled,
with backoff. Once it has been up for 10 seconds, give or take a half, that target is used again; at once if the other
has no connection.

The connections to the other target take no new calls then. They drain, but are kept for 15 minutes, and taken back if
their target is used again. Calls in flight stay where they are.

What becomes of a connection, by the target to which it leads::

      to a preferred one                  to the one that is used              to one that was used

                    up             its target is used          another is used          15 min
    PROBES --------------> STANDS BY --------------> IN SERVICE --------------> KEPT --------------> closes
      |                        |                         ^                        |
      | fails                  | lost                    +------------------------+
      v                        v                              its target is used
    closes; another is dialled after a pause

A slot that `probes` is OPENING. One that is `kept` is DRAINING: it stands by until `returns_at`, or may be taken back
until `kept_until`; the other of these moments is `math.inf`. If a target before its own is used, one that probes is
closed, and one that stands by is only kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .._values.events import OpenFailed, Opening
from .._values.slot_states import CloseReason, SlotState
from .backoff import Backoff
from .effects import Notify, Open
from .failover import FailOver
from .fleet import Fleet
from .slot import Slot, SlotEvent

# For so long a preferred target must have been up; up to a half more or less, so that not all clients return at once.
_RETURNS_AFTER = 10.0

# For so long connections to a target that is not used any more are kept.
_KEPT_FOR = 900.0


class Endpoints:
    """The targets of one pool, numbered from 0 in order of preference."""

    def __init__(
        self,
        fleet: Fleet,
        random: Callable[[], float],
        count: int,
        which_are_needed: Callable[[float], Callable[[Slot], bool]],
    ) -> None:
        """For `count` targets; `which_are_needed` as in `Outage`."""
        self._fleet = fleet
        self._slots = fleet.slots
        self._random = random
        self._failover = FailOver(fleet, which_are_needed)
        self._backoffs = [Backoff(random) for _ in range(count)]

    # --- which is used ------------------------------------------------------------------------------------------

    def review(self, now: float) -> list[Slot]:
        """The connections have changed, or time has passed: decides which target is used.

        Returns:
            The slots that have been taken back.
        """
        fleet = self._fleet
        if not fleet.has_other_targets:
            return []
        fails = self._failover.review(now)
        if not fleet.active:
            # An `open()` has failed. The next one goes on from here.
            return []
        back: list[Slot] = []
        due = [slot.endpoint for slot in self._standing_by() if fails or slot.returns_at <= now]
        if due:
            back = self._use(min(due), now)
        elif self._next_is_used_at(now) <= now:
            back = self._use(fleet.endpoint + 1, now)
        for endpoint in self._not_tried():
            if self._backoffs[endpoint].retry_at <= now:
                self._probe(endpoint, now)
        return back

    def next_at(self, now: float) -> float:
        """When `review` is due."""
        if not (self._fleet.has_other_targets and self._fleet.active):
            return math.inf
        returns = [slot.returns_at for slot in self._standing_by()]
        retries = [self._backoffs[endpoint].retry_at for endpoint in self._not_tried()]
        return max(now, min([self._next_is_used_at(now), *returns, *retries]))

    def open_again(self, now: float) -> None:
        """An `open()` begins: if those before it have failed for long enough, it opens the next target."""
        if self._failover.review_open(now) and not len(self._slots) and self._has_next():
            self._use(self._fleet.endpoint + 1, now)

    def _has_next(self) -> bool:
        return self._fleet.endpoint + 1 < len(self._backoffs)

    def _next_is_used_at(self, now: float) -> float:
        return self._failover.due_at(now) if self._has_next() else math.inf

    def _standing_by(self) -> list[Slot]:
        return [slot for slot in self._slots if slot.returns_at < math.inf]

    def _not_tried(self) -> list[int]:
        """The preferred targets to which nothing leads."""
        tried = {slot.endpoint for slot in self._slots if slot.probes or slot.kept}
        return [endpoint for endpoint in range(self._fleet.endpoint) if endpoint not in tried]

    # --- connections to preferred targets -----------------------------------------------------------------------

    def _probe(self, endpoint: int, now: float) -> None:
        """Dials a connection to a preferred target, in the background."""
        fleet = self._fleet
        deadline = now + fleet.config.connect_timeout
        slot = self._slots.add(limit=fleet.config.max_streams, now=now, deadline=deadline)
        slot.endpoint, slot.probes = endpoint, True
        self._slots.count(slot)
        fleet.alarm_at(deadline)
        fleet.outbox.append(Open(slot))
        fleet.outbox.append(Notify(Opening(pool=fleet.name, channel=slot.id, replaces=None)))

    def opened(self, slot: Slot, now: float) -> None:
        """A connection to a preferred target is up: it stands by."""
        fleet = self._fleet
        fleet.counters.opened += 1
        slot.been_up, slot.probes = True, False
        slot.opened_at = slot.used_at = slot.unused_since = slot.refused_at = now
        fleet.begin_to_age(slot, now)
        self._slots.move(slot, SlotEvent.OPENED)
        fleet.keep(slot, now, returns_at=now + _RETURNS_AFTER * (0.5 + self._random()))
        fleet.alarm_at(slot.returns_at)

    def open_failed(self, slot: Slot, error: BaseException, now: float) -> None:
        """A connection to a preferred target could not be made."""
        fleet = self._fleet
        retry_in = self._backoffs[slot.endpoint].failed(now)
        fleet.alarm_at(now + retry_in)
        slot.probes = False
        self._slots.move(slot, SlotEvent.OPEN_FAILED)
        fleet.forget(slot)
        fleet.counters.open_failures += 1
        fleet.outbox.append(Notify(OpenFailed(pool=fleet.name, channel=slot.id, error=error, retry_in=retry_in)))

    def lost(self, slot: Slot, now: float) -> None:
        """A connection that is kept is down, or may be."""
        if slot.returns_at < math.inf:
            # The next attempt may end in the same way.
            self._backoffs[slot.endpoint].failed(now)
        self._fleet.keep_no_longer(slot, CloseReason.LOST, now)
        self._fleet.alarm_at(now)

    # --- changing over ------------------------------------------------------------------------------------------

    def _use(self, endpoint: int, now: float) -> list[Slot]:
        """From now on this target is used; returns the slots that have been taken back."""
        fleet = self._fleet
        self._failover.begin_again()
        self._backoffs[endpoint].succeeded()
        fleet.endpoint, fleet.failed_at = endpoint, -math.inf
        for slot in self._slots:
            goes_on = slot.endpoint < endpoint and (slot.probes or slot.returns_at < math.inf)
            if slot.endpoint != endpoint and not goes_on:
                self._leave(slot, now)
        back: list[Slot] = []
        for slot in self._slots:
            if slot.endpoint != endpoint:
                continue
            if slot.kept and not (slot.down or slot.blocked) and self._slots.connections < fleet.max_size:
                fleet.take_back(slot, now)
                back.append(slot)
            elif slot.probes:
                slot.probes = False
                self._slots.count(slot)
        fleet.addresses.update(())
        fleet.lookups.switch(now)
        fleet.size_changed(now)
        return back

    def _leave(self, slot: Slot, now: float) -> None:
        fleet = self._fleet
        if slot.state is SlotState.READY:
            fleet.keep(slot, now, until=now + _KEPT_FOR)
        elif slot.state is SlotState.LOST:
            fleet.retire(slot, CloseReason.LOST, now)
        elif slot.state is SlotState.OPENING:
            fleet.close(slot, CloseReason.SHRINK)
        elif slot.kept:
            slot.kept_until, slot.returns_at = min(slot.kept_until, now + _KEPT_FOR), math.inf
