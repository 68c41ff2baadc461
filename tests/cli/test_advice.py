"""What `probe` recommends for what it found."""

from __future__ import annotations

from typing import Any

import pytest

from grpcpool.cli._probe.advice import advise, config_of
from grpcpool.cli._probe.look import Finding, Settings


def _found(limit: int | None, connect: float = 0.001) -> Finding:
    return Finding("10.0.0.7:443", connect_seconds=connect, settings=Settings(max_concurrent_streams=limit))


_SILENT = Finding("10.0.0.8:443", error="connection refused")


@pytest.mark.parametrize(
    ("findings", "in_flight", "config"),
    [
        ([_found(100)], 500, {"max_streams": 90, "max_size": 10}),
        ([_found(100)], 1, {"max_streams": 90, "max_size": 2}),
        ([_found(100)], 10**6, {"max_streams": 90, "max_size": 100}),
        ([_found(0)], 1, {"max_streams": 1, "max_size": 2}),
        ([_found(None)], 500, {"max_streams": 900, "max_size": 2}),
        ([_found(100), _found(None)], 50, {"max_streams": 90, "min_size": 2, "max_size": 2}),
        ([_found(100), _found(20)], 50, {"max_streams": 18, "min_size": 2, "max_size": 5}),
        ([_found(100)] * 3, 50, {"max_streams": 90, "min_size": 3, "max_size": 3}),
        ([_found(100), _SILENT], 50, {"max_streams": 90, "max_size": 2}),
        ([_found(100, connect=2.5)], 50, {"max_streams": 90, "max_size": 2, "connect_timeout": 25.0}),
    ],
)
def test_the_findings_decide(findings: list[Finding], in_flight: int, config: dict[str, Any]) -> None:
    """The lowest limit, the expected calls, the addresses that answer and the connect time decide."""
    advice = advise(findings, in_flight=in_flight, is_name=False)
    assert {each.field: each.value for each in advice} == config
    assert all(each.reason for each in advice)
    config_of(advice)


def test_connections_behind_names_are_replaced() -> None:
    """Behind a name with several addresses connections are replaced; behind a single address they may stay."""
    several = advise([_found(100)] * 2, in_flight=50, is_name=True)
    assert config_of(several).max_age == 1800.0
    assert config_of(advise([_found(100)], in_flight=50, is_name=True)).max_age is None
