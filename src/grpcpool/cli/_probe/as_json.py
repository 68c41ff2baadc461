"""The probe's results as JSON. The keys are stable; docs/reference/command.md lists them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from .._target import Target
from .probe_address import AddressReport
from .recommend import Recommendation, code_of


def as_json(
    target: Target, reports: Sequence[AddressReport], recommendations: Sequence[Recommendation]
) -> dict[str, Any]:
    """Returns the JSON object; its ``recommendation`` is `None` if there are no recommendations."""
    return {
        "target": target.text,
        "addresses": [_of_report(report) for report in reports],
        "recommendation": _of_recommendations(recommendations) if recommendations else None,
    }


def milliseconds(seconds: float | None) -> float | None:
    """Returns a duration in milliseconds, rounded to microseconds."""
    return None if seconds is None else round(seconds * 1000, 3)


def _of_report(report: AddressReport) -> dict[str, Any]:
    fields = dataclasses.asdict(report)
    for name in ("connect", "tls"):
        fields[f"{name}_ms"] = milliseconds(fields.pop(f"{name}_seconds"))
    del fields["pings"]
    least, median = report.ping_seconds or (None, None)
    fields["ping_ms"] = {"min": milliseconds(least), "median": milliseconds(median), "count": len(report.pings)}
    return fields


def _of_recommendations(recommendations: Sequence[Recommendation]) -> dict[str, Any]:
    return {
        "config": {each.field: each.value for each in recommendations},
        "code": code_of(recommendations),
        "reasons": {each.field: each.reason for each in recommendations},
    }
