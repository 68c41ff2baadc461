"""The plots of the report."""

from __future__ import annotations

import time

import pytest

from cli.support import figures_of
from grpcpool.cli._bench.charts import draw_by_rate, draw_charts
from grpcpool.cli._bench.levels import Level
from grpcpool.cli._bench.open_recorder import OpenLoopRecorder
from grpcpool.cli._bench.recorder import CallRecorder
from grpcpool.cli._bench.result import Result
from grpcpool.cli._bench.svg import Axis, Line, draw_plot, linear_axis, log_axis


@pytest.mark.parametrize(
    ("values", "high", "labels"),
    [
        ([], 1.0, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        ([0.0], 1.0, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        ([7.0], 7.0, ["0", "1", "2", "3", "4", "5", "6", "7"]),
        ([3.0, 1234.0], 1400.0, ["0", "200", "400", "600", "800", "1,000", "1,200", "1,400"]),
    ],
)
def test_linear_axes(values: list[float], high: float, labels: list[str]) -> None:
    """They begin at 0, and end at a round number that is not below the highest value."""
    axis = linear_axis("", values)
    assert [axis.low, axis.high] == pytest.approx([0.0, high])
    assert [label for _, label in axis.ticks] == labels
    assert [axis.part(0.0), axis.part(axis.high)] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("values", "low", "high", "labels"),
    [
        ([], 1.0, 10.0, ["1", "2", "5", "10"]),
        ([3.0, 0.0], 2.0, 5.0, ["2", "5"]),
        ([0.35, 42.0], 0.2, 50.0, ["0.2", "0.5", "1", "2", "5", "10", "20", "50"]),
        ([0.01, 9000.0], 0.01, 10000.0, ["0.01", "0.1", "1", "10", "100", "1,000", "10,000"]),
    ],
)
def test_logarithmic_axes(values: list[float], low: float, high: float, labels: list[str]) -> None:
    """They show all values above 0, with ticks at 1, 2 and 5, or at powers of ten if there would be many."""
    axis = log_axis("", values)
    assert [axis.low, axis.high] == pytest.approx([low, high])
    assert [label for _, label in axis.ticks] == labels
    assert axis.part((axis.low * axis.high) ** 0.5) == pytest.approx(0.5)


def test_a_plot_is_well_formed() -> None:
    """Names and texts are escaped; where there is no value, the line is interrupted; what is 0 is at the bottom."""
    hostile = "<b>&\"'"
    line = Line(hostile, "pool", "circle", [(0.0, 1.0), (1.0, None), (2.0, 3.0), (3.0, 0.0)], "2 3")
    text = draw_plot("a", hostile, hostile, (linear_axis(hostile, [3.0]), log_axis(hostile, [1.0, 3.0])), [line])
    figure = figures_of(text)["a"]
    assert (figure.title, figure.description, figure.names) == (hostile, hostile, [hostile])
    (path,) = (part for part in text.split("<") if part.startswith('path class="line"') and part.count("M") == 2)
    assert path.count("L") == 1
    assert 'stroke-dasharray="2 3"' in path


def test_a_plot_without_lines() -> None:
    """It is an empty plot with axes."""
    axis = Axis("x", 0.0, 1.0, [(0.0, "0")])
    assert figures_of(draw_plot("a", "t", "d", (axis, axis), []))["a"].names == []


def _result(way: str, level: Level) -> Result:
    recorder = CallRecorder(0.0, 60.0) if level.rate is None else OpenLoopRecorder(0.0, 60.0)
    began = recorder.begin()
    for failure in (None, None, "UNAVAILABLE"):
        recorder.record(began + 0.001, failure)
    if isinstance(recorder, OpenLoopRecorder):
        recorder.drop(began + 0.002)
    recorder.process(last=True)
    return Result(way, level, recorder)


def test_charts_of_a_level() -> None:
    """They show every way: completed calls always, failed and dropped ones if there are any."""
    results = [_result(way, Level(rate=10.0)) for way in ("bare", "pool")]
    figures = figures_of("".join(drawn for _, drawn in draw_charts("1", [*results, Result("native", Level(), None)])))
    assert figures["calls-1"].names == [
        f"{way} {what}" for way in ("bare", "pool") for what in ("completed", "failed", "dropped")
    ]
    assert "1 failed, 1 dropped of 1 offered." in figures["calls-1"].description
    assert "pool: median " in figures["curve-1"].description


def test_charts_without_results() -> None:
    """Ways that this grpcio does not have, and measurements without calls, leave plots empty."""
    empty = CallRecorder(0.0, 1.0)
    empty.stop()
    results = [Result("native", Level(callers=1), None), Result("bare", Level(callers=1), empty)]
    figures = figures_of("".join(drawn for _, drawn in draw_charts("1", results)))
    assert figures["curve-1"].description == "bare: no completed calls."


def test_charts_end_with_the_measured_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of an open loop that end later have no point of their own: by then nothing more is offered."""
    moments = iter([1000.0, 1000.25, 1000.5, 1001.25, 1001.5, 1003.25, 1003.5])
    monkeypatch.setattr(time, "perf_counter", lambda: next(moments, 1010.0))
    recorder = OpenLoopRecorder(0.0, 2.0)
    began = recorder.begin()
    for _ in range(3):
        recorder.start(began + 0.25)
        recorder.record(began + 0.25, None)
    recorder.process(last=True)
    figures = figures_of(draw_charts("1", [Result("bare", Level(rate=1.0), recorder)])[0][1])
    assert len(recorder.slices) == 4
    assert figures["calls-1"].description.startswith("bare: 1 to 1 completed per second")


def test_latency_by_rate() -> None:
    """Several rates have a plot of their latencies; a single one, and closed loops, have none."""
    results = [_result("pool", Level(rate=rate)) for rate in (20.0, 10.0)]
    figure = figures_of(draw_by_rate(results))["by-rate"]
    assert figure.names == ["pool p50", "pool p99"]
    assert figure.description.index(" at 10/s") < figure.description.index(" at 20/s")
    assert draw_by_rate(results[:1]) == ""
    assert draw_by_rate([_result("pool", Level(callers=callers)) for callers in (1, 2)]) == ""
