"""What is to be measured, what was, and the same as JSON, with stable keys: docs/reference/command.md lists them."""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib.metadata
import platform
from collections.abc import Sequence
from typing import Any, Final

from .methods import Method
from .tally import Tally

PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9, 100.0)
_PACKAGES = ("grpcpool", "grpcio", "protobuf")


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What each measuring has in common. Durations are seconds.

    Attributes:
        method: What to call.
        timeout: Of each call.
        warmup: How long calls are made that do not count.
        duration: How long calls are counted.
        port: Whose connections to count; `None` if the target has none.
    """

    method: Method
    timeout: float
    warmup: float
    duration: float
    port: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Result:
    """What came of one way with so many callers.

    Attributes:
        way: Its name.
        callers: How many threads called.
        tally: What they counted; `None` if this gRPC has no such way.
        connections: TCP connections at the most; `None` if the system does not tell.
        complete: Whether it was not interrupted.
    """

    way: str
    callers: int
    tally: Tally | None
    connections: int | None = None
    complete: bool = True

    @property
    def rate(self) -> float:
        """Calls that were completed in a second."""
        return self.tally.completed / self.tally.elapsed if self.tally is not None and self.tally.elapsed else 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Account:
    """A whole run.

    Attributes:
        target: As it was given.
        plan: What was to be measured.
        command: The command line.
        results: What was.
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
        """All of it."""
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
    """What it was measured with."""
    told = {package: importlib.metadata.version(package) for package in _PACKAGES}
    return {"python": platform.python_version(), **told, "system": platform.platform(terse=True)}


def _of_result(result: Result) -> dict[str, Any]:
    told: dict[str, Any] = {"way": result.way, "concurrency": result.callers, "available": result.tally is not None}
    tally = result.tally
    if tally is None:
        return told
    latencies = {f"p{percentile:g}": _ms(tally.percentile(percentile)) for percentile in PERCENTILES[:-1]}
    return told | {
        "complete": result.complete,
        "seconds": round(tally.elapsed, 3),
        "completed": tally.completed,
        "failed": tally.failed,
        "failures": dict(tally.failures.most_common()),
        "calls_per_second": round(result.rate, 1),
        "latency_ms": {**latencies, "max": _ms(tally.percentile(100)), "mean": _ms(tally.mean())},
        "connections": result.connections,
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
