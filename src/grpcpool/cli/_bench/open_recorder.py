"""Records the calls of an open loop: also those that were due and not made."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter, deque

from .recorder import CallRecorder, Slice


class OpenLoopRecorder(CallRecorder):
    """Counts the calls that are due between the end of the warm-up and the end of the measurement.

    A call counts whenever it ends, so that slow calls are not left out. Its latency begins when it was due, not when it
    was made: a client or server that stands still delays all calls that are due meanwhile, and each of them shows it.

    Each call that was due is counted exactly once: as completed, failed, dropped or unfinished.
    """

    def __init__(self, warmup: float, duration: float) -> None:
        """Counts nothing before `begin`."""
        super().__init__(warmup, duration)
        self.longest_lag = 0.0
        self._completed_in_time = 0
        self._due: deque[tuple[float, float | None]] = deque()
        self._offered: Counter[int] = Counter()
        self._dropped: Counter[int] = Counter()

    def start(self, due: float) -> None:
        """Records that a call which was due at `due` is made now."""
        self._due.append((due, time.perf_counter() - due))

    def drop(self, due: float) -> None:
        """Records that a call which was due at `due` is not made."""
        self._due.append((due, None))

    def process(self, *, last: bool = False) -> None:
        """Same as `CallRecorder.process`; the last time it also counts the offered calls of each slice."""
        for _ in range(len(self._due)):
            self._count_due(*self._due.popleft())
        super().process(last=last)
        if last:
            self.slices = [self._with_offered(index, part) for index, part in enumerate(self.slices)]

    @property
    def completed_in_time(self) -> int:
        """Number of calls that were completed during the measurement.

        Those that were due in the warm-up count: they stand for those that are due late and end after the measurement.
        """
        return self._completed_in_time

    @property
    def offered(self) -> int:
        """Number of calls that were due."""
        return self._offered.total()

    @property
    def offered_rate(self) -> float:
        """Calls per second that were due."""
        return self.offered / self.elapsed if self.elapsed else 0.0

    @property
    def dropped(self) -> int:
        """Number of calls that were due and were not made."""
        return self._dropped.total()

    @property
    def unfinished(self) -> int:
        """Number of calls that had not ended when the run did."""
        return self.offered - self.dropped - self.completed - self.failed

    def _count_due(self, due: float, lag: float | None) -> None:
        if not self._begins <= due < self._begins + self._duration:
            return
        index = int((due - self._begins) / self._slice)
        self._offered[index] += 1
        if lag is None:
            self._dropped[index] += 1
        else:
            self.longest_lag = max(self.longest_lag, lag)

    def _is_counted(self, began: float, ended: float) -> bool:
        del ended
        return self._begins <= began < self._begins + self._duration

    def _count(self, began: float, ended: float, failure: str | None) -> None:
        super()._count(began, ended, failure)
        if failure is None and self._begins <= ended < self._ends:
            self._completed_in_time += 1

    def _with_offered(self, index: int, part: Slice) -> Slice:
        return dataclasses.replace(part, offered=self._offered[index], dropped=self._dropped[index])
