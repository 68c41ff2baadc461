"""When the addresses of a target are looked up.

At first use, and from then on every `every` seconds, give or take a fifth, while the pool is in use (`usage.py`). At
once, but at most once a second, after a connection was lost or could not be made: its server may have moved. One that
fails is tried again after a pause that doubles from a second.

Look-ups are numbered. One is under way at a time; one that has not returned within `connect_timeout` *hangs*: it counts
as failed, and another may begin::

           begins                 returns
    DUE -----------> UNDER WAY ------------> RETURNED
                         |                      ^
                         | takes too long, or   | returns
                         | its target is left   |
                         +--------> HANGS ------+

What one that hangs finds in the end is used, unless a later one has succeeded meanwhile, or another target is used by
now. The time between two doubles with each that hangs in a row, and with each that has not returned if these are many.
So there is always another attempt, and after a day of silence no more than twenty hang.

Until the user's own discovery has found an address, each dial asks for a look-up, and fails with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .._values.events import LookUpFailed
from .addresses import Addressing
from .effects import Look, Notify, Outbox
from .usage import Usage

# Between two look-ups.
_AT_LEAST = 1.0

# How often that doubles at most; and with which of those that hang, however long ago they began.
_MOST_DOUBLINGS = 20
_MANY = 16

# Of the time between two, so that many processes do not look up at the same time.
_JITTER = 0.2


class _Attempts:
    """The look-ups that have begun: the one under way, if there is one, and those that hang."""

    def __init__(self) -> None:
        # The last: its number, and when it began.
        self.begun, self.begun_at = 0, -math.inf
        # When it hangs, if it is under way; else `math.inf`.
        self.hangs_at = math.inf
        # Those that hang, and how many have in a row.
        self.hanging: set[int] = set()
        self.hung = 0
        # The first whose result is used: for those before, a later one has succeeded, or their target has been left.
        self.valid_from = 0

    @property
    def under_way(self) -> bool:
        return self.hangs_at < math.inf

    def next_at(self) -> float:
        """When the next may begin."""
        doublings = min(max(self.hung, len(self.hanging) - _MANY), _MOST_DOUBLINGS)
        return self.begun_at + _AT_LEAST * 2.0**doublings

    def begin(self, now: float) -> int:
        """Returns the number of the next. It is under way once `hangs_at` is set."""
        self.begun_at = now
        self.begun += 1
        return self.begun

    def returned(self, number: int) -> bool:
        """Returns whether it was under way."""
        self.hanging.discard(number)
        is_last = self.under_way and number == self.begun
        if is_last:
            self.hangs_at = math.inf
        return is_last

    def succeeded(self, number: int) -> None:
        """What it found is used."""
        self.valid_from, self.hung = number, 0

    def hang(self) -> None:
        """The one under way hangs."""
        self.hanging.add(self.begun)
        self.hangs_at = math.inf
        self.hung += 1

    def leave(self) -> None:
        """Another target is used: the results of these are of no use."""
        self.valid_from = self.begun + 1
        if self.under_way:
            self.hang()
        self.hung = 0
        if len(self.hanging) <= _MANY:
            self.begun_at = -math.inf


class LookUps:
    """When one pool looks up its addresses.

    Attributes:
        usage: Whether the pool is in use.
        discovered: Whether only look-ups find its addresses.
        awaited: Whether connections wait for the first answer; for the first addresses, if these are `discovered`.
    """

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
        self._attempts = _Attempts()
        self.usage = Usage(self._every * (1 + _JITTER))
        self.discovered = addressing.discovered
        self.awaited = addressing.looked_up
        # When the next is due; whether it is wanted, even if the pool is not used.
        self._due_at, self._wanted = math.inf, False
        # How many have failed in a row.
        self._failures = 0

    @property
    def under_way(self) -> bool:
        """Whether one is counted on."""
        return self._attempts.under_way

    def next_at(self) -> float:
        """When `tick` is due."""
        return self._attempts.hangs_at if self.under_way else self._due_at

    def look_soon(self, now: float) -> None:
        """Looks up at once, or as soon as a look-up is allowed."""
        if self._every == math.inf:
            return
        self._wanted = True
        self._due_at = min(self._due_at, max(now, self._attempts.next_at()))
        self._alarm_at(self._due_at)

    def look_first(self, now: float) -> None:
        """A connection waits for the first answer."""
        if not self.under_way:
            self.look_soon(now)

    def tick(self, acquired: int, now: float, *, idle: bool) -> bool:
        """Looks up, if that is due; returns whether the pool has come into use: `acquired` and `idle` as in `Usage`."""
        if self._attempts.hangs_at <= now:
            self._hang(now)
        if self.next_at() > now:
            return False
        rested = not self.usage.in_use
        is_used = self.usage.look(acquired, now, idle=idle, wanted=self._wanted)
        looks = self._looked_up and (is_used or self._wanted)
        self._wanted = False
        self._due_at = now + self._pause()
        if looks:
            # In this order: it is not waited for if an interruption has kept it from being asked for.
            self._outbox.append(Look(self._attempts.begin(now)))
            self._attempts.hangs_at = now + self._timeout
        return rested and self.usage.in_use

    def answered(self, number: int, now: float) -> bool:
        """That look-up has an answer; returns whether it is to be used."""
        self._attempts.returned(number)
        if number < self._attempts.valid_from:
            return False
        self._attempts.succeeded(number)
        self._failures = 0
        self.awaited = False
        if not self.under_way:
            self._over(now + self._pause())
        return True

    def failed(self, number: int, now: float) -> bool:
        """That look-up has failed; returns whether that is new: it has not if it hung, or is of no use any more."""
        if not self._attempts.returned(number):
            return False
        self._fail(now)
        return True

    def _hang(self, now: float) -> None:
        """The one under way is not counted on any more."""
        self._attempts.hang()
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
        """None is under way: decides when the next is due."""
        # A loss meanwhile has brought it forward: the answer may be older.
        self._due_at = next_at if not self._wanted else min(self._due_at, next_at)
        if self._attempts.hanging:
            self._due_at = max(self._due_at, self._attempts.next_at())
        self._alarm_at(self._due_at)

    def switch(self, now: float) -> None:
        """Another target is used."""
        self._attempts.leave()
        self.awaited = self._looked_up
        self._wanted = True
        self._due_at = max(now, self._attempts.next_at())
        self._alarm_at(self._due_at)

    def rest(self) -> None:
        """There are no connections: the next use will ask for one."""
        self.usage.rest()
        self._due_at, self._wanted = math.inf, False

    def close(self) -> None:
        """The pool is closed: nothing more is looked up, whatever is under way."""
        self.rest()
        self._attempts.hangs_at = math.inf

    def _pause(self) -> float:
        return self._every * (1 + _JITTER * (2 * self._random() - 1))
