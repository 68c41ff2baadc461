"""The percentiles of the waits."""

from __future__ import annotations

import random

import pytest

from grpcpool.contrib.inspector._waits import SLICES, Waits, WaitSummary


def test_without_waits_there_are_no_percentiles() -> None:
    """The number is 0 and the percentiles are unknown; the covered time grows up to the whole."""
    waits = Waits(60.0, 1000.0)
    assert waits.summary(1012.0) == WaitSummary(0, 0, 12.0, None, None, None)
    assert 59.0 <= waits.summary(1100.5).seconds <= 60.0


@pytest.mark.parametrize("seconds", [0.0, 0.00005, 0.0001, 0.001, 0.35, 1.0, 30.0, 86400.0])
def test_one_wait_is_each_percentile(seconds: float) -> None:
    """With a single wait all percentiles are its length, at most 5 % too high."""
    waits = Waits(60.0, 0.0)
    waits.add(seconds, 1.0)
    summary = waits.summary(1.0)
    assert (summary.count, summary.timed_out) == (1, 0)
    for percentile in (summary.p50, summary.p90, summary.p99):
        assert percentile is not None
        assert max(seconds, 0.0001) * 0.999999 <= percentile <= max(seconds, 0.0001) * 1.050001


def test_percentiles_are_at_most_five_percent_too_high() -> None:
    """For 1 to 1000 ms, shuffled, they are 500, 900 and 990 ms, at most 5 % more."""
    waits = Waits(60.0, 0.0)
    lengths = [number / 1000 for number in range(1, 1001)]
    random.Random(3).shuffle(lengths)  # noqa: S311 -- no secret
    for number, length in enumerate(lengths):
        waits.add(length, 10 + number * 0.01, timed_out=length == 1.0)
    summary = waits.summary(20.0)
    assert (summary.count, summary.timed_out) == (1000, 1)
    for percentile, exact in ((summary.p50, 0.5), (summary.p90, 0.9), (summary.p99, 0.99)):
        assert percentile is not None
        assert exact * 0.999999 <= percentile <= exact * 1.050001


def test_old_waits_are_forgotten() -> None:
    """A wait counts until the covered time is over, to within one slice."""
    waits = Waits(60.0, 0.0)
    waits.add(1.0, 100.5, timed_out=True)
    waits.add(0.001, 130.0)
    counts = [(each.count, each.timed_out) for each in map(waits.summary, (159.5, 161.0, 191.0))]
    assert counts == [(2, 1), (1, 0), (0, 0)]


def test_memory_is_bounded() -> None:
    """However long waits are recorded, only the slices of the covered time are kept."""
    waits = Waits(60.0, 0.0)
    for second in range(1000):
        waits.add(second / 100, float(second))
    assert len(waits._slices) <= SLICES + 1
    assert waits.summary(999.0).count == SLICES
