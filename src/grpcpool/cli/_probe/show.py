"""What was found, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .._target import Target
from .advice import Advice, code_of
from .look import DEFAULTS, Finding

# As many as a terminal of eighty columns shows side by side.
_ABREAST = 3
_HEAD = 12

Row = tuple[str, Callable[[Finding], str]]


def show(console: Console, target: Target, findings: Sequence[Finding], advice: Sequence[Advice]) -> None:
    """Shows all of it; without advice, only what was found."""
    count = f"{len(findings)} address" + ("es" if len(findings) != 1 else "")
    console.print(f"\n[bold]{escape(target.text)}[/bold]  [dim]{count}[/dim]")
    for some in _chunks(findings):
        console.print(_table(some))
    services = sorted({service for finding in findings for service in finding.services})
    if services:
        console.print("[bold]Services[/bold] (by reflection)")
        for service in services:
            console.print(f"  {escape(service)}", highlight=False)
    if advice:
        _show_advice(console, advice)


def _chunks(findings: Sequence[Finding]) -> Iterator[Sequence[Finding]]:
    for first in range(0, len(findings), _ABREAST):
        yield findings[first : first + _ABREAST]


def _table(findings: Sequence[Finding]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("", style="cyan", no_wrap=True)
    for finding in findings:
        table.add_column(escape(finding.address), overflow="fold")
    for name, told in _ROWS:
        cells = [told(finding) for finding in findings]
        if any(cells):
            table.add_row(name, *cells)
    return table


def _show_advice(console: Console, advice: Sequence[Advice]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold", title_justify="left")
    table.add_column("Recommended", style="cyan", no_wrap=True)
    table.add_column("", justify="right", style="bold")
    table.add_column("because", overflow="fold")
    for each in advice:
        table.add_row(each.field, repr(each.value), escape(each.reason))
    console.print()
    console.print(table)
    # In one line, however wide the terminal is: it is to be copied.
    console.print(code_of(advice), style="bold green", soft_wrap=True, highlight=False)
    console.print()


def _ms(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.2f} ms"


def _answers(finding: Finding) -> str:
    if finding.error is None:
        return "[green]yes[/green]"
    prefix = "[yellow]yes, but[/yellow] " if finding.answers else "[red]no:[/red] "
    return prefix + escape(finding.error)


def _tls(finding: Finding) -> str:
    if finding.tls_seconds is None:
        return ""
    return f"{_ms(finding.tls_seconds)}, {finding.tls_version}"


def _alpn(finding: Finding) -> str:
    if finding.tls_seconds is None:
        return ""
    return finding.alpn or "[yellow]none chosen: gRPC refuses that since 1.67[/yellow]"


def _pings(finding: Finding) -> str:
    if finding.ping_seconds is None:
        return ""
    least, median = finding.ping_seconds
    return f"{_ms(least)} least, {_ms(median)} median of {len(finding.pings)}"


def _setting(name: str) -> Callable[[Finding], str]:
    def told(finding: Finding) -> str:
        if finding.settings is None:
            return ""
        value: int | None = getattr(finding.settings, name)
        default: int | None = getattr(DEFAULTS, name)
        if value is not None:
            return f"{value:,}"
        return "[dim]not announced: no limit[/dim]" if default is None else f"[dim]{default:,}, the default[/dim]"

    return told


def _server(finding: Finding) -> str:
    if not finding.answers or finding.http_status is None:
        return ""
    status = "" if finding.http_status == 200 else f" [red](HTTP {finding.http_status}: no gRPC)[/red]"  # noqa: PLR2004
    return (escape(finding.server) if finding.server else "[dim]does not say[/dim]") + status


def _headers(finding: Finding) -> str:
    told = [f"{name}: {value}" for name, value in finding.headers.items()]
    return escape("\n".join(told[:_HEAD]))


def _health(finding: Finding) -> str:
    if not finding.answers:
        return ""
    if finding.health is None:
        return "[dim]not served[/dim]"
    return f"[green]{finding.health}[/green]" if finding.health == "SERVING" else f"[red]{finding.health}[/red]"


def _reflection(finding: Finding) -> str:
    if not finding.answers:
        return ""
    return ", ".join(finding.reflection) or "[dim]not served[/dim]"


_ROWS: Sequence[Row] = (
    ("answers", _answers),
    ("connect", lambda finding: _ms(finding.connect_seconds)),
    ("TLS", _tls),
    ("ALPN", _alpn),
    ("PING", _pings),
    ("streams at once", _setting("max_concurrent_streams")),
    ("window (bytes)", _setting("initial_window_size")),
    ("frame (bytes)", _setting("max_frame_size")),
    ("headers (bytes)", _setting("max_header_list_size")),
    ("server", _server),
    ("its headers", _headers),
    ("health", _health),
    ("reflection", _reflection),
)
