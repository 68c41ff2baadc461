"""Which of several targets is used, if they are given in an order of preference.

Calls go to the first target that has a ready connection. When the one that is used has had none for 10 seconds in which
that was tried, the next is used, and only then connected. Meanwhile one connection to each preferred target is dialled,
with backoff. Once it has been up for 10 seconds, give or take a half, that target is used again; at once if the other
has no connection.

The connections to the other target take no new calls then. They drain, but are kept for 15 minutes, and taken back if
their target is used again. Calls in flight stay where they are.

A pool that is not used, or whose `open()` has failed, does not try its target. So the 10 seconds must end within as
many after a failure, or in an attempt that has lasted as long. If the target was not tried for a minute, they begin
again, but only once until a connection is ready: a pool that tries every few minutes, and always fails, comes to the
next target as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from .._values.events import AddressesChanged, LookUpFailed, OpenFailed, Opening
from .._values.slot_states import CloseReason, SlotState
from .backoff import Backoff
from .effects import Notify, Open
from .fleet import Fleet
from .slot import Slot, SlotEvent

# For so long the target that is used may have no ready connection.
_FAILS_AFTER = 10.0

# If nothing was tried for so long, earlier failures say nothing any more.
_FORGETS_AFTER = 60.0

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
        self._which_are_needed = which_are_needed
        self._backoffs = [Backoff(random) for _ in range(count)]
        # Since when the target that is used has had no ready connection.
        self._none_since = math.inf
        # When the target that is used was last known to be tried, or to have failed.
        self._tried_at = -math.inf
        # Whether `_none_since` has begun again after a long time without a try, since a connection was last ready.
        self._has_forgotten = False
        # When the target of a connection that stands by is used again.
        self._returns_at: dict[Slot, float] = {}

    def review(self, now: float) -> list[Slot]:
        """The connections have changed, or time has passed: decides which target is used.

        Returns:
            The slots that have been taken back.
        """
        fleet = self._fleet
        if len(self._backoffs) == 1:
            return []
        back: list[Slot] = []
        trying_since = self._note_tries(now)
        fails = fleet.addresses.failures > 0 and now < fleet.failed_at + _FAILS_AFTER
        none = not self._slots.ready and (fails or trying_since < math.inf)
        if none:
            self._none_since = min(self._none_since, now)
        elif fleet.active and self._slots.ready:
            self._none_since, self._has_forgotten = math.inf, False
        if not fleet.active:
            # An `open()` has failed. The next one goes on from here.
            return []
        self._returns_at = {slot: at for slot, at in self._returns_at.items() if slot.kept}
        due = [slot.endpoint for slot, at in self._returns_at.items() if none or at <= now]
        if due:
            back = self._use(min(due), now)
        elif self._next_is_used_at(now) <= now:
            back = self._use(fleet.endpoint + 1, now)
        for endpoint in range(fleet.endpoint):
            if self._backoffs[endpoint].retry_at <= now and not self._is_tried(endpoint):
                self._probe(endpoint, now)
        return back

    def open_again(self, now: float) -> None:
        """An `open()` begins: if those before it have failed for long enough, it opens the next target."""
        self._note_tries(now)
        if now >= self._tried_at + _FORGETS_AFTER:
            self._forget_once()
        if not len(self._slots) and self._none_since + _FAILS_AFTER <= now and self._has_next():
            self._use(self._fleet.endpoint + 1, now)

    def _trying_since(self, now: float) -> float:
        """Since when a connection to the target that is used is being made, or is missed; `math.inf` if none is."""
        dials = [slot.opened_at for slot in self._slots.in_state(SlotState.OPENING) if not slot.probes]
        is_needed = self._which_are_needed(now)
        lost = [slot for slot in self._slots.in_state(SlotState.LOST) if slot.lost_by_call or is_needed(slot)]
        return min(dials + [slot.lost_at if slot.been_up else slot.unused_since for slot in lost], default=math.inf)

    def _forget_once(self) -> None:
        """It was not tried for long: what failed before says nothing, unless that was so before already."""
        if self._none_since < math.inf and not self._has_forgotten:
            self._none_since, self._has_forgotten = math.inf, True

    def _note_tries(self, now: float) -> float:
        """Forgets what failed before a long rest; returns since when the target is tried now."""
        since, failed_at = self._trying_since(now), self._fleet.failed_at
        begun = min(since, failed_at if failed_at > self._tried_at else math.inf)
        if begun < math.inf:
            if begun >= self._tried_at + _FORGETS_AFTER:
                self._forget_once()
            self._tried_at = max(self._tried_at, failed_at, now if since < math.inf else -math.inf)
        return since

    def _has_next(self) -> bool:
        return self._fleet.endpoint + 1 < len(self._backoffs)

    def next_at(self, now: float) -> float:
        """When `review` is due."""
        if len(self._backoffs) == 1 or not self._fleet.active:
            return math.inf
        at = min(self._returns_at.values(), default=math.inf)
        at = min(at, self._next_is_used_at(now))
        for endpoint in range(self._fleet.endpoint):
            if not self._is_tried(endpoint):
                at = min(at, self._backoffs[endpoint].retry_at)
        return max(at, now)

    def _next_is_used_at(self, now: float) -> float:
        """When the target that is used has had no ready connection for long enough, if there is a next one."""
        if not self._has_next():
            return math.inf
        at = self._none_since + _FAILS_AFTER
        fleet = self._fleet
        if fleet.addresses.failures and max(at, now) < fleet.failed_at + _FAILS_AFTER:
            return at
        return max(at, self._trying_since(now) + _FAILS_AFTER)

    def _is_tried(self, endpoint: int) -> bool:
        return any(slot.endpoint == endpoint and (slot.probes or slot.kept) for slot in self._slots)

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
        fleet.keep(slot, math.inf, now)
        self._returns_at[slot] = now + _RETURNS_AFTER * (0.5 + self._random())
        fleet.alarm_at(self._returns_at[slot])

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
        """A connection that is kept is down."""
        self._fleet.keep_no_longer(slot, CloseReason.LOST, now)
        if slot in self._returns_at:
            # The next attempt may end in the same way.
            self._backoffs[slot.endpoint].failed(now)
        self._fleet.alarm_at(now)

    # --- their addresses ----------------------------------------------------------------------------------------

    def found(self, names: Sequence[str], number: int, now: float) -> bool:
        """That look-up has found these addresses; returns whether they are used: not those of another target."""
        fleet = self._fleet
        if not fleet.lookups.answered(number, now):
            return False
        if len(self._backoffs) > 1 and len(names) == 1:
            # One that found out whether the target is up leads there.
            for slot in self._slots.in_service():
                slot.address = slot.address or names[0]
                self._slots.count(slot)
        new, gone = fleet.addresses.update(names)
        if new or gone:
            event = AddressesChanged(pool=fleet.name, addresses=tuple(names), new=tuple(new), gone=tuple(gone))
            fleet.outbox.append(Notify(event))
        fleet.direct_awaiting(now)
        return True

    def look_up_failed(self, error: BaseException, number: int, now: float) -> bool:
        """That look-up has failed; returns whether it was counted on. Known addresses stay."""
        fleet = self._fleet
        if not fleet.lookups.failed(number, now):
            return False
        fleet.outbox.append(Notify(LookUpFailed(pool=fleet.name, error=error)))
        if not fleet.lookups.awaited:
            fleet.direct_awaiting(now)
        return True

    # --- changing over ------------------------------------------------------------------------------------------

    def _use(self, endpoint: int, now: float) -> list[Slot]:
        """From now on this target is used; returns the slots that have been taken back."""
        fleet = self._fleet
        self._none_since, self._has_forgotten = math.inf, False
        self._backoffs[endpoint].succeeded()
        fleet.endpoint, fleet.failed_at = endpoint, -math.inf
        for slot in self._slots:
            stands_by = slot.endpoint < endpoint and (slot.probes or slot in self._returns_at)
            if slot.endpoint != endpoint and not stands_by:
                self._leave(slot, now)
        back: list[Slot] = []
        for slot in self._slots:
            if slot.endpoint != endpoint:
                continue
            if slot.kept and not (slot.down or slot.blocked) and self._slots.connections < fleet.max_size:
                self._returns_at.pop(slot, None)
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
            fleet.keep(slot, now + _KEPT_FOR, now)
        elif slot.state is SlotState.LOST:
            fleet.retire(slot, CloseReason.LOST, now)
        elif slot.state is SlotState.OPENING:
            fleet.close(slot, CloseReason.SHRINK)
        elif slot.kept:
            slot.kept_until = min(slot.kept_until, now + _KEPT_FOR)
            self._returns_at.pop(slot, None)
