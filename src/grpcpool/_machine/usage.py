"""Whether a pool is in use, or rests.

Whenever its addresses are due to be looked up, the pool asks whether a place is in flight, or was acquired since the
last time. If not, it *rests*: nothing is looked up, and no address is kept connected, until it is used again::

               it is used
    RESTS -----------------------> IN USE
      ^                              |
      +------------------------------+
        it was not used between two look-ups, or it has no connections any more

A pool whose addresses are looked up once, or never, is in neither state.
"""

from __future__ import annotations

import math


class Usage:
    """Whether one pool is in use."""

    def __init__(self, every: float) -> None:
        """It rests; `every`: the most seconds between two look-ups, `math.inf` if there is one at most."""
        self._every = every
        self.in_use = False
        # When the pool was last known to be used.
        self._used_at = -math.inf
        # How often places had been acquired when a look-up was last due.
        self._acquired = 0

    @property
    def rests(self) -> bool:
        """Whether the next use is to be reported."""
        return not self.in_use and self._every < math.inf

    def begin(self, now: float) -> bool:
        """The pool is being used; returns whether it has rested."""
        if not self.rests:
            return False
        self.in_use, self._used_at = True, now
        return True

    def look(self, acquired: int, now: float, *, idle: bool, wanted: bool) -> bool:
        """A look-up is due; returns whether the pool was used since the last.

        Args:
            acquired: How often places have been acquired in all.
            now: The moment.
            idle: Whether nothing is in flight.
            wanted: Whether it is due because of a loss, or of a failed dial: that says nothing about the use.
        """
        is_used = not idle or acquired != self._acquired
        self._acquired = acquired
        if is_used:
            self._used_at = now
        self.in_use = is_used or (wanted and self.in_use and now < self._used_at + self._every)
        return is_used

    def rest(self) -> None:
        """It rests from now on."""
        self.in_use = False
