"""A run on a terminal: a bar while it goes on, a table at its end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from .result import PERCENTILES, Account, Plan, Result
from .tally import Tally

Telling = Callable[[str, int], Callable[[Tally], None]]

HEAD: Final = ("callers", "way", "calls/s", "p50", "p90", "p99", "p99.9", "max", "TCP", "failed")
"""Latencies are milliseconds."""


@contextlib.contextmanager
def progress_of(console: Console, plan: Plan, measurings: int) -> Iterator[Telling]:
    """Shows a bar in the ``with`` block, if there is a terminal.

    Gives what, for a way and its callers, shows how far they are.
    """
    columns = (
        TextColumn("{task.description:24}"),
        BarColumn(),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(compact=True),
    )
    each = plan.warmup + plan.duration
    # Disabled, some releases still end with an empty line.
    console.quiet = not console.is_terminal
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=measurings * each, told="")
        begun = 0

        def begin(way: str, callers: int) -> Callable[[Tally], None]:
            nonlocal begun
            done = begun * each
            begun += 1
            progress.update(task, completed=done, description=f"{way}, {callers} callers", told="warms up")
            return lambda tally: progress.update(task, completed=_done(done, plan, tally), told=_told(tally))

        yield begin


def _done(before: float, plan: Plan, tally: Tally) -> float:
    return before + (plan.warmup + tally.elapsed if tally.elapsed else 0.0)


def _told(tally: Tally) -> str:
    if not tally.elapsed:
        return "warms up"
    failed = f"  [red]{tally.failed} failed[/red]" if tally.failed else ""
    return f"{tally.completed / tally.elapsed:,.0f} calls/s  p50 {milliseconds(tally.percentile(50))} ms{failed}"


def show(console: Console, account: Account) -> None:
    """Shows the table."""
    stopped = " (interrupted)" if account.interrupted else ""
    console.print(
        f"\n[bold]{escape(account.plan.method.path)}[/bold] on {escape(account.target)}, "
        f"{account.plan.duration:g} s each{stopped}"
    )
    console.print(_table(account.results))
    for result in account.results:
        if remark := remark_on(result):
            console.print(f"{result.way}, callers {result.callers}: {escape(remark)}")
    console.print("[dim]Latencies in ms. A closed loop: a caller calls again when his last call has ended.[/dim]\n")


def _table(results: Sequence[Result]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", collapse_padding=True)
    for name in HEAD:
        table.add_column(name, justify="left" if name == "way" else "right", no_wrap=True)
    shown: int | None = None
    for result in results:
        if shown is not None and shown != result.callers:
            table.add_section()
        *numbers, failed = cells(result)
        style = "bold red" if result.tally is not None and result.tally.failed else ""
        head = "" if shown == result.callers else str(result.callers)
        table.add_row(head, *numbers, Text(failed, style=style))
        shown = result.callers
    return table


def cells(result: Result) -> tuple[str, ...]:
    """A row of the table, without the callers."""
    tally = result.tally
    if tally is None:
        return (result.way, *["-"] * (len(HEAD) - 2))
    return (
        result.way,
        f"{result.rate:,.0f}",
        *(milliseconds(tally.percentile(percentile)) for percentile in PERCENTILES),
        "?" if result.connections is None else str(result.connections),
        f"{tally.failed:,}",
    )


def remark_on(result: Result) -> str:
    """What the numbers do not tell; empty if they tell all."""
    if result.tally is None:
        return "not in this grpcio"
    failures = [f"{count:,} failed with {failure}" for failure, count in result.tally.failures.most_common(3)]
    return "; ".join([*failures, *([] if result.complete else ["cut short"])])


def milliseconds(seconds: float | None) -> str:
    """A latency with three figures, without its unit."""
    if seconds is None:
        return "-"
    value = seconds * 1000
    digits = 0 if value >= 100 else 1 if value >= 10 else 2  # noqa: PLR2004
    return f"{value:,.{digits}f}"
