"""The latencies of calls, all of them kept, so that every percentile is exact.

Eight bytes each: a million calls take eight megabytes.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable


class Latencies:
    """Durations in seconds, with exact percentiles (nearest rank). One thread uses it."""

    def __init__(self, seconds: Iterable[float] = ()) -> None:
        """Holds these durations."""
        self._seconds = array("d", seconds)
        self._are_sorted = False

    def __len__(self) -> int:
        """Returns the number of durations."""
        return len(self._seconds)

    def add(self, seconds: float) -> None:
        """Adds one."""
        self._seconds.append(seconds)
        self._are_sorted = False

    def percentile(self, percentile: float) -> float | None:
        """Returns the shortest duration that so many percent of all do not exceed; `None` if there are none.

        The first call after an addition sorts all of them.
        """
        if not self._seconds:
            return None
        if not self._are_sorted:
            self._seconds = array("d", sorted(self._seconds))
            self._are_sorted = True
        # Rounded first: 99.9 % of 1000 is slightly above 999 as a float.
        rank = math.ceil(round(len(self._seconds) * percentile / 100, 6))
        return self._seconds[max(0, rank - 1)]

    def mean(self) -> float | None:
        """Returns the mean; `None` if there are none."""
        return math.fsum(self._seconds) / len(self._seconds) if self._seconds else None
