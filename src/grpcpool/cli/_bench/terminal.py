"""Shows a run on a terminal: a progress bar while it goes on, a table at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Final

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ..._values.plain_text import plain
from .._output import shown
from .levels import Level
from .recorder import CallRecorder
from .result import PERCENTILES, BenchRun, Plan, Result

ProgressReporter = Callable[[str, Level | str], Callable[[CallRecorder], None]]

_MEASURED: Final = ("calls/s", "p50", "p90", "p99", "p99.9", "max", "TCP")
_CLOSED: Final = ("callers", "way", *_MEASURED, "failed")
_OPEN: Final = ("rate", "way", "offered/s", *_MEASURED, "failed", "dropped")

_WIDEST: Final = 1000

CLOSED_LOOP: Final = "A closed loop: a caller calls again when its last call has ended."
OPEN_LOOP: Final = "An open loop: calls are due at random times. Latencies begin when a call is due."
"""How to read the latencies."""


@contextlib.contextmanager
def progress_of(console: Console, plan: Plan, measurements: int) -> Iterator[ProgressReporter]:
    """Shows a progress bar during the ``with`` block, if standard error is a terminal.

    Yields a function that starts the progress of one way at one level, and returns the function to update it.
    """
    columns = (
        TextColumn("{task.description:24}"),
        BarColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(compact=True),
    )
    each = plan.warmup + plan.duration
    # `Progress(disable=True)` still prints an empty line in some releases.
    console.quiet = not console.is_terminal
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=measurements * each, status="")
        started = 0

        def begin(way: str, level: Level | str) -> Callable[[CallRecorder], None]:
            nonlocal started
            done = started * each
            started += 1
            progress.update(task, completed=done, description=f"{way}, {level}", status="warming up")
            return lambda recorder: progress.update(
                task, completed=_done(done, plan, recorder), status=_status(recorder)
            )

        yield begin


def _done(before: float, plan: Plan, recorder: CallRecorder) -> float:
    return before + (plan.warmup + recorder.elapsed if recorder.elapsed else 0.0)


def _status(recorder: CallRecorder) -> str:
    if not recorder.elapsed:
        return "warming up"
    failed = f"  [red]{recorder.failed} failed[/red]" if recorder.failed else ""
    # The median of all calls would have to sort them each time.
    p50 = recorder.slices[-1].p50 if recorder.slices else None
    return f"{recorder.completed_in_time / recorder.elapsed:,.0f} calls/s  p50 {milliseconds(p50)} ms{failed}"


def print_table(console: Console, run: BenchRun) -> None:
    """Prints the table."""
    stopped = " (interrupted)" if run.interrupted else ""
    console.print()
    rest = f" on {plain(run.target)}, {run.plan.duration:g} s each{stopped}"
    console.print(Text.assemble((plain(run.plan.method.path), "bold"), rest))
    if run.capacity is not None:
        console.print(capacity_of(run.capacity))
    _print_whole(console, _table(run))
    for result in run.results:
        if remark := remark_for(result):
            console.print(shown(f"{result.way}, {result.level}: {remark}"))
    console.print(f"[dim]Latencies in ms. {OPEN_LOOP if run.is_open else CLOSED_LOOP}[/dim]\n")


def _print_whole(console: Console, table: Table) -> None:
    """Prints the table without cutting figures: where the terminal is narrower, it breaks the lines."""
    width = console.width
    console.width = max(width, Measurement.get(console, console.options.update(width=_WIDEST), table).maximum)
    console.print(table)
    console.width = width


def _table(run: BenchRun) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", collapse_padding=True)
    for name in columns_of(run):
        table.add_column(name, justify="left" if name == "way" else "right", no_wrap=True)
    last: Level | None = None
    for result in run.results:
        if last is not None and last != result.level:
            table.add_section()
        head, *numbers = cells(result)
        troubles = 2 if result.level.is_open else 1
        red = [Text(number, style="" if number in "-0" else "bold red") for number in numbers[-troubles:]]
        table.add_row("" if last == result.level else head, *numbers[:-troubles], *red)
        last = result.level
    return table


def columns_of(run: BenchRun) -> tuple[str, ...]:
    """Returns the columns of the table. Latencies are milliseconds."""
    return _OPEN if run.is_open else _CLOSED


def cells(result: Result) -> tuple[str, ...]:
    """Returns a row of the table."""
    recorder, offered = result.recorder, result.offered
    head = (result.level.number, result.way)
    if recorder is None:
        return (*head, *["-"] * (len(_OPEN if result.level.is_open else _CLOSED) - len(head)))
    return (
        *head,
        *([] if offered is None else [f"{offered.offered_rate:,.0f}"]),
        f"{result.rate:,.0f}",
        *(milliseconds(recorder.percentile(percentile)) for percentile in PERCENTILES),
        "?" if result.connections is None else str(result.connections),
        f"{recorder.failed:,}",
        *([] if offered is None else [f"{offered.dropped:,}"]),
    )


def capacity_of(capacity: Result) -> str:
    """Describes the measured capacity."""
    return f"Capacity: {capacity.rate:,.0f} calls/s, completed over one channel by {capacity.level} in a closed loop."


def remark_for(result: Result) -> str:
    """Returns what the numbers do not show; empty if there is nothing to add."""
    if result.recorder is None:
        return "not supported by this grpcio"
    remarks = [f"{count:,} failed with {failure}" for failure, count in result.recorder.failures.most_common(3)]
    if result.offered is not None and result.offered.unfinished:
        remarks.append(f"{result.offered.unfinished:,} unfinished")
    return "; ".join([*remarks, *([] if result.complete else ["interrupted"])])


def milliseconds(seconds: float | None) -> str:
    """Returns a latency in milliseconds with three figures, without the unit."""
    if seconds is None:
        return "-"
    value = seconds * 1000
    digits = 0 if value >= 100 else 1 if value >= 10 else 2  # noqa: PLR2004
    return f"{value:,.{digits}f}"
