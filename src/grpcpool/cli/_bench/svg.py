"""Draws plots as SVG elements for a page: axes, lines, markers, a legend, and a text alternative.

The page's style sheet gives the elements colours by their classes, so that a plot fits a light and a dark page.
"""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

_WIDTH, _HEIGHT = 560, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 24, 12, 74
_LEGEND_WIDTH = 156
_LEGEND_HEIGHT = 17
# Enough to tell lines apart, without hiding them.
_MARKERS: Final = 10
_MAX_TICKS: Final = 7
_FEW: Final = 100
_ROUND: Final = (1.0, 2.0, 2.5, 5.0, 10.0)

# Shapes differ, too: not everyone can tell colours apart. They are about 7 wide, around the origin.
_SHAPES: Final = {
    "circle": "M-3.2,0a3.2,3.2 0 1,0 6.4,0a3.2,3.2 0 1,0 -6.4,0z",
    "square": "M-3,-3h6v6h-6z",
    "triangle": "M0,-3.9l3.9,6.9h-7.8z",
}

Point = tuple[float, float | None]


@dataclasses.dataclass(frozen=True, slots=True)
class Axis:
    """An axis from `low` to `high`.

    Attributes:
        title: What it shows.
        low: The value at its start.
        high: The value at its end; above `low`.
        ticks: Values with their labels.
        is_log: Whether its scale is logarithmic; then all values are above 0.
    """

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    is_log: bool = False

    def part(self, value: float) -> float:
        """Returns where a value is: 0 at the start, 1 at the end."""
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """A line with a name in the legend.

    Attributes:
        name: The name.
        classes: The classes of its elements, which give it colour.
        shape: The shape of its markers: ``circle``, ``square`` or ``triangle``.
        points: Pairs of x and y; where y is `None`, the line is interrupted.
        dashes: SVG's ``stroke-dasharray``; empty for a solid line.
    """

    name: str
    classes: str
    shape: str
    points: Sequence[Point]
    dashes: str = ""


def linear_axis(title: str, values: Iterable[float]) -> Axis:
    """Returns an axis from 0 that shows all these values, with round numbers as ticks."""
    highest = max(values, default=0.0) or 1.0
    power = 10.0 ** math.floor(math.log10(highest / _MAX_TICKS))
    step = next(factor * power for factor in _ROUND if highest / (factor * power) <= _MAX_TICKS)
    count = math.ceil(round(highest / step, 6))
    return Axis(title, 0.0, count * step, [(tick * step, _text(tick * step)) for tick in range(count + 1)])


