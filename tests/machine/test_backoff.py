"""When to dial again: delays double, are bounded, are jittered downwards, and are reset by the first success."""

from __future__ import annotations

import math

import pytest

from grpcpool._machine.backoff import FIRST_DELAY, LONGEST_DELAY, Backoff


def test_without_failures_there_is_no_delay() -> None:
    """Before the first failure there is no delay."""
    assert Backoff(lambda: 0.5).retry_at == -math.inf


@pytest.mark.parametrize(
    ("drawn", "delays"),
    [
        (0.0, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]),
        (0.5, [0.075, 0.15, 0.3, 0.6, 1.2, 2.4, 4.8, 7.5, 7.5]),
    ],
)
def test_delays(drawn: float, delays: list[float]) -> None:
    """Delays double from the first to the longest; jitter takes off up to half."""
    backoff = Backoff(lambda: drawn)
    for number, delay in enumerate(delays, 1):
        assert backoff.failed(100.0) == pytest.approx(delay)
        assert backoff.retry_at == pytest.approx(100.0 + delay)
        assert backoff.failures == number


@pytest.mark.parametrize("drawn", [0.0, 0.3, math.nextafter(1.0, 0.0)])
def test_bounds(drawn: float) -> None:
    """After any number of failures the delay is between half the longest and the longest, without overflow."""
    backoff = Backoff(lambda: drawn)
    assert FIRST_DELAY / 2 <= backoff.failed(0.0) <= FIRST_DELAY
    delays = [backoff.failed(0.0) for _ in range(3000)]
    assert LONGEST_DELAY / 2 <= delays[-1] <= LONGEST_DELAY


def test_a_success_resets_the_failures() -> None:
    """One success resets all failures."""
    backoff = Backoff(lambda: 0.0)
    for _ in range(5):
        backoff.failed(0.0)
    backoff.succeeded()
    assert (backoff.failures, backoff.retry_at) == (0, -math.inf)
    assert backoff.failed(1.0) == FIRST_DELAY
