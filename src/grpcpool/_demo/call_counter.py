"""Counts calls, how they ended and how long they took. Each call that begins must end: the difference is lost."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

import grpc

from grpcpool import PoolStats
from grpcpool._grpc.status import code_of, is_refused_stream
from grpcpool._shared.pool_base import PoolBase

UNLIMITED: Final = 10**9

# Nothing takes as long, on any machine: callers that still make calls then stop.
_WITHIN: Final = 30.0


class Phase:
    """The calls that began between two moments. Thread-safe."""

    def __init__(self, calls: int) -> None:
        """At most so many calls begin."""
        self.calls = calls
        self.begun = 0
        self.latencies: list[float] = []
        self.failures: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def completed(self) -> int:
        """The calls that got an answer."""
        return len(self.latencies)

    @property
    def failed(self) -> int:
        """The calls that failed."""
        return self.failures.total()

    @property
    def ended(self) -> int:
        """The calls that got an answer or failed."""
        return self.completed + self.failed

    @contextlib.contextmanager
    def call(self) -> Iterator[list[bytes]]:
        """Counts how the ``with`` block ends, which is one call; it puts the answer into the list."""
        began = time.monotonic()
        answer: list[bytes] = []
        failure = None
        try:
            yield answer
        except Exception as error:  # noqa: BLE001 -- every failure is counted
            failure = failure_name(error)
        took = time.monotonic() - began
        with self._lock:
            if failure is None:
                self.latencies.append(took)
                self.answers.update(one.decode() for one in answer)
            else:
                self.failures[failure] += 1

    def percentiles(self) -> tuple[float, float] | None:
        """Returns p50 and p99 of the calls that got an answer; `None` if these are fewer than two."""
        if self.completed <= 1:
            return None
        cuts = statistics.quantiles(self.latencies, n=100, method="inclusive")
        return cuts[49], cuts[98]


class CallCounter:
    """Counts the calls made in one way, in phases. Thread-safe."""

    def __init__(self, calls: int = UNLIMITED) -> None:
        """Begins the first phase, of at most so many calls."""
        self.phase = Phase(calls)
        self.phases = [self.phase]
        # A pool's stats after the last call.
        self.at_rest: PoolStats | None = None
        self._ends = time.monotonic() + _WITHIN
        self._lock = threading.Lock()

    def begin_phase(self, calls: int) -> Phase:
        """Counts the calls that begin from now on by themselves; callers stop when `calls` have begun."""
        phase = Phase(calls)
        with self._lock:
            self.phase = phase
            self.phases.append(phase)
        return phase

    def take(self) -> Phase | None:
        """Returns the phase in which a call begins now; `None` if no more calls are to be made."""
        with self._lock:
            phase = self.phase
            if phase.begun >= phase.calls or time.monotonic() >= self._ends:
                return None
            phase.begun += 1
            return phase

    def stop(self) -> None:
        """No more calls are to be made."""
        self._ends = 0.0

    @property
    def over(self) -> bool:
        """Whether no more calls are to be made."""
        return self.phase.begun >= self.phase.calls or time.monotonic() >= self._ends

    @property
    def ended(self) -> int:
        """The calls of all phases that got an answer or failed."""
        return sum(phase.ended for phase in self.phases)

    @property
    def failed(self) -> int:
        """The calls of all phases that failed."""
        return sum(phase.failed for phase in self.phases)

    @property
    def unended(self) -> int:
        """The calls that began and neither got an answer nor failed."""
        return sum(phase.begun - phase.ended for phase in self.phases)

    def problems(self) -> list[str]:
        """Describes what was lost on a pool, after the last call."""
        lost = [f"{self.unended} calls have no outcome"] if self.unended else []
        stats = self.at_rest
        if stats is not None and stats.in_flight + stats.waiting:
            lost.append(f"{stats.in_flight} in flight and {stats.waiting} waiting after the last call")
        return lost


def at_rest(channel: object) -> bool:
    """Whether `channel` is a pool in which no call is in flight or waiting, or not a pool."""
    if not isinstance(channel, PoolBase):
        return True
    stats = channel.stats()
    return not stats.in_flight + stats.waiting


def stats_of(channel: object) -> PoolStats | None:
    """Returns the stats if `channel` is a pool."""
    return channel.stats() if isinstance(channel, PoolBase) else None


def failure_name(error: Exception) -> str:
    """Returns a short name for the failure of a call."""
    if isinstance(error, grpc.RpcError) and (code := code_of(error)) is not None:
        return code.name + (" (stream refused)" if is_refused_stream(error) else "")
    return type(error).__name__
