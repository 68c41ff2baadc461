"""Writes the report: one self-contained HTML file that works offline.

It includes plotly's JavaScript. A content security policy keeps the browser from loading anything else.
"""

from __future__ import annotations

import html
import importlib.resources
import json
import pathlib
import string
from collections.abc import Iterable, Sequence
from typing import Any

from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from .._errors import CommandError
from .channels import WAYS
from .result import BenchRun, Result, versions
from .terminal import COLUMNS, cells, remark_for

# Colours that can be distinguished on white and on black.
_COLOURS = {"bare": "#e07b39", "native": "#8f7ee7", "pool": "#1a9e77"}


def write_report(path: pathlib.Path, run: BenchRun) -> None:
    """Writes the report.

    Raises:
        CommandError: The file cannot be written.
    """
    template = string.Template(importlib.resources.files(__package__).joinpath("report.html").read_text("utf-8"))
    text = template.substitute(
        method=html.escape(run.plan.method.path),
        target=html.escape(run.target),
        summary=html.escape(_summary(run)),
        table=_table(run.results),
        facts=_facts(run),
        charts=_charts(run.results),
        figures=_for_script(_figures(run.results)),
        plotly=get_plotlyjs(),
        **WAYS,
    )
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"--report: cannot write {path}: {error.strerror}") from error


def _summary(run: BenchRun) -> str:
    plan = run.plan
    stopped = " The run was interrupted; the results so far are shown." if run.interrupted else ""
    return (
        f"{run.began_at:%Y-%m-%d %H:%M} UTC. Each way was measured for {plan.duration:g} s after a warm-up of "
        f"{plan.warmup:g} s, one after the other.{stopped}"
    )


def _facts(run: BenchRun) -> str:
    facts = {"command": run.command, **versions()}
    return "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts.items())


# --- the table -------------------------------------------------------------------------------------------------


def _table(results: Sequence[Result]) -> str:
    head = _row("th", (*COLUMNS, ""))
    body = "".join(
        _row("td", (str(result.callers), *cells(result), remark_for(result)), result.way) for result in results
    )
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"


def _row(tag: str, texts: Iterable[str], way: str = "") -> str:
    cells = "".join(
        f"<{tag}{' class=text' if index in (1, len(COLUMNS)) else ''}>{html.escape(text)}</{tag}>"
        for index, text in enumerate(texts)
    )
    return f'<tr class="{way}">{cells}</tr>'


# --- the charts ------------------------------------------------------------------------------------------------


def _callers(results: Sequence[Result]) -> list[int]:
    return list(dict.fromkeys(result.callers for result in results))


def _charts(results: Sequence[Result]) -> str:
    return "".join(
        f"<section><h2>{callers} {'callers' if callers > 1 else 'caller'}</h2><div class=pair>"
        f'<figure><figcaption>Latency over time</figcaption><div id="time-{callers}" class=chart></div></figure>'
        f"<figure><figcaption>Latency by percentile</figcaption>"
        f'<div id="curve-{callers}" class=chart></div></figure></div></section>'
        for callers in _callers(results)
    )


def _figures(results: Sequence[Result]) -> dict[str, list[dict[str, Any]]]:
    """Returns the lines of each chart, by the chart's id."""
    figures: dict[str, list[dict[str, Any]]] = {}
    for callers in _callers(results):
        here = [result for result in results if result.callers == callers]
        figures[f"time-{callers}"] = [line for result in here for line in _over_time(result)]
        figures[f"curve-{callers}"] = [line for result in here for line in _by_percentile(result)]
    return figures


def _line(result: Result, name: str, xs: Sequence[float], ys: Sequence[float | None], **more: Any) -> dict[str, Any]:
    base = {"type": "scatter", "mode": "lines", "name": name, "legendgroup": result.way, "x": xs}
    colour = _COLOURS[result.way]
    line = {"color": colour, "width": 2, **more.pop("line", {})}
    return {**base, "y": [None if y is None else round(y * 1000, 3) for y in ys], "line": line, **more}


def _over_time(result: Result) -> Iterable[dict[str, Any]]:
    if result.recorder is None:
        return
    slices = result.recorder.slices
    at = [round(part.at, 3) for part in slices]
    yield _line(result, f"{result.way} p50", at, [part.p50 for part in slices])
    dashed = {"dash": "dot", "width": 1.5}
    yield _line(result, f"{result.way} p99", at, [part.p99 for part in slices], line=dashed)
    bad = [part for part in slices if part.failed]
    if bad:
        texts = [f"{part.failed} failed" for part in bad]
        marker = {"symbol": "x", "size": 5, "color": _COLOURS[result.way]}
        places = [part.p99 for part in bad]
        name = f"{result.way} failures"
        yield _line(result, name, [part.at for part in bad], places, mode="markers", marker=marker, text=texts)


def _by_percentile(result: Result) -> Iterable[dict[str, Any]]:
    if result.recorder is None:
        return
    curve = result.recorder.curve()
    xs = [round(100 / (100 - percentile), 4) for percentile, _ in curve]
    texts = [f"{percentile:.4g} %" for percentile, _ in curve]
    yield _line(result, result.way, xs, [seconds for _, seconds in curve], text=texts)


def _for_script(value: object) -> str:
    """Returns JSON that cannot end the script element that contains it."""
    return json.dumps(value).replace("<", "\\u003c")
