"""How long callers waited of late: a histogram for each slice of the last minutes, from which percentiles are read.

A busy pool may have thousands of waits a second, so the single ones are not kept. Buckets grow by 5 %, so a percentile
is at most 5 % too high; the number of waits is exact. Memory is bounded by slices times buckets, whatever the load.

Not thread-safe: `PoolHistory` calls it under its lock.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, deque

SLICES = 60
"""The number of slices that the covered time is divided into."""

_SHORTEST = 0.0001
"""The upper bound of the first bucket, in seconds: shorter waits do not matter."""

_GROWTH = 1.05
"""The ratio of two buckets' upper bounds."""


@dataclasses.dataclass(frozen=True, slots=True)
class WaitSummary:
    """The waits that ended in the last `seconds`; the percentiles are `None` if there were none."""

    count: int
    timed_out: int
    seconds: float
    p50: float | None
    p90: float | None
    p99: float | None


class _Slice:
    """The waits that ended within one slice of time."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.timed_out = 0
        self.buckets: Counter[int] = Counter()


class Waits:
    """The waits of the last `keep` seconds. Moments are passed in, in order; all of them from one clock."""

    def __init__(self, keep: float, now: float) -> None:
        """Records the waits that end from `now` on."""
        self._width = keep / SLICES
        self._began = now
        self._slices: deque[_Slice] = deque(maxlen=SLICES + 1)

    def add(self, waited: float, now: float, *, timed_out: bool = False) -> None:
        """Adds a wait of `waited` seconds that ended at `now`, with a place or without one."""
        number = math.floor(now / self._width)
        if not self._slices or self._slices[-1].number < number:
            self._slices.append(_Slice(number))
        current = self._slices[-1]
        current.timed_out += timed_out
        current.buckets[_bucket(waited)] += 1

    def summary(self, now: float) -> WaitSummary:
        """Returns the number of waits and their percentiles, over whole slices and the current one."""
        oldest = math.floor(now / self._width) - SLICES + 1
        recent = [each for each in self._slices if each.number >= oldest]
        buckets: Counter[int] = Counter()
        for each in recent:
            buckets.update(each.buckets)
        ordered = sorted(buckets.items())
        count = buckets.total()
        p50, p90, p99 = (_percentile(ordered, count, part) for part in (0.5, 0.9, 0.99))
        covered = now - max(self._began, oldest * self._width)
        return WaitSummary(count, sum(each.timed_out for each in recent), covered, p50, p90, p99)


def _bucket(waited: float) -> int:
    return max(0, math.ceil(math.log(max(waited, _SHORTEST) / _SHORTEST, _GROWTH)))


def _percentile(ordered: list[tuple[int, int]], count: int, part: float) -> float | None:
    """Returns the smallest upper bound of a bucket that at least `part` of the waits do not exceed."""
    passed = 0
    for bucket, number in ordered:
        passed += number
        if passed >= part * count:
            return _SHORTEST * _GROWTH**bucket
    return None
