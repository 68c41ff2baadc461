"""Records calls: every thread records how its calls ended, and one thread processes the records.

All latencies are kept. The calls of each second are counted, too.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter, defaultdict, deque
from typing import Final

from .latencies import Latencies

# A long run has longer slices, so that reports stay small.
_MAX_SLICES: Final = 300
_SHORTEST_SLICE: Final = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Slice:
    """The calls that ended within a slice of time: a second, or more in a run of more than five minutes.

    Attributes:
        at: The start of the slice, in seconds from the start of the measurement.
        seconds: How long the slice is. The last one may be shorter than the others.
        completed: Number of completed calls.
        failed: Number of failed calls.
        p50: The median latency in seconds; `None` if no call was completed.
        p99: The 99th percentile of the latencies, in seconds; `None` if no call was completed.
        offered: Number of calls that were due in the slice; `None` in a closed loop.
        dropped: Number of these that were not made; `None` in a closed loop.
    """

    at: float
    seconds: float
    completed: int
    failed: int
    p50: float | None
    p99: float | None
    offered: int | None = None
    dropped: int | None = None

    @property
    def rate(self) -> float:
        """Completed calls per second."""
        return self.completed / self.seconds


class CallRecorder:
    """Counts the calls that end between the end of the warm-up and the end of the measurement."""

    def __init__(self, warmup: float, duration: float) -> None:
        """Counts nothing before `begin`."""
        self.failures: Counter[str] = Counter()
        self.slices: list[Slice] = []
        self._warmup, self._duration = warmup, duration
        self._slice = max(_SHORTEST_SLICE, math.ceil(duration / _MAX_SLICES))
        self._begins = self._ends = math.inf
        self._recorded: deque[tuple[float, float, str | None]] = deque()
        self._latencies = Latencies()
        self._open: defaultdict[int, tuple[Latencies, list[str]]] = defaultdict(lambda: (Latencies(), []))

    def begin(self) -> float:
        """Starts the warm-up; returns the moment, by `time.perf_counter`."""
        now = time.perf_counter()
        self._begins = now + self._warmup
        self._ends = self._begins + self._duration
        return now

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
        newest = max(self._open, default=-1)
        if last:
            # Seconds in which no call ended have a slice, too.
            newest = max(newest, math.ceil(self.elapsed / self._slice) - 1)
        # A thread may record a call late, but by less than a slice.
        while len(self.slices) < (newest + 1 if last else newest - 1):
            self.slices.append(self._close_slice(len(self.slices)))

    @property
    def completed(self) -> int:
        """Number of completed calls."""
        return len(self._latencies)

    @property
    def completed_in_time(self) -> int:
        """Number of calls that were completed before the end of the measurement."""
        return self.completed

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
        return self._latencies.percentile(percentile)

    def mean(self) -> float | None:
        """Returns the mean latency of the completed calls, in seconds; `None` without calls."""
        return self._latencies.mean()

    def curve(self) -> list[tuple[float, float]]:
        """Returns pairs of percentile and seconds that approach 100, as far as the number of calls supports them."""
        points: list[tuple[float, float]] = []
        steps = int(10 * math.log10(self.completed)) if self.completed else -1
        for step in range(steps + 1):
            percentile = 100 * (1 - 10 ** (-step / 10))
            points.append((percentile, self.percentile(percentile) or 0.0))
        return points

    def _is_counted(self, began: float, ended: float) -> bool:
        del began
        return self._begins <= ended < self._ends

    def _count(self, began: float, ended: float, failure: str | None) -> None:
        if not self._is_counted(began, ended):
            return
        latencies, failures = self._open[int((ended - self._begins) / self._slice)]
        if failure is None:
            latencies.add(ended - began)
            self._latencies.add(ended - began)
        else:
            failures.append(failure)
            self.failures[failure] += 1

    def _close_slice(self, index: int) -> Slice:
        latencies, failures = self._open[index]
        del self._open[index]
        at = index * self._slice
        # The end of the measurement may be within the slice. A call of an open loop may end after it.
        left = self._ends - self._begins - at
        seconds = left if 0 < left < self._slice else self._slice
        return Slice(at, seconds, len(latencies), len(failures), latencies.percentile(50), latencies.percentile(99))
