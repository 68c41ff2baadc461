"""What was found, as JSON. The keys are stable: docs/reference/command.md lists them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from .._target import Target
from .advice import Advice, code_of
from .look import Finding


def as_json(target: Target, findings: Sequence[Finding], advice: Sequence[Advice]) -> dict[str, Any]:
    """All of it; no advice gives no recommendation."""
    return {
        "target": target.text,
        "addresses": [_of_finding(finding) for finding in findings],
        "recommendation": _of_advice(advice) if advice else None,
    }


def milliseconds(seconds: float | None) -> float | None:
    """A duration, rounded to microseconds."""
    return None if seconds is None else round(seconds * 1000, 3)


def _of_finding(finding: Finding) -> dict[str, Any]:
    told = dataclasses.asdict(finding)
    for name in ("connect", "tls"):
        told[f"{name}_ms"] = milliseconds(told.pop(f"{name}_seconds"))
    del told["pings"]
    least, median = finding.ping_seconds or (None, None)
    told["ping_ms"] = {"min": milliseconds(least), "median": milliseconds(median), "count": len(finding.pings)}
    return told


def _of_advice(advice: Sequence[Advice]) -> dict[str, Any]:
    return {
        "config": {each.field: each.value for each in advice},
        "code": code_of(advice),
        "reasons": {each.field: each.reason for each in advice},
    }
