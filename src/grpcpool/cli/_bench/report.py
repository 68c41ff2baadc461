"""Writes the report: one self-contained HTML file that works offline.

It has no script. A content security policy keeps the browser from loading anything.
"""

from __future__ import annotations

import html
import importlib.resources
import pathlib
import string
from collections.abc import Sequence

from .._errors import CommandError
from .channels import WAYS
from .charts import draw_by_rate, draw_charts, levels_of
from .result import BenchRun, Result, versions
from .terminal import CLOSED_LOOP, OPEN_LOOP, capacity_of, cells, columns_of, remark_for


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
        loop=OPEN_LOOP if run.is_open else CLOSED_LOOP,
        table=_table(run),
        facts=_facts(run),
        charts=_charts(run.results),
        **WAYS,
    )
    # The command line may have bytes that are not UTF-8. This cannot fail while the file is half written.
    content = text.encode("utf-8", "backslashreplace")
    try:
        path.write_bytes(content)
    except OSError as error:
        raise CommandError(f"--report: cannot write {path}: {error.strerror}") from error


def _summary(run: BenchRun) -> str:
    plan = run.plan
    stopped = " The run was interrupted; the results so far are shown." if run.interrupted else ""
    capacity = "" if run.capacity is None else f" {capacity_of(run.capacity)}"
    return (
        f"{run.began_at:%Y-%m-%d %H:%M} UTC. Each way was measured for {plan.duration:g} s after a warm-up of "
        f"{plan.warmup:g} s, one after the other.{capacity}{stopped}"
    )


def _facts(run: BenchRun) -> str:
    facts = {"command": run.command, **({"seed": str(run.plan.seed)} if run.is_open else {}), **versions()}
    return "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd>" for name, value in facts.items())


# --- the table -------------------------------------------------------------------------------------------------


def _table(run: BenchRun) -> str:
    columns = columns_of(run)
    head = _row("th", (*columns, ""))
    body = "".join(_row("td", (*cells(result), remark_for(result)), result.way) for result in run.results)
    return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"


def _row(tag: str, texts: Sequence[str], way: str = "") -> str:
    text_columns = (1, len(texts) - 1)
    cells = "".join(
        f"<{tag}{' class=text' if index in text_columns else ''}>{html.escape(text)}</{tag}>"
        for index, text in enumerate(texts)
    )
    return f'<tr class="{way}">{cells}</tr>'


# --- the charts ------------------------------------------------------------------------------------------------


def _charts(results: Sequence[Result]) -> str:
    by_rate = draw_by_rate(results)
    return (
        _section("Latency by rate", [("Milliseconds by calls per second offered", by_rate)]) if by_rate else ""
    ) + "".join(
        _section(str(level), draw_charts(f"{number}", [result for result in results if result.level == level]))
        for number, level in enumerate(levels_of(results), 1)
    )


def _section(title: str, charts: Sequence[tuple[str, str]]) -> str:
    figures = "".join(
        f"<figure><figcaption>{html.escape(caption)}</figcaption>{drawn}</figure>" for caption, drawn in charts
    )
    return f'<section><h2>{html.escape(title)}</h2><div class="charts">{figures}</div></section>'
