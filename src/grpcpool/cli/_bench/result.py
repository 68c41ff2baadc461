"""The plan and the results of a benchmark, also as JSON. The keys are stable; docs/reference/command.md lists them."""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib.metadata
import platform
from collections.abc import Sequence
from typing import Any, Final

from .levels import Level
from .metadata import Metadata
from .methods import Method
from .open_recorder import OpenLoopRecorder
from .recorder import CallRecorder, Slice

PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9, 100.0)
MAX_IN_FLIGHT: Final = 10_000
"""The default of `Plan.max_in_flight`."""

_PACKAGES = ("grpcpool", "grpcio", "protobuf")


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What all measurements have in common. Durations are seconds.

    Attributes:
        method: The method to call.
        timeout: The timeout of each call.
        warmup: How long calls are made before they count.
        duration: How long calls are counted.
        port: The port whose connections are counted; `None` if the target has none.
        metadata: What is sent with each call. Its values are not printed.
        seed: The seed of the schedules of open loops.
        max_in_flight: Calls beyond which an open loop drops those that are due.
    """

    method: Method
    timeout: float
    warmup: float
    duration: float
    port: int | None
    metadata: Metadata = dataclasses.field(default=(), repr=False)
    seed: int = 1
    max_in_flight: int = MAX_IN_FLIGHT


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """The result of one way to call at one level of load.

    Attributes:
        way: The way's name.
        level: The load.
        recorder: The recorded calls; `None` if this grpcio does not support the way.
        connections: Highest number of TCP connections; `None` if the system does not report them.
        complete: Whether the measurement ran to its end.
    """

    way: str
    level: Level
    recorder: CallRecorder | None
    connections: int | None = None
    complete: bool = True

    @property
    def rate(self) -> float:
        """Completed calls per second."""
        recorder = self.recorder
        return 0.0 if recorder is None or not recorder.elapsed else recorder.completed_in_time / recorder.elapsed

    @property
    def offered(self) -> OpenLoopRecorder | None:
        """The recorder, if it is that of an open loop."""
        return self.recorder if isinstance(self.recorder, OpenLoopRecorder) else None


@dataclasses.dataclass(frozen=True, slots=True)
class BenchRun:
    """A whole run of the benchmark.

    Attributes:
        target: The target as the user typed it.
        plan: What to measure.
        command: The command line.
        results: The results so far.
        interrupted: Whether it ended early.
        began_at: When it began.
        capacity: The measured capacity; `None` if no rate is a percentage.
    """

    target: str
    plan: Plan
    command: str
    results: Sequence[Result]
    interrupted: bool
    began_at: dt.datetime
    capacity: Result | None = None

    @property
    def is_open(self) -> bool:
        """Whether it has open loops."""
        return any(result.level.is_open for result in self.results)

    def as_json(self) -> dict[str, Any]:
        """Returns the JSON object."""
        return {
            "target": self.target,
            "method": self.plan.method.path,
            "command": self.command,
            "began_at": self.began_at.isoformat(timespec="seconds"),
            "versions": versions(),
            "warmup_s": self.plan.warmup,
            "duration_s": self.plan.duration,
            "interrupted": self.interrupted,
            "metadata": [name for name, _ in self.plan.metadata],
            "seed": self.plan.seed,
            "max_in_flight": self.plan.max_in_flight,
            "capacity": None if self.capacity is None else _of_result(self.capacity),
            "results": [_of_result(result) for result in self.results],
        }


def versions() -> dict[str, str]:
    """Returns the versions of the software that was measured."""
    packages = {package: importlib.metadata.version(package) for package in _PACKAGES}
    return {"python": platform.python_version(), **packages, "system": platform.platform(terse=True)}


def _of_result(result: Result) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "way": result.way,
        "concurrency": result.level.callers,
        "rate": result.level.rate,
        "percent_of_capacity": result.level.share,
        "available": result.recorder is not None,
    }
    recorder = result.recorder
    if recorder is None:
        return fields
    latencies = {f"p{percentile:g}": _ms(recorder.percentile(percentile)) for percentile in PERCENTILES[:-1]}
    return fields | {
        "complete": result.complete,
        "seconds": round(recorder.elapsed, 3),
        "completed": recorder.completed,
        "failed": recorder.failed,
        "failures": dict(recorder.failures.most_common()),
        "calls_per_second": round(result.rate, 1),
        "latency_ms": {**latencies, "max": _ms(recorder.percentile(100)), "mean": _ms(recorder.mean())},
        "connections": result.connections,
        **_of_open_loop(result),
        "over_time": [_of_slice(part) for part in recorder.slices],
    }


def _of_open_loop(result: Result) -> dict[str, Any]:
    """Returns the fields that are `None` in a closed loop."""
    recorder = result.offered
    if recorder is None:
        return dict.fromkeys(("offered", "dropped", "unfinished", "offered_per_second", "longest_lag_ms"))
    return {
        "offered": recorder.offered,
        "dropped": recorder.dropped,
        "unfinished": recorder.unfinished,
        "offered_per_second": round(recorder.offered_rate, 1),
        "longest_lag_ms": _ms(recorder.longest_lag),
    }


def _of_slice(part: Slice) -> dict[str, Any]:
    return {
        "at_s": part.at,
        "seconds": round(part.seconds, 3),
        "offered": part.offered,
        "completed": part.completed,
        "failed": part.failed,
        "dropped": part.dropped,
        "p50_ms": _ms(part.p50),
        "p99_ms": _ms(part.p99),
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
