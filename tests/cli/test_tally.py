"""The tally of calls, and what it reports."""

from __future__ import annotations

import time

import pytest

from grpcpool.cli._bench.show import milliseconds
from grpcpool.cli._bench.tally import Tally


def _begun(duration: float = 60.0) -> Tally:
    tally = Tally(0.0, duration)
    tally.begin()
    return tally


def test_latencies_have_three_significant_digits() -> None:
    """Percentiles are those of the recorded latencies, to three digits; the maximum is one of them."""
    tally = _begun()
    now = time.perf_counter()
    for milli in range(1, 101):
        tally.note(now - milli / 1000, None)
    tally.digest(last=True)
    assert tally.completed == 100
    assert tally.percentile(50) == pytest.approx(0.050, rel=0.05)
    assert tally.percentile(99) == pytest.approx(0.099, rel=0.05)
    assert tally.percentile(100) == pytest.approx(0.100, rel=0.05)
    assert tally.mean() == pytest.approx(0.0505, rel=0.05)


def test_failures_are_counted_by_name_and_are_not_latencies() -> None:
    """The time of a failed call is not a latency."""
    tally = _begun()
    for failure in ("UNAVAILABLE", None, "UNAVAILABLE", "CANCELLED"):
        tally.note(time.perf_counter(), failure)
    tally.digest(last=True)
    assert (tally.completed, tally.failed) == (1, 3)
    assert tally.failures == {"UNAVAILABLE": 2, "CANCELLED": 1}
    assert sum(part.failed for part in tally.slices) == 3


def test_the_warm_up_and_late_calls_do_not_count() -> None:
    """Only calls that end within the measured time count."""
    tally = Tally(60.0, 60.0)
    tally.begin()
    tally.note(time.perf_counter(), None)
    tally.digest(last=True)
    assert (tally.completed, tally.elapsed, tally.is_over()) == (0, 0.0, False)
    tally = _begun()
    tally.stop()
    tally.note(time.perf_counter(), None)
    tally.digest(last=True)
    assert (tally.completed, tally.is_over()) == (0, True)


def test_without_calls_there_are_no_figures() -> None:
    """Without calls there is no percentile, mean or curve; the table has a dash."""
    tally = Tally(0.0, 1.0)
    tally.stop()
    assert (tally.percentile(50), tally.mean(), tally.curve(), tally.elapsed) == (None, None, [], 0.0)
    assert milliseconds(None) == "-"


def test_the_curve_ends_at_the_last_call() -> None:
    """A thousand calls give 99.9 per cent, and nothing beyond."""
    tally = _begun()
    for _ in range(1000):
        tally.note(time.perf_counter(), None)
    tally.digest(last=True)
    percentiles = [percentile for percentile, _ in tally.curve()]
    assert percentiles[0] == 0
    assert percentiles == sorted(percentiles)
    assert percentiles[-1] == pytest.approx(99.9)
