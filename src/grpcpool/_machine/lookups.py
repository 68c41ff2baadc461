"""When the addresses of a target are looked up.

At first use, and from then on every `every` seconds, give or take a fifth, while the pool is in use. At once, but at
most once a second, after a connection was lost or could not be made: its server may have moved. One look-up is under
way at a time. One that fails is tried again after a pause that doubles from a second.

A look-up that has not returned within `connect_timeout` *hangs*: it counts as failed, and another may begin. Look-ups
are numbered. What one that hangs finds in the end is used, unless a later one has succeeded meanwhile, or another
target is used by now. The time between two doubles with each that hangs in a row, and with each that has not returned
if these are many. So there is always another attempt, and after a day of silence no more than twenty hang.

Until the user's own discovery has found an address, each dial asks for a look-up, and fails with it.

A pool that has not been used since the last look-up *rests*: nothing is looked up, and no address is kept connected,
until it is used again.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .._values.events import LookUpFailed
from .addresses import Addressing
from .effects import Look, Notify, Outbox

# Between two look-ups.
_AT_LEAST = 1.0

# How often that doubles at most; and with which of those that hang, however long ago they began.
_MOST_DOUBLINGS = 20
_MANY = 16

# Of the time between two, so that many processes do not look up at the same time.
_JITTER = 0.2


class LookUps:
    """When one pool looks up its addresses, and whether it is in use."""

    def __init__(
        self,
        outbox: Outbox,
        random: Callable[[], float],
        alarm_at: Callable[[float], None],
        addressing: Addressing,
        *,
        name: str,
        timeout: float,
    ) -> None:
        """Looks up nothing yet.

        Args:
            outbox: For the effect.
            random: Returns a float from 0 to below 1.
            alarm_at: Brings the pool's next deadline forward.
            addressing: Whether and how often to look up. Without look-ups this only knows whether the pool is in use.
            name: The pool's.
            timeout: How long a look-up may take, in seconds: `connect_timeout`.
        """
        self._name = name
        self._timeout = timeout
        self._outbox = outbox
        self._random = random
        self._alarm_at = alarm_at
        self._every = math.inf if addressing.every is None else addressing.every
        self._looked_up = addressing.looked_up
        self.discovered = addressing.discovered
        self.under_way = False
        # Whether connections wait for the first answer; for the first addresses, if these are `discovered`.
        self.awaited = addressing.looked_up
        self.in_use = False
        # The number of the last that has begun, and of the first whose result is still of use: for those before it, a
        # later one has succeeded, or their target is not used now.
        self._begun = self._valid_from = 0
        # When the one under way hangs; those that hang; and how many have in a row.
        self._hangs_at = math.inf
        self._hanging: set[int] = set()
        self._hung = 0
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
        return self._hangs_at if self.under_way else self._due_at

    def used(self, now: float) -> bool:
        """The pool is being used; returns whether it was not before."""
        if self.in_use or self._every == math.inf:
            return False
        self.in_use = True
        self._used_at = now
        self.look_soon(now)
        return True

    @property
    def rests(self) -> bool:
        """Whether the next use is to be reported."""
        return not self.in_use and self._every != math.inf

    def look_soon(self, now: float) -> None:
        """Looks up at once, or as soon as a look-up is allowed."""
        if self._every == math.inf:
            return
        self._wanted = True
        self._due_at = min(self._due_at, max(now, self._next_allowed_at()))
        self._alarm_at(self._due_at)

    def look_first(self, now: float) -> None:
        """A connection waits for the first answer."""
        if not self.under_way:
            self.look_soon(now)

    def tick(self, acquired: int, now: float, *, idle: bool) -> bool:
        """Looks up, if that is due; returns whether the pool has come into use.

        Args:
            acquired: How often places have been acquired in all.
            now: The moment.
            idle: Whether nothing is in flight.
        """
        if self.under_way and self._hangs_at <= now:
            self._hang(now)
        if self.under_way or self._due_at > now:
            return False
        was_in_use = self.in_use
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
        if looks and self._looked_up:
            self._looked_at = now
            self._hangs_at = now + self._timeout
            self._begun += 1
            self._outbox.append(Look(self._begun))
            self.under_way = True
        return self.in_use and not was_in_use

    def answered(self, number: int, now: float) -> bool:
        """That look-up has an answer; returns whether it is to be used."""
        counted_on = self._returned(number)
        if number < self._valid_from:
            return False
        self._valid_from = number
        self._failures = self._hung = 0
        self.awaited = False
        if counted_on or not self.under_way:
            self._over(now + self._pause())
        return True

    def failed(self, number: int, now: float) -> bool:
        """That look-up has failed; returns whether that is new: it has not if it hung, or is of no use any more."""
        if not self._returned(number):
            return False
        self._fail(now)
        return True

    def _returned(self, number: int) -> bool:
        """That look-up has returned; returns whether it was counted on."""
        self._hanging.discard(number)
        return self.under_way and number == self._begun

    def _hang(self, now: float) -> None:
        """The one under way is not counted on any more."""
        self._hanging.add(self._begun)
        self._hung += 1
        self._outbox.append(Notify(LookUpFailed(pool=self._name, error=self.late())))
        self._fail(now)

    def late(self) -> TimeoutError:
        """Why a look-up that hangs has failed."""
        what = "addresses()" if self.discovered else "the look-up"
        return TimeoutError(f"{what} has not returned within connect_timeout, {self._timeout} s")

    def _fail(self, now: float) -> None:
        pause = min(self._every, _AT_LEAST * 2.0**self._failures)
        # Not without limit: the pause grows with its power of two.
        self._failures = min(self._failures + 1, _MOST_DOUBLINGS)
        self.awaited = self.awaited and self.discovered
        self._over(now + pause)

    def _over(self, next_at: float) -> None:
        self.under_way = False
        # A loss meanwhile has brought it forward: the answer may be older.
        self._due_at = next_at if not self._wanted else min(self._due_at, next_at)
        if self._hanging:
            self._due_at = max(self._due_at, self._next_allowed_at())
        self._alarm_at(self._due_at)

    def _next_allowed_at(self) -> float:
        doublings = max(0, min(max(self._hung, len(self._hanging) - _MANY), _MOST_DOUBLINGS))
        return self._looked_at + _AT_LEAST * 2.0**doublings

    def switch(self, now: float) -> None:
        """Another target is used: what is looked up for the one before is of no use."""
        self._valid_from = self._begun + 1
        if self.under_way:
            self._hanging.add(self._begun)
            self.under_way = False
        self._hung = 0
        if len(self._hanging) <= _MANY:
            self._looked_at = -math.inf
        self.awaited = self._looked_up
        self._wanted = True
        self._due_at = max(now, self._next_allowed_at())
        self._alarm_at(self._due_at)

    def rest(self) -> None:
        """There are no connections: the next use will ask for one."""
        self.in_use = self._wanted = False
        self._due_at = math.inf

    def close(self) -> None:
        """The pool is closed: nothing more is looked up, whatever is under way."""
        self.rest()
        self._hangs_at = math.inf

    def _pause(self) -> float:
        return self._every * (1 + _JITTER * (2 * self._random() - 1))
