"""The plan and the results of a benchmark, also as JSON. The keys are stable; docs/reference/command.md lists them."""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib.metadata
import platform
from collections.abc import Sequence
from typing import Any, Final

from .methods import Method
from .recorder import CallRecorder

PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9, 100.0)
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
    """

    method: Method
    timeout: float
    warmup: float
    duration: float
    port: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """The result of one way to call with one number of callers.

    Attributes:
        way: The way's name.
        callers: The number of threads that called.
        recorder: The recorded calls; `None` if this grpcio does not support the way.
        connections: Highest number of TCP connections; `None` if the system does not report them.
        complete: Whether the measurement ran to its end.
    """

    way: str
    callers: int
    recorder: CallRecorder | None
    connections: int | None = None
    complete: bool = True

    @property
    def rate(self) -> float:
        """Completed calls per second."""
        return (
            self.recorder.completed / self.recorder.elapsed
            if self.recorder is not None and self.recorder.elapsed
            else 0.0
        )


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
    """

    target: str
    plan: Plan
    command: str
    results: Sequence[Result]
    interrupted: bool
    began_at: dt.datetime

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
            "results": [_of_result(result) for result in self.results],
        }


def versions() -> dict[str, str]:
    """Returns the versions of the software that was measured."""
    packages = {package: importlib.metadata.version(package) for package in _PACKAGES}
    return {"python": platform.python_version(), **packages, "system": platform.platform(terse=True)}


def _of_result(result: Result) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "way": result.way,
        "concurrency": result.callers,
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
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