def log_axis(title: str, values: Iterable[float]) -> Axis:
    """Returns a logarithmic axis that shows all values above 0; its ticks are 1, 2 and 5 times powers of ten."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = _step_down(min(positive)), _step_up(max(positive))
    if high <= low:
        high = low * 10
    powers = range(math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high)) + 1)
    digits = (1, 2, 5) if len(powers) <= _MAX_TICKS // 2 + 1 else (1,)
    ticks = [digit * 10.0**power for power in powers for digit in digits]
    inside = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
    return Axis(title, low, high, [(tick, _text(tick)) for tick in inside], is_log=True)


def draw_plot(name: str, title: str, description: str, axes: tuple[Axis, Axis], lines: Sequence[Line]) -> str:
    """Draws a plot.

    Args:
        name: The id of the element; those within it begin with it.
        title: What screen readers call it.
        description: The text alternative: what the lines show.
        axes: The horizontal and the vertical axis.
        lines: The lines, in the order of the legend.

    Returns:
        The SVG element.
    """
    x, y = axes
    rows = -(-len(lines) // _legend_columns())
    height = _HEIGHT + max(0, rows - 1) * _LEGEND_HEIGHT
    parts = [
        f'<svg id="{name}" viewBox="0 0 {_WIDTH} {height}" role="img" aria-labelledby="{name}-title {name}-text">',
        f'<title id="{name}-title">{html.escape(title)}</title>',
        f'<desc id="{name}-text">{html.escape(description)}</desc>',
        *_draw_x(x),
        *_draw_y(y),
        *(part for line in lines for part in _draw_line(line, x, y)),
        *_draw_legend(lines),
        "</svg>",
    ]
    return "".join(parts)


# --- numbers ---------------------------------------------------------------------------------------------------------


def _step_down(value: float) -> float:
    """Returns the next of 1, 2 and 5 times a power of ten that is not above the value."""
    power = 10.0 ** math.floor(math.log10(value))
    return max(digit * power for digit in (1, 2, 5) if digit * power <= value * 1.000001)


def _step_up(value: float) -> float:
    """Returns the next of 1, 2, 5 and 10 times a power of ten that is not below the value."""
    power = 10.0 ** math.floor(math.log10(value))
    return min(digit * power for digit in (1, 2, 5, 10) if digit * power >= value * 0.999999)


def _text(value: float) -> str:
    return f"{value:,.6g}" if value < 1000 else f"{value:,.0f}"  # noqa: PLR2004


def _at(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _x_of(x: Axis, value: float) -> float:
    return _LEFT + x.part(value) * (_WIDTH - _LEFT - _RIGHT)


def _y_of(y: Axis, value: float) -> float:
    # What is 0 is at the bottom of a logarithmic axis.
    part = 0.0 if y.is_log and value <= y.low else y.part(value)
    return _HEIGHT - _BOTTOM - part * (_HEIGHT - _TOP - _BOTTOM)


# --- elements --------------------------------------------------------------------------------------------------------


def _draw_x(axis: Axis) -> Iterator[str]:
    bottom = _HEIGHT - _BOTTOM
    for value, label in axis.ticks:
        at = _at(_x_of(axis, value))
        yield f'<path class="grid" d="M{at},{_TOP}V{bottom}"/>'
        yield f'<text x="{at}" y="{bottom + 16}" text-anchor="middle">{html.escape(label)}</text>'
    middle = _at((_LEFT + _WIDTH - _RIGHT) / 2)
    yield f'<text x="{middle}" y="{bottom + 34}" text-anchor="middle">{html.escape(axis.title)}</text>'


def _draw_y(axis: Axis) -> Iterator[str]:
    for value, label in axis.ticks:
        at = _y_of(axis, value)
        yield f'<path class="grid" d="M{_LEFT},{_at(at)}H{_WIDTH - _RIGHT}"/>'
        yield f'<text x="{_LEFT - 6}" y="{_at(at + 4)}" text-anchor="end">{html.escape(label)}</text>'
    middle = _at((_TOP + _HEIGHT - _BOTTOM) / 2)
    yield f'<text transform="translate(12,{middle}) rotate(-90)" text-anchor="middle">{html.escape(axis.title)}</text>'


def _draw_line(line: Line, x: Axis, y: Axis) -> Iterator[str]:
    places = [None if value is None else (_x_of(x, at), _y_of(y, value)) for at, value in line.points]
    yield f'<g class="{line.classes}"><title>{html.escape(line.name)}</title>'
    if path := _path_of(places):
        yield f'<path class="line"{_dashed(line)} d="{path}"/>'
    shown = [place for place in places if place is not None]
    for across, up in shown[:: max(1, -(-len(shown) // _MARKERS))]:
        yield _draw_marker(line, across, up)
    yield "</g>"


def _path_of(places: Sequence[tuple[float, float] | None]) -> str:
    # Where there are many points, a pixel more or less does not show, and the page is smaller.
    text = _at if len(places) <= _FEW else "{:.0f}".format
    path, is_new = "", True
    for place in places:
        if place is not None:
            path += f"{'M' if is_new else 'L'}{text(place[0])},{text(place[1])}"
        is_new = place is None
    return path


def _draw_marker(line: Line, across: float, up: float) -> str:
    return f'<path class="mark" transform="translate({_at(across)},{_at(up)})" d="{_SHAPES[line.shape]}"/>'


def _dashed(line: Line) -> str:
    return f' stroke-dasharray="{line.dashes}"' if line.dashes else ""


def _legend_columns() -> int:
    return (_WIDTH - _LEFT - _RIGHT) // _LEGEND_WIDTH


def _draw_legend(lines: Sequence[Line]) -> Iterator[str]:
    for index, line in enumerate(lines):
        row, column = divmod(index, _legend_columns())
        across, up = _LEFT + column * _LEGEND_WIDTH, _HEIGHT - _BOTTOM + 56 + row * _LEGEND_HEIGHT
        yield f'<g class="{line.classes}"><path class="line"{_dashed(line)} d="M{across},{up - 4}h22"/>'
        yield _draw_marker(line, across + 11, up - 4)
        yield f'</g><text x="{across + 27}" y="{up}">{html.escape(line.name)}</text>'
