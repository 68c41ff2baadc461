"""Prints the probe's results as tables on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..._values.plain_text import plain
from .._output import shown
from .._target import Target
from .probe_address import DEFAULTS, AddressReport
from .recommend import Recommendation, code_of

# This many fit side by side on a terminal of eighty columns.
_ADDRESSES_SIDE_BY_SIDE = 3
_HEADERS_SHOWN = 12
_SERVICES_SHOWN = 100

# Text from a server is a `Text`, the rest is markup.
Row = tuple[str, Callable[[AddressReport], Text | str]]


def print_tables(
    console: Console, target: Target, reports: Sequence[AddressReport], recommendations: Sequence[Recommendation]
) -> None:
    """Prints the reports, then the recommendations if there are any."""
    count = f"{len(reports)} address" + ("es" if len(reports) != 1 else "")
    console.print()
    console.print(Text.assemble((plain(target.text), "bold"), "  ", (count, "dim")))
    for group in _groups(reports):
        console.print(_table(group))
    services = sorted({service for report in reports for service in report.services})
    if services:
        console.print("[bold]Services[/bold] (by reflection)")
        for service in services[:_SERVICES_SHOWN]:
            console.print(Text.assemble("  ", shown(service)))
        if len(services) > _SERVICES_SHOWN:
            console.print(f"  [dim]and {len(services) - _SERVICES_SHOWN:,} more: --json lists them[/dim]")
    if recommendations:
        _print_recommendations(console, recommendations)


def _groups(reports: Sequence[AddressReport]) -> Iterator[Sequence[AddressReport]]:
    for first in range(0, len(reports), _ADDRESSES_SIDE_BY_SIDE):
        yield reports[first : first + _ADDRESSES_SIDE_BY_SIDE]


def _table(reports: Sequence[AddressReport]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("", style="cyan", no_wrap=True)
    for report in reports:
        table.add_column(shown(report.address), overflow="fold")
    for name, text_of in _ROWS:
        cells = [text_of(report) for report in reports]
        if any(cells):
            table.add_row(name, *cells)
    return table


def _print_recommendations(console: Console, recommendations: Sequence[Recommendation]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", title_justify="left")
    table.add_column("Recommended", style="cyan", no_wrap=True)
    table.add_column("", justify="right", style="bold")
    table.add_column("reason", overflow="fold")
    for each in recommendations:
        table.add_row(each.field, repr(each.value), shown(each.reason))
    console.print()
    console.print(table)
    # On one line, however narrow the terminal is, so that it can be copied.
    console.print(code_of(recommendations), style="bold green", soft_wrap=True, highlight=False)
    console.print()


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.2f} ms"


def _answers(report: AddressReport) -> Text | str:
    if report.error is None:
        return "[green]yes[/green]"
    prefix = ("yes, but", "yellow") if report.answers else ("no:", "red")
    return Text.assemble(prefix, " ", shown(report.error))


def _tls(report: AddressReport) -> Text:
    if report.tls_seconds is None:
        return Text()
    return shown(f"{_ms(report.tls_seconds)}, {report.tls_version}")


def _alpn(report: AddressReport) -> Text | str:
    if report.tls_seconds is None:
        return ""
    return shown(report.alpn or "") or "[yellow]none chosen: rejected by gRPC since 1.67[/yellow]"


def _pings(report: AddressReport) -> str:
    if report.ping_seconds is None:
        return ""
    least, median = report.ping_seconds
    return f"{_ms(least)} min, {_ms(median)} median of {len(report.pings)}"


def _setting(name: str) -> Callable[[AddressReport], str]:
    def text_of(report: AddressReport) -> str:
        if report.settings is None:
            return ""
        value: int | None = getattr(report.settings, name)
        default: int | None = getattr(DEFAULTS, name)
        if value is not None:
            return f"{value:,}"
        return "[dim]not announced: no limit[/dim]" if default is None else f"[dim]{default:,}, the default[/dim]"

    return text_of


def _server(report: AddressReport) -> Text:
    if not report.answers or report.http_status is None:
        return Text()
    status = "" if report.http_status == 200 else f" (HTTP {report.http_status}: not gRPC)"  # noqa: PLR2004
    return Text.assemble(shown(report.server) if report.server else ("unknown", "dim"), (status, "red"))


def _headers(report: AddressReport) -> Text:
    lines = [f"{name}: {value}" for name, value in report.headers.items()]
    return Text("\n").join(map(shown, lines[:_HEADERS_SHOWN]))


def _health(report: AddressReport) -> Text | str:
    if not report.answers:
        return ""
    if report.health is None:
        return "[dim]not available[/dim]"
    return Text(plain(report.health), "green" if report.health == "SERVING" else "red")


def _reflection(report: AddressReport) -> Text | str:
    if not report.answers:
        return ""
    return shown(", ".join(report.reflection)) or "[dim]not available[/dim]"


_ROWS: Sequence[Row] = (
    ("answers", _answers),
    ("connect", lambda report: _ms(report.connect_seconds)),
    ("TLS", _tls),
    ("ALPN", _alpn),
    ("PING", _pings),
    ("max streams", _setting("max_concurrent_streams")),
    ("window (bytes)", _setting("initial_window_size")),
    ("max frame (bytes)", _setting("max_frame_size")),
    ("max headers (bytes)", _setting("max_header_list_size")),
    ("server", _server),
    ("other headers", _headers),
    ("health", _health),
    ("reflection", _reflection),
)
