"""When to dial again after dialling has failed.

Exponential with full downward jitter on half of the delay: attempt ``n`` comes after ``d/2 .. d`` seconds, where
``d`` doubles from 0.1 s up to 10 s, so that many pools do not return to a server in one wave. While attempts
fail, one is made at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable

FIRST_DELAY = 0.1
LONGEST_DELAY = 10.0
_DOUBLINGS = math.ceil(math.log2(LONGEST_DELAY / FIRST_DELAY))


class Backoff:
    """Counts failures in a row; one success forgets them."""

    def __init__(self, random: Callable[[], float]) -> None:
        """Starts without failures; `random` returns a float from 0 to below 1."""
        self._random = random
        self.failures = 0
        self.retry_at = -math.inf

    def failed(self, now: float) -> float:
        """Notes a failure; returns the seconds until the next attempt is due."""
        longest = min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(self.failures, _DOUBLINGS))
        delay = longest * (1 - self._random() / 2)
        self.failures += 1
        self.retry_at = now + delay
        return delay

    def succeeded(self) -> None:
        """Forgets all failures."""
        self.failures = 0
        self.retry_at = -math.inf
