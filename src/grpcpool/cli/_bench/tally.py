"""A tally of calls: any thread notes how his ended, one digests what was noted.

Latencies are in a histogram of three significant figures. What happened when is kept by slices of time.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections import Counter, defaultdict, deque
from typing import Final

from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

_MICRO: Final = 1_000_000
_LONGEST: Final = 3600 * _MICRO
_FIGURES: Final = 3
_SLICES: Final = 60
_SHORTEST_SLICE: Final = 0.1


@dataclasses.dataclass(frozen=True, slots=True)
class Slice:
    """What ended within a slice of time. Durations are seconds.

    Attributes:
        at: When it began, since the measuring did.
        completed: Calls.
        failed: Calls.
        p50: The median latency; `None` if none was completed.
        p99: Its 99th percentile.
    """

    at: float
    completed: int
    failed: int
    p50: float | None
    p99: float | None


class Tally:
    """Counts what ends between the end of the warm-up and the end of the measuring."""

    def __init__(self, warmup: float, duration: float) -> None:
        """Waits for `begin`."""
        self.failures: Counter[str] = Counter()
        self.slices: list[Slice] = []
        self._warmup, self._duration = warmup, duration
        self._slice = max(_SHORTEST_SLICE, duration / _SLICES)
        self._begins = self._ends = math.inf
        self._noted: deque[tuple[float, float, str | None]] = deque()
        self._histogram = HdrHistogram(1, _LONGEST, _FIGURES)
        self._open: defaultdict[int, tuple[list[float], list[str]]] = defaultdict(lambda: ([], []))

    def begin(self) -> None:
        """Begins with the warm-up."""
        self._begins = time.perf_counter() + self._warmup
        self._ends = self._begins + self._duration

    def stop(self) -> None:
        """Ends the measuring before its time."""
        self._ends = min(self._ends, time.perf_counter())

    def is_over(self) -> bool:
        """Whether to make no more calls."""
        return time.perf_counter() >= self._ends

    def note(self, began: float, failure: str | None) -> None:
        """A call that began then has just ended; called by any thread."""
        # To append to a deque is safe for threads.
        self._noted.append((began, time.perf_counter(), failure))

    def digest(self, *, last: bool = False) -> None:
        """Takes in what was noted; called by one thread. The last time closes all slices."""
        for _ in range(len(self._noted)):
            self._take(*self._noted.popleft())
        # A thread may be late with its note, but not by a slice.
        newest = max(self._open, default=0)
        for index in sorted(self._open):
            if last or index < newest - 1:
                self.slices.append(self._closed(index, *self._open.pop(index)))

    @property
    def completed(self) -> int:
        """Calls that were completed."""
        return int(self._histogram.get_total_count())

    @property
    def failed(self) -> int:
        """Calls that failed."""
        return self.failures.total()

    @property
    def elapsed(self) -> float:
        """Seconds that were measured so far."""
        return max(0.0, min(time.perf_counter(), self._ends) - self._begins)

    def percentile(self, percentile: float) -> float | None:
        """Seconds that so many per cent of the completed calls took at most; `None` if there are none."""
        return self._histogram.get_value_at_percentile(percentile) / _MICRO if self.completed else None

    def mean(self) -> float | None:
        """Seconds that the completed calls took on average; `None` if there are none."""
        return self._histogram.get_mean_value() / _MICRO if self.completed else None

    def curve(self) -> list[tuple[float, float]]:
        """Percentiles and seconds, ever closer to 100, as far as there are calls to tell."""
        points: list[tuple[float, float]] = []
        steps = int(10 * math.log10(self.completed)) if self.completed else -1
        for step in range(steps + 1):
            percentile = 100 * (1 - 10 ** (-step / 10))
            points.append((percentile, self.percentile(percentile) or 0.0))
        return points

    def _take(self, began: float, ended: float, failure: str | None) -> None:
        if not self._begins <= ended < self._ends:
            return
        latencies, failures = self._open[int((ended - self._begins) / self._slice)]
        if failure is None:
            latencies.append(ended - began)
            self._histogram.record_value(max(1, min(_LONGEST, round((ended - began) * _MICRO))))
        else:
            failures.append(failure)
            self.failures[failure] += 1

    def _closed(self, index: int, latencies: list[float], failures: list[str]) -> Slice:
        at = index * self._slice
        if not latencies:
            return Slice(at, 0, len(failures), None, None)
        ordered = sorted(latencies)
        p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
        return Slice(at, len(ordered), len(failures), statistics.median(ordered), p99)
