"""When the next of several targets is used: the one before has had no ready connection for 10 seconds.

The target that is used is fine, or it fails::

              none is ready, and one is tried                        for 10 s
    FINE ----------------------------------------> FAILS SINCE t -------------> the next target is used
     ^                                              |       |
     +------- a connection is ready ----------------+       |
     +------- it was not tried for a minute (once) ---------+

A pool that is not used, or whose `open()` has failed, does not try its target. So the 10 seconds must end within as
many after a failure, or in an attempt that has lasted as long. And after a minute without a try, earlier failures say
nothing any more. They are forgotten only once until a connection is ready: a pool that tries every few minutes, and
always fails, comes to the next target as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .._values.slot_states import SlotState
from .fleet import Fleet
from .slot import Slot

# For so long the target that is used may have no ready connection.
_FAILS_AFTER = 10.0

# If nothing was tried for so long, earlier failures say nothing any more.
_FORGETS_AFTER = 60.0


class FailOver:
    """Whether the target that is used fails, and for how long it has."""

    def __init__(self, fleet: Fleet, which_are_needed: Callable[[float], Callable[[Slot], bool]]) -> None:
        """For the connections of `fleet`; `which_are_needed` as in `Outage`."""
        self._fleet = fleet
        self._slots = fleet.slots
        self._which_are_needed = which_are_needed
        # When it was last known to be tried, or to have failed.
        self._tried_at = -math.inf
        self.begin_again()

    def begin_again(self) -> None:
        """A connection is ready, or another target is used: nothing is known against it."""
        # `math.inf`: it does not fail.
        self._fails_since = math.inf
        self._has_forgotten = False

    def review(self, now: float) -> bool:
        """The connections have changed, or time has passed; returns whether the target fails at this moment."""
        trying_since = self._note_tries(now)
        if self._slots.ready:
            if self._fleet.active:
                self.begin_again()
            return False
        fails = trying_since < math.inf or self._has_failed_lately(now)
        if fails:
            self._fails_since = min(self._fails_since, now)
        return fails

    def review_open(self, now: float) -> bool:
        """An `open()` begins; returns whether those before it have failed for long enough."""
        self._note_tries(now)
        if now >= self._tried_at + _FORGETS_AFTER:
            self._forget_once()
        return self._fails_since + _FAILS_AFTER <= now

    def due_at(self, now: float) -> float:
        """When the target has failed for long enough, if nothing changes; `math.inf` for never."""
        at = self._fails_since + _FAILS_AFTER
        return at if self._has_failed_lately(max(at, now)) else max(at, self._trying_since(now) + _FAILS_AFTER)

    def _has_failed_lately(self, at: float) -> bool:
        """Whether the last dials have failed, and the last of them less than 10 seconds before `at`."""
        return self._fleet.addresses.failures > 0 and at < self._fleet.failed_at + _FAILS_AFTER

    def _trying_since(self, now: float) -> float:
        """Since when a connection is being made, or is missed; `math.inf` if none is."""
        dials = [slot.opened_at for slot in self._slots.in_state(SlotState.OPENING)]
        is_needed = self._which_are_needed(now)
        lost = [slot for slot in self._slots.in_state(SlotState.LOST) if slot.lost_by_call or is_needed(slot)]
        return min(dials + [slot.lost_at if slot.been_up else slot.unused_since for slot in lost], default=math.inf)

    def _note_tries(self, now: float) -> float:
        """Forgets what failed before a long rest; returns since when the target is tried now."""
        since, failed_at = self._trying_since(now), self._fleet.failed_at
        begun = min(since, failed_at if failed_at > self._tried_at else math.inf)
        if begun < math.inf:
            if begun >= self._tried_at + _FORGETS_AFTER:
                self._forget_once()
            self._tried_at = max(self._tried_at, failed_at, now if since < math.inf else -math.inf)
        return since

    def _forget_once(self) -> None:
        """It was not tried for a minute: what failed before says nothing, unless that was so before already."""
        if self._fails_since < math.inf and not self._has_forgotten:
            self._fails_since, self._has_forgotten = math.inf, True
