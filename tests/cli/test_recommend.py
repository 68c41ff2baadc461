"""The recommended configuration, from the probe's reports."""

from __future__ import annotations

from typing import Any

import pytest

from grpcpool.cli._probe.probe_address import AddressReport, Settings
from grpcpool.cli._probe.recommend import config_of, recommend


def _report(limit: int | None, connect: float = 0.001) -> AddressReport:
    return AddressReport("10.0.0.7:443", connect_seconds=connect, settings=Settings(max_concurrent_streams=limit))


_UNREACHABLE = AddressReport("10.0.0.8:443", error="connection refused")


@pytest.mark.parametrize(
    ("reports", "in_flight", "config"),
    [
        ([_report(100)], 500, {"max_streams": 90, "max_size": 10}),
        ([_report(100)], 1, {"max_streams": 90, "max_size": 2}),
        ([_report(100)], 10**6, {"max_streams": 90, "max_size": 100}),
        ([_report(0)], 1, {"max_streams": 1, "max_size": 2}),
        ([_report(None)], 500, {"max_streams": 900, "max_size": 2}),
        ([_report(100), _report(None)], 50, {"max_streams": 90, "min_size": 2, "max_size": 2}),
        ([_report(100), _report(20)], 50, {"max_streams": 18, "min_size": 2, "max_size": 5}),
        ([_report(100)] * 3, 50, {"max_streams": 90, "min_size": 3, "max_size": 3}),
        ([_report(100), _UNREACHABLE], 50, {"max_streams": 90, "max_size": 2}),
        ([_report(100, connect=2.5)], 50, {"max_streams": 90, "max_size": 2, "connect_timeout": 25.0}),
    ],
)
def test_the_reports_decide(reports: list[AddressReport], in_flight: int, config: dict[str, Any]) -> None:
    """It depends on the lowest limit, the expected calls, the addresses that answer, and the time to connect."""
    recommendations = recommend(reports, in_flight=in_flight, is_name=False)
    assert {each.field: each.value for each in recommendations} == config
    assert all(each.reason for each in recommendations)
    config_of(recommendations)


def test_more_addresses_than_connections() -> None:
    """The reasons do not promise a connection for each of more addresses than the pool has connections."""
    reasons = {each.field: each.reason for each in recommend([_report(100)] * 200, in_flight=50, is_name=True)}
    assert reasons["min_size"] == "one for each of 100 of the 200 addresses"
    assert reasons["max_size"].endswith("; 100 reach each of 100 of the 200 addresses")
    few = {each.field: each.reason for each in recommend([_report(100)] * 3, in_flight=50, is_name=True)}
    assert few["min_size"] == "one for each of the 3 addresses"
    assert few["max_size"].endswith("; 3 reach each of the 3 addresses")


def test_a_name_with_one_address_gets_a_max_age() -> None:
    """It may be a balancer of connections. The pool follows the addresses of a name that has several."""
    one = recommend([_report(100)], in_flight=50, is_name=True)
    assert config_of(one).max_age == 1800.0
    assert config_of(recommend([_report(100)] * 2, in_flight=50, is_name=True)).max_age is None
    assert config_of(recommend([_report(100)], in_flight=50, is_name=False)).max_age is None
