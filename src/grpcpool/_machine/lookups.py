"""When the addresses of a target are looked up.

At first use, and from then on every `every` seconds, give or take a fifth, while the pool is in use. At once, but at
most once a second, after a connection was lost or could not be made: its server may have moved. One look-up is under
way at a time. One that fails is tried again after a pause that doubles from a second.

Until the user's own discovery has found an address, each dial asks for a look-up, and fails with it.

A pool that has not been used since the last look-up *rests*: nothing is looked up, and no address is kept connected,
until it is used again.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .addresses import Leads
from .effects import Look, Outbox

# Between two look-ups.
_AT_LEAST = 1.0

# Of the time between two, so that many processes do not look up at the same time.
_JITTER = 0.2


class LookUps:
    """When one pool looks up its addresses, and whether it is in use."""

    def __init__(
        self,
        outbox: Outbox,
        random: Callable[[], float],
        alarm_at: Callable[[float], None],
        leads: Leads,
    ) -> None:
        """Looks up nothing yet.

        Args:
            outbox: For the effect.
            random: Returns a float from 0 to below 1.
            alarm_at: Brings the pool's next deadline forward.
            leads: How often to look up. If addresses are not looked up, only whether the pool is in use is of interest.
        """
        self._outbox = outbox
        self._random = random
        self._alarm_at = alarm_at
        self._every = math.inf if leads.every is None else leads.every
        self._looks = leads.looks
        self.discovered = leads.discovered
        self.under_way = False
        # Whether connections wait for the first answer; for the first addresses, if these are `discovered`.
        self.awaited = leads.looks
        self.in_use = False
        # Whether the one under way is for a target that is not used any more.
        self._stale = False
        self._wanted = False
        self._failures = 0
        self._looked_at = -math.inf
        self._due_at = math.inf
        # When the pool was last known to be in use.
        self._used_at = -math.inf
        # How often places had been acquired at the last look.
        self._acquired = 0

    def next_at(self) -> float:
        """When `tick` is due."""
        return math.inf if self.under_way else self._due_at

    def used(self, now: float) -> bool:
        """The pool is being used; returns whether it was not before."""
        if self.in_use or self._every == math.inf:
            return False
        self.in_use = True
        self._used_at = now
        self.want(now)
        return True

    @property
    def rests(self) -> bool:
        """Whether the next use is to be reported."""
        return not self.in_use and self._every != math.inf

    def want(self, now: float) -> None:
        """Looks up soon."""
        if self._every == math.inf:
            return
        self._wanted = True
        self._due_at = min(self._due_at, max(now, self._looked_at + _AT_LEAST))
        self._alarm_at(self._due_at)

    def want_first(self, now: float) -> None:
        """A connection waits for the first answer."""
        if not self.under_way:
            self.want(now)

    def tick(self, acquired: int, now: float, *, idle: bool) -> None:
        """Looks up, if that is due.

        Args:
            acquired: How often places have been acquired in all.
            now: The moment.
            idle: Whether nothing is in flight.
        """
        if self.under_way or self._due_at > now:
            return
        used = not idle or acquired != self._acquired
        self._acquired = acquired
        looks = used or self._wanted
        if used:
            self._used_at = now
        # What is looked up because of a loss, or of a failed dial, says nothing about the use.
        lately = now < self._used_at + self._every * (1 + _JITTER)
        self.in_use = used or (self._wanted and self.in_use and lately)
        self._wanted = False
        self._due_at = now + self._pause()
        if looks and self._looks:
            self._looked_at = now
            self._outbox.append(Look())
            self.under_way = True

    def answered(self, now: float) -> None:
        """The look-up has an answer."""
        self._failures = 0
        self.awaited = False
        self._over(now + self._pause())

    def failed(self, now: float) -> None:
        """The look-up has failed."""
        pause = min(self._every, _AT_LEAST * 2.0**self._failures)
        # Not without limit: the pause grows with its power of two.
        self._failures = min(self._failures + 1, 20)
        self.awaited = self.awaited and self.discovered
        self._over(now + pause)

    def _over(self, next_at: float) -> None:
        self.under_way = False
        # A loss meanwhile has brought it forward: the answer may be older.
        self._due_at = next_at if not self._wanted else min(self._due_at, next_at)
        self._alarm_at(self._due_at)

    def switch(self, now: float) -> None:
        """Another target is used: what is looked up for the one before is of no use."""
        self._stale = self.under_way
        self.awaited = self._looks
        self._wanted = True
        self._looked_at = -math.inf
        self._due_at = now
        self._alarm_at(now)

    def is_stale(self, now: float) -> bool:
        """Whether the answer that has come is for a target that is not used any more; then looks up again."""
        if not self._stale:
            return False
        self.under_way = self._stale = False
        self._due_at = now
        self._alarm_at(now)
        return True

    def rest(self) -> None:
        """There are no connections: the next use will ask for one."""
        self.in_use = self._wanted = False
        self._due_at = math.inf

    def _pause(self) -> float:
        return self._every * (1 + _JITTER * (2 * self._random() - 1))
