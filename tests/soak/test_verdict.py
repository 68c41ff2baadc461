"""Which troubles explain that a call failed, and, above all, which do not."""

from __future__ import annotations

import math
from typing import Any

import pytest

from soak.book import LATE, Call
from soak.journal import Kind, Trouble
from soak.verdict import Weather, explanation_of, too_many_of_a_kill
from soak.wishes import OK

SERVERS = 3
REFUSED = "Stream removed (RST_STREAM (Received RST_STREAM with error code 7))"


def call(outcome: str, began: float, ended: float, **how: Any) -> Call:
    """A call that was intended to go well, and had 6 seconds."""
    given = {"caller": "caller", "name": "unary", "means": OK, "due": began + 6, **how}
    return Call(number=1, began=began, ended=ended, outcome=outcome, **given)


def killed(began: float, ended: float, server: int = 0, *, running: int = 10) -> Trouble:
    """A server that is down for a time."""
    return Trouble(Kind.KILLED, server, began, ended, running=running, certain=began)


def why(one: Call, *troubles: Trouble, refusing: bool = False) -> str | None:
    """The explanation."""
    return explanation_of(one, Weather(troubles, SERVERS, refusing=refusing))


def test_what_a_caller_means_needs_no_explanation() -> None:
    """A caller that asks for an error must get it, and not an answer."""
    means = frozenset({"NOT_FOUND"})
    assert why(call("NOT_FOUND", 10, 10.1, means=means)) == "as its caller meant it"
    assert why(call("ok", 10, 10.1, means=means)) is None


def test_no_call_ends_long_after_its_deadline() -> None:
    """A call that ends long after its deadline has no explanation, even if it went well."""
    assert why(call("ok", 10, 16 + LATE - 0.1)) == "as its caller meant it"
    assert why(call("ok", 10, 16 + LATE + 0.1)) is None


@pytest.mark.parametrize("outcome", ["CANCELLED", "INTERNAL", "UNKNOWN", "RESOURCE_EXHAUSTED", "AssertionError"])
def test_a_kill_explains_nothing_but_unavailable(outcome: str) -> None:
    """A kill explains `UNAVAILABLE` and no other outcome."""
    assert why(call("UNAVAILABLE", 10, 10.1), killed(10.05, 12)) == "open at a kill"
    assert why(call(outcome, 10, 10.1), killed(10.05, 12)) is None


@pytest.mark.parametrize(
    ("began", "ended", "explained"),
    [
        (10.0, 11.0, False),  # before it
        (10.0, 12.1, True),
        (10.0, 15.0, False),  # long after it
        (12.2, 12.3, True),  # gRPC may not know yet
        (12.5, 12.6, False),  # it knows
    ],
)
def test_a_kill_explains_what_fails_soon_after_it(began: float, ended: float, explained: bool) -> None:
    """A kill explains failures of calls that were open, or begun before gRPC could notice."""
    assert (why(call("UNAVAILABLE", began, ended), killed(12, 14)) is not None) is explained


@pytest.mark.parametrize(("granted", "explained"), [(11.9, True), (12.2, True), (12.4, False)])
def test_a_kill_explains_what_fails_on_a_lease(granted: float, explained: bool) -> None:
    """A lease that was granted before gRPC could notice has no other connection."""
    failed = call("UNAVAILABLE", 12.5, 12.6, on_lease=True, chosen=granted)
    assert (why(failed, killed(12, 14)) is not None) is explained


def test_a_kill_in_a_crowd_counts_once_for_each_call() -> None:
    """More calls begun after a kill must not fail than were open at it."""
    kill = killed(12, 14, running=8)
    weather = Weather([kill], SERVERS, refusing=False)
    calls = [call("UNAVAILABLE", 12.1, 12.2) for _ in range(8)]
    assert too_many_of_a_kill([*calls, call("UNAVAILABLE", 11.9, 12.2)], weather) == []
    assert len(too_many_of_a_kill([*calls, call("UNAVAILABLE", 12.1, 12.2)], weather)) == 1


def test_calls_fail_while_no_server_is_well() -> None:
    """Calls fail while no server is up, unless they wait for ready; one server that is up is enough."""
    troubles = [killed(10, 14, 0), killed(10, 15, 1), Trouble(Kind.FROZEN, 2, 11, 13)]
    assert why(call("UNAVAILABLE", 12.9, 12.9), *troubles) == "no server was well"
    assert why(call("UNAVAILABLE", 12.9, 12.9, waits=True), *troubles) is None
    assert why(call("UNAVAILABLE", 12.9, 12.9), *troubles[:2]) is None
    assert why(call("UNAVAILABLE", 14.5, 14.5), *troubles) is None


def test_frozen_servers_make_no_call_fail() -> None:
    """Frozen servers explain delays, not failures."""
    troubles = [Trouble(Kind.FROZEN, server, 10, 13) for server in range(SERVERS)]
    assert why(call("UNAVAILABLE", 11, 12), *troubles) is None


@pytest.mark.parametrize("outcome", ["DEADLINE_EXCEEDED", "PoolTimeoutError"])
def test_who_has_time_without_trouble_is_served(outcome: str) -> None:
    """Calls time out only if too little of their time was without trouble, and not before their deadlines."""
    troubles = [Trouble(Kind.FROZEN, 0, 11, 14.5)]
    assert why(call(outcome, 10, 16), *troubles) == "too little time without trouble"
    assert why(call(outcome, 10, 15.9), *troubles) is None
    assert why(call(outcome, 9, 16, due=16), *troubles) is None
    assert why(call(outcome, 10, 16)) is None


def test_a_narrow_pool_explains_that_nobody_gets_all_of_a_connection() -> None:
    """A narrow pool explains timeouts of acquires of whole connections, and nothing else."""
    trouble = Trouble(Kind.NARROW, -1, 10, 16)
    assert why(call("PoolTimeoutError", 10, 16, whole=True), trouble) == "too little time without trouble"
    assert why(call("PoolTimeoutError", 10, 16), trouble) is None


def test_what_chaos_cancels_is_cancelled() -> None:
    """Cancelling by chaos explains `CANCELLED`, of the cancelled calls only."""
    assert why(call("CANCELLED", 10, 10.1, cancelled_by_chaos=True)) == "cancelled by chaos"
    assert why(call("CANCELLED", 10, 10.1)) is None
    assert why(call("UNAVAILABLE", 10, 10.1, cancelled_by_chaos=True)) is None


def test_only_what_is_not_sent_again_is_seen_to_be_refused() -> None:
    """A refusal explains failures of calls that are not sent again, and only if a server refuses."""
    refused = call("UNAVAILABLE", 10, 10.1, details=REFUSED, sent_once=True)
    assert why(refused, refusing=True) == "refused by its server, and not to be sent again"
    assert why(refused) is None
    assert why(call("UNAVAILABLE", 10, 10.1, details=REFUSED), refusing=True) is None


def test_going_away_explains_only_what_is_out_of_time() -> None:
    """GOAWAY explains no failure of a call that has time left."""
    details = "Stream removed (Socket closed (GOAWAY received; Error code: 0; Debug Text: max_age))"
    assert why(call("UNAVAILABLE", 10, 16, details=details)) == "out of time on a connection with GOAWAY"
    assert why(call("UNAVAILABLE", 10, 11, details=details)) is None


def test_a_trouble_lasts_until_all_is_as_before() -> None:
    """A trouble without an end lasts on."""
    weather = Weather([Trouble(Kind.FROZEN, 0, 10, 12), killed(14, math.inf, 1)], SERVERS, refusing=False)
    assert weather.calm(8, 20, whole=False) == pytest.approx(3)
