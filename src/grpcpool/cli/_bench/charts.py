"""The plots of a report: calls per second and latency over time, latency by percentile, latency by rate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from .channels import BARE, NATIVE, POOL
from .levels import Level
from .recorder import Slice
from .result import Result
from .svg import Axis, Line, Point, draw_plot, linear_axis, log_axis
from .terminal import milliseconds

_SHAPES: Final = {BARE: "circle", NATIVE: "square", POOL: "triangle"}
_DOTTED: Final = "2 3"
_DASHED: Final = "7 4"
_MIN_SECONDS: Final = 1.0
_MS: Final = "milliseconds"

# The axis of percentiles: 100 / (100 - percentile), so that each nine has the same room.
_NINES: Final = (
    *((1.0, "0%"), (2.0, "50%"), (10.0, "90%"), (100.0, "99%")),
    *((1e3, "99.9%"), (1e4, "99.99%"), (1e5, "99.999%"), (1e6, "99.9999%")),
)


def levels_of(results: Sequence[Result]) -> list[Level]:
    """Returns the levels of load, each once."""
    return list(dict.fromkeys(result.level for result in results))


def draw_charts(name: str, results: Sequence[Result]) -> list[tuple[str, str]]:
    """Draws the plots of one level of load.

    Args:
        name: The end of the elements' ids.
        results: The results of that level.

    Returns:
        Pairs of a caption and an SVG element.
    """
    measured = [result for result in results if result.recorder is not None]
    return [
        ("Calls per second", _calls_over_time(name, measured)),
        ("Latency over time", _latency_over_time(name, measured)),
        ("Latency by percentile", _latency_by_percentile(name, measured)),
    ]


def draw_by_rate(results: Sequence[Result]) -> str:
    """Draws latency by the offered rate; returns an empty string unless there are several rates."""
    measured = [result for result in results if result.recorder is not None and result.level.rate is not None]
    if len({result.level.rate for result in measured}) < 2:  # noqa: PLR2004 -- a line
        return ""
    lines = [
        line
        for way in dict.fromkeys(result.way for result in measured)
        for line in _by_rate(way, [result for result in measured if result.way == way])
    ]
    text = _sentences(f"{line.name}: {_listed(line.points)}" for line in lines)
    axes = linear_axis("calls per second offered", _xs(lines)), log_axis(_MS, _ys(lines))
    return draw_plot("by-rate", "Latency by rate", text, axes, lines)


# --- over time -------------------------------------------------------------------------------------------------------


def _calls_over_time(name: str, results: Sequence[Result]) -> str:
    lines = [line for result in results for line in _call_lines(result)]
    axes = _time_axis(results), linear_axis("calls per second", _ys(lines))
    return draw_plot(f"calls-{name}", "Calls per second", _sentences(map(_calls_text, results)), axes, lines)


def _call_lines(result: Result) -> Iterator[Line]:
    slices = _slices(result)
    shape = _SHAPES[result.way]
    counted = {
        "completed": ("", [part.rate for part in slices]),
        "failed": (_DOTTED, [part.failed / part.seconds for part in slices]),
        "dropped": (_DASHED, [(part.dropped or 0) / part.seconds for part in slices]),
    }
    for what, (dashes, rates) in counted.items():
        if what == "completed" or any(rates):
            points = [(part.at, rate) for part, rate in zip(slices, rates, strict=True)]
            yield Line(f"{result.way} {what}", result.way, shape, points, dashes)


def _calls_text(result: Result) -> str:
    recorder, offered = result.recorder, result.offered
    if recorder is None:
        return ""
    rates = [part.rate for part in _slices(result)] or [0.0]
    dropped = "" if offered is None else f", {offered.dropped:,} dropped of {offered.offered:,} offered"
    between = f"{min(rates):,.0f} to {max(rates):,.0f} completed per second"
    return f"{result.way}: {between}; {recorder.failed:,} failed{dropped}"


def _latency_over_time(name: str, results: Sequence[Result]) -> str:
    lines = [line for result in results for line in _latency_lines(result)]
    text = _sentences(f"{line.name}: {_range(line.points)} ms" for line in lines)
    axes = _time_axis(results), log_axis(_MS, _ys(lines))
    return draw_plot(f"time-{name}", "Latency over time", text, axes, lines)


def _latency_lines(result: Result) -> Iterator[Line]:
    slices = _slices(result)
    shape = _SHAPES[result.way]
    yield Line(f"{result.way} p50", result.way, shape, [(part.at, _ms(part.p50)) for part in slices])
    yield Line(f"{result.way} p99", result.way, shape, [(part.at, _ms(part.p99)) for part in slices], _DOTTED)


def _time_axis(results: Sequence[Result]) -> Axis:
    return linear_axis("seconds", [_MIN_SECONDS, *(part.at for result in results for part in _slices(result))])


def _slices(result: Result) -> list[Slice]:
    """Returns the slices of the measured time. Calls of an open loop may end later, when fewer and fewer are left."""
    recorder = result.recorder
    return [] if recorder is None else [part for part in recorder.slices if part.at < recorder.elapsed]


# --- by percentile ---------------------------------------------------------------------------------------------------


def _latency_by_percentile(name: str, results: Sequence[Result]) -> str:
    lines = [
        Line(result.way, result.way, _SHAPES[result.way], _curve_points(result.recorder.curve()))
        for result in results
        if result.recorder is not None
    ]
    text = _sentences(f"{result.way}: {_percentiles_text(result)}" for result in results)
    axes = _percentile_axis(_xs(lines)), log_axis(_MS, _ys(lines))
    return draw_plot(f"curve-{name}", "Latency by percentile", text, axes, lines)


def _curve_points(curve: Sequence[tuple[float, float]]) -> list[Point]:
    return [(100 / (100 - percentile), seconds * 1000) for percentile, seconds in curve]


def _percentile_axis(xs: Sequence[float]) -> Axis:
    title = "share of calls that took at most this long"
    high = max([10.0, *xs]) * 1.0001
    return Axis(title, 1.0, high, [tick for tick in _NINES if tick[0] <= high], is_log=True)


def _percentiles_text(result: Result) -> str:
    if result.recorder is None or not result.recorder.completed:
        return "no completed calls"
    p50, p99, highest = (milliseconds(result.recorder.percentile(percentile)) for percentile in (50, 99, 100))
    return f"median {p50} ms, 99th percentile {p99} ms, maximum {highest} ms"


# --- by rate ---------------------------------------------------------------------------------------------------------


def _by_rate(way: str, results: Sequence[Result]) -> Iterator[Line]:
    ordered = sorted(results, key=lambda result: result.level.rate or 0.0)
    for percentile, dashes in ((50.0, ""), (99.0, _DOTTED)):
        points = [
            (result.level.rate or 0.0, _ms(result.recorder.percentile(percentile)))
            for result in ordered
            if result.recorder is not None
        ]
        yield Line(f"{way} p{percentile:g}", way, _SHAPES[way], points, dashes)


# --- numbers ---------------------------------------------------------------------------------------------------------


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def _xs(lines: Iterable[Line]) -> list[float]:
    return [x for line in lines for x, _ in line.points]


def _ys(lines: Iterable[Line]) -> list[float]:
    return [y for line in lines for _, y in line.points if y is not None]


def _range(points: Sequence[Point]) -> str:
    values = [y / 1000 for _, y in points if y is not None]
    return f"{milliseconds(min(values))} to {milliseconds(max(values))}" if values else "-"


def _listed(points: Sequence[Point]) -> str:
    return ", ".join(f"{milliseconds(None if y is None else y / 1000)} ms at {x:,.0f}/s" for x, y in points)


def _sentences(texts: Iterable[str]) -> str:
    return " ".join(f"{text}." for text in texts if text)
