"""The recorder of calls, and how its numbers are printed."""

from __future__ import annotations

import time

import pytest

from grpcpool.cli._bench.latencies import Latencies
from grpcpool.cli._bench.recorder import CallRecorder
from grpcpool.cli._bench.terminal import milliseconds


def _started_recorder(duration: float = 60.0) -> CallRecorder:
    recorder = CallRecorder(0.0, duration)
    recorder.begin()
    return recorder


def test_latencies_have_three_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Percentiles, maximum and mean are those of the recorded calls."""
    recorder = _started_recorder()
    now = time.perf_counter()
    with monkeypatch.context() as patch:
        # All end at the same moment, however busy the machine is.
        patch.setattr(time, "perf_counter", lambda: now)
        for milli in range(1, 101):
            recorder.record(now - milli / 1000, None)
    recorder.process(last=True)
    assert recorder.completed == 100
    assert recorder.percentile(50) == pytest.approx(0.050, rel=0.05)
    assert recorder.percentile(99) == pytest.approx(0.099, rel=0.05)
    assert recorder.percentile(100) == pytest.approx(0.100, rel=0.05)
    assert recorder.mean() == pytest.approx(0.0505, rel=0.05)


def test_failures_are_counted_by_name_and_have_no_latency() -> None:
    """Failed calls are counted, but their durations are not among the latencies."""
    recorder = _started_recorder()
    for failure in ("UNAVAILABLE", None, "UNAVAILABLE", "CANCELLED"):
        recorder.record(time.perf_counter(), failure)
    recorder.process(last=True)
    assert (recorder.completed, recorder.failed) == (1, 3)
    assert recorder.failures == {"UNAVAILABLE": 2, "CANCELLED": 1}
    assert sum(part.failed for part in recorder.slices) == 3


def test_calls_outside_the_measured_time_do_not_count() -> None:
    """Calls that end during the warm-up or after the end are not counted."""
    recorder = CallRecorder(60.0, 60.0)
    recorder.begin()
    recorder.record(time.perf_counter(), None)
    recorder.process(last=True)
    assert (recorder.completed, recorder.elapsed, recorder.is_over()) == (0, 0.0, False)
    recorder = _started_recorder()
    recorder.stop()
    recorder.record(time.perf_counter(), None)
    recorder.process(last=True)
    assert (recorder.completed, recorder.is_over()) == (0, True)


def test_without_calls_there_are_no_numbers() -> None:
    """There is no percentile, mean or curve; the table has a dash."""
    recorder = CallRecorder(0.0, 1.0)
    recorder.stop()
    assert (recorder.percentile(50), recorder.mean(), recorder.curve(), recorder.elapsed) == (None, None, [], 0.0)
    assert milliseconds(None) == "-"


def test_percentiles_are_exact() -> None:
    """Each percentile is one of the latencies: the shortest that so many percent do not exceed."""
    latencies = Latencies(range(1000, 0, -1))
    assert [latencies.percentile(percentile) for percentile in (0, 0.1, 50, 99, 99.9, 99.95, 100)] == [
        *(1, 1, 500, 990, 999),
        *(1000, 1000),
    ]
    assert latencies.mean() == 500.5
    latencies.add(0.5)
    assert latencies.percentile(0) == 0.5


def test_every_second_has_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds without calls have a slice; the last one is as long as the measurement went on."""
    now = 1000.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    recorder = _started_recorder(3.5)
    for now, failure in ((1000.5, None), (1002.1, "UNAVAILABLE"), (1002.9, None), (1003.2, None), (1003.4, None)):
        recorder.record(now - 0.25, failure)
        recorder.process()
    now = 1010.0
    recorder.process(last=True)
    assert [(part.at, part.completed, part.failed) for part in recorder.slices] == [
        *((0.0, 1, 0), (1.0, 0, 0)),
        *((2.0, 1, 1), (3.0, 2, 0)),
    ]
    assert [part.rate for part in recorder.slices] == [1.0, 0.0, 1.0, 4.0]
    assert [part.p50 for part in recorder.slices] == [pytest.approx(0.25), None, *[pytest.approx(0.25)] * 2]


def test_the_curve_ends_where_calls_do() -> None:
    """A thousand calls support percentiles up to 99.9, and none beyond."""
    recorder = _started_recorder()
    for _ in range(1000):
        recorder.record(time.perf_counter(), None)
    recorder.process(last=True)
    percentiles = [percentile for percentile, _ in recorder.curve()]
    assert percentiles[0] == 0
    assert percentiles == sorted(percentiles)
    assert percentiles[-1] == pytest.approx(99.9)
