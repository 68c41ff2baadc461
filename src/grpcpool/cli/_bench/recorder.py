"""Records calls: every thread records how its calls ended, and one thread processes the records.

Latencies go into a histogram with three significant figures, and into slices of time.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections import Counter, defaultdict, deque
from typing import Final

from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

_MICROSECONDS: Final = 1_000_000
_LONGEST_LATENCY: Final = 3600 * _MICROSECONDS
_SIGNIFICANT_FIGURES: Final = 3
_MAX_SLICES: Final = 60
_SHORTEST_SLICE: Final = 0.1


@dataclasses.dataclass(frozen=True, slots=True)
class Slice:
    """The calls that ended within a slice of time. Durations are seconds.

    Attributes:
        at: The start of the slice, counted from the start of the measurement.
        completed: Number of completed calls.
        failed: Number of failed calls.
        p50: The median latency; `None` if no call was completed.
        p99: The 99th percentile of the latencies; `None` if no call was completed.
    """

    at: float
    completed: int
    failed: int
    p50: float | None
    p99: float | None


class CallRecorder:
    """Counts the calls that end between the end of the warm-up and the end of the measurement."""

    def __init__(self, warmup: float, duration: float) -> None:
        """Counts nothing before `begin`."""
        self.failures: Counter[str] = Counter()
        self.slices: list[Slice] = []
        self._warmup, self._duration = warmup, duration
        self._slice = max(_SHORTEST_SLICE, duration / _MAX_SLICES)
        self._begins = self._ends = math.inf
        self._recorded: deque[tuple[float, float, str | None]] = deque()
        self._histogram = HdrHistogram(1, _LONGEST_LATENCY, _SIGNIFICANT_FIGURES)
        self._open: defaultdict[int, tuple[list[float], list[str]]] = defaultdict(lambda: ([], []))

    def begin(self) -> None:
        """Starts the warm-up."""
        self._begins = time.perf_counter() + self._warmup
        self._ends = self._begins + self._duration

    def stop(self) -> None:
        """Ends the measurement early."""
        self._ends = min(self._ends, time.perf_counter())

    def is_over(self) -> bool:
        """Whether callers should stop."""
        return time.perf_counter() >= self._ends

    def record(self, began: float, failure: str | None) -> None:
        """Records that a call that began at `began` has just ended. Any thread may call it."""
        # Appending to a deque is thread-safe.
        self._recorded.append((began, time.perf_counter(), failure))

    def process(self, *, last: bool = False) -> None:
        """Processes what was recorded since the last call. Only one thread calls it; `last` closes all slices."""
        for _ in range(len(self._recorded)):
            self._count(*self._recorded.popleft())
        # A thread may record a call late, but by less than a slice.
        newest = max(self._open, default=0)
        for index in sorted(self._open):
            if last or index < newest - 1:
                self.slices.append(self._close_slice(index, *self._open.pop(index)))

    @property
    def completed(self) -> int:
        """Number of completed calls."""
        return int(self._histogram.get_total_count())

    @property
    def failed(self) -> int:
        """Number of failed calls."""
        return self.failures.total()

    @property
    def elapsed(self) -> float:
        """Seconds measured so far."""
        return max(0.0, min(time.perf_counter(), self._ends) - self._begins)

    def percentile(self, percentile: float) -> float | None:
        """Returns a percentile of the completed calls' latencies, in seconds; `None` without calls."""
        return self._histogram.get_value_at_percentile(percentile) / _MICROSECONDS if self.completed else None

    def mean(self) -> float | None:
        """Returns the mean latency of the completed calls, in seconds; `None` without calls."""
        return self._histogram.get_mean_value() / _MICROSECONDS if self.completed else None

    def curve(self) -> list[tuple[float, float]]:
        """Returns pairs of percentile and seconds that approach 100, as far as the number of calls supports them."""
        points: list[tuple[float, float]] = []
        steps = int(10 * math.log10(self.completed)) if self.completed else -1
        for step in range(steps + 1):
            percentile = 100 * (1 - 10 ** (-step / 10))
            points.append((percentile, self.percentile(percentile) or 0.0))
        return points

    def _count(self, began: float, ended: float, failure: str | None) -> None:
        if not self._begins <= ended < self._ends:
            return
        latencies, failures = self._open[int((ended - self._begins) / self._slice)]
        if failure is None:
            latencies.append(ended - began)
            self._histogram.record_value(max(1, min(_LONGEST_LATENCY, round((ended - began) * _MICROSECONDS))))
        else:
            failures.append(failure)
            self.failures[failure] += 1

    def _close_slice(self, index: int, latencies: list[float], failures: list[str]) -> Slice:
        at = index * self._slice
        if not latencies:
            return Slice(at, 0, len(failures), None, None)
        ordered = sorted(latencies)
        p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
        return Slice(at, len(ordered), len(failures), statistics.median(ordered), p99)
