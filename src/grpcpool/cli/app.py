"""The command line: what can be asked, and how it is answered. What is done, is done elsewhere."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from .._demo.run import run_demo
from .._values.config import PoolConfig
from ._failure import INSTALL, CommandError, ExitCode
from ._tls import Tls

_EXIT_CODES: Final = """Exit codes: 0 done; 1 it could not be done, and one line says why; 2 the command line is wrong;
130 interrupted by Ctrl-C."""

app = typer.Typer(
    name="grpcpool",
    help="A connection pool for gRPC in Python: see it work, look at a server, measure calls to it.",
    epilog=_EXIT_CODES,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

_TLS = "TLS"
# A day. What counts on is the clock of a socket, and gRPC's: neither takes any number of seconds.
_LONGEST: Final = 86_400
TargetOf = Annotated[
    str,
    typer.Argument(
        help="host:port, dns:///host:port, ipv4:1.2.3.4:443, ipv6:\\[::1]:443 or unix:path", show_default=False
    ),
]
TlsOf = Annotated[bool, typer.Option("--tls", help="Use TLS.", rich_help_panel=_TLS)]
CaOf = Annotated[
    Path | None,
    typer.Option(
        "--ca", help="Certificates to trust, PEM; the system's if not given. Implies --tls.", rich_help_panel=_TLS
    ),
]
CertOf = Annotated[
    Path | None,
    typer.Option("--cert", help="The client's certificate, PEM. Implies --tls.", rich_help_panel=_TLS),
]
KeyOf = Annotated[Path | None, typer.Option("--key", help="Its key, PEM.", rich_help_panel=_TLS)]
AuthorityOf = Annotated[
    str | None,
    typer.Option("--authority", help="Name the certificate is for, and calls' :authority.", rich_help_panel=_TLS),
]
JsonOf = Annotated[bool, typer.Option("--json", help="Write JSON to standard output, with stable keys.")]


def _examples(*lines: str) -> str:
    """The end of a help text. Lines alone stay lines."""
    return "\n\n".join(["[bold]Examples[/bold]", *(f"[green]$ {line}[/green]" for line in lines), _EXIT_CODES])


@app.command(
    epilog=_examples("grpcpool demo", "grpcpool demo --aio"),
    short_help="Shows what a pool does, on a server of its own.",
)
def demo(
    aio: Annotated[bool, typer.Option("--aio", help="The same on asyncio: tasks, grpc.aio and grpcpool.aio.")] = False,
) -> None:
    """Starts a gRPC server of its own on this machine and shows what a pool does.

    Leases and connections under a burst, then calls on one channel, on gRPC's own connection scaling and on a pool.
    Takes about ten seconds, and twenty at most; ends with 0 if nothing was lost.
    """
    with _told_in_one_line():
        raise typer.Exit(run_demo(sys.stdout, aio=aio))


@app.command(
    epilog=_examples(
        "grpcpool probe localhost:50051",
        "grpcpool probe dns:///orders.internal:443 --tls --in-flight 2000",
        "grpcpool probe ipv4:10.0.0.7:8443 --ca ca.pem --authority orders.internal",
        "grpcpool probe unix:/run/orders.sock --json",
    ),
    short_help="Looks at a server, and recommends a configuration for a pool.",
)
def probe(
    target: TargetOf,
    tls: TlsOf = False,
    ca: CaOf = None,
    cert: CertOf = None,
    key: KeyOf = None,
    authority: AuthorityOf = None,
    timeout: Annotated[float, typer.Option(help="Seconds that each step may take.", min=0.001, max=_LONGEST)] = 5.0,
    in_flight: Annotated[int, typer.Option(help="Calls at once that the pool is to carry.", min=1)] = 500,
    with_json: JsonOf = False,
) -> None:
    """Looks at a server, and recommends a configuration for a pool.

    Speaks HTTP/2 with every address of the target, and tells what gRPC does not: the limit of streams and the other
    settings, how long connecting and a round trip take, who answers, and whether health and reflection are served.
    """
    with _told_in_one_line():
        run = _part("grpcpool.cli._probe.run").run_probe
        options = Tls(tls, ca, cert, key, authority)
        run(target, options, timeout=timeout, in_flight=in_flight, with_json=with_json, console=_console())


@app.command(
    epilog=_examples(
        "grpcpool bench localhost:50051 shop.Orders/Get --data '{\"id\": 7}'",
        "grpcpool bench localhost:50051 shop.Orders/Get --concurrency 1,50,400 --report report.html",
        "grpcpool bench localhost:50051 shop.Orders/List --proto shop.proto --compare bare,pool",
        "grpcpool bench dns:///orders:443 shop.Orders/Get --data @request.json --tls --json",
    ),
    short_help="Measures calls: one channel, gRPC's own scaling, a pool.",
)
def bench(
    context: typer.Context,
    target: TargetOf,
    method: Annotated[
        str, typer.Argument(help="package.Service/Method, unary or server-streaming", show_default=False)
    ],
    data: Annotated[str, typer.Option(help="The request as JSON, or @ and a file that has it.")] = "{}",
    proto: Annotated[
        list[Path] | None,
        typer.Option(help="A .proto file that describes the method, may be given again; else reflection does."),
    ] = None,
    concurrency: Annotated[str, typer.Option(help="Callers (threads) at once; several, with commas.")] = "1,50,400",
    compare: Annotated[str, typer.Option(help="Ways to call, with commas.")] = "bare,native,pool",
    duration: Annotated[float, typer.Option(help="Seconds that each way is measured.", min=0.1, max=_LONGEST)] = 10.0,
    warmup: Annotated[float, typer.Option(help="Seconds before that.", min=0, max=_LONGEST)] = 2.0,
    timeout: Annotated[float, typer.Option(help="Seconds that a call may take.", min=0.001, max=_LONGEST)] = 10.0,
    max_size: Annotated[int, typer.Option(help="Connections of the pool, and of native, at most.", min=1)] = 10,
    max_streams: Annotated[int, typer.Option(help="Calls on each connection of the pool, at most.", min=1)] = 90,
    tls: TlsOf = False,
    ca: CaOf = None,
    cert: CertOf = None,
    key: KeyOf = None,
    authority: AuthorityOf = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a report to this file, HTML, to be opened by a browser.")
    ] = None,
    with_json: JsonOf = False,
) -> None:
    """Measures calls: over one channel (bare), over gRPC's own connection scaling (native), over a pool.

    Each caller makes his next call when his last has ended (a closed loop), for the same time each way, one way after
    the other. Ctrl-C ends it with what there is by then, the report included.
    """
    with _told_in_one_line():
        part = _part("grpcpool.cli._bench.run")
        config = PoolConfig(min_size=1, max_size=max_size, max_streams=max_streams)
        wish = part.Wish(concurrency, compare, report, context.obj)
        server = part.Server(target, Tls(tls, ca, cert, key, authority), config)
        plan = part.make_plan(server, method, data, proto or (), (timeout, warmup, duration))
        raise typer.Exit(part.run_bench(server, plan, wish, with_json=with_json, console=_console()))


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: Those of the command line; those of the process if not given.

    Raises:
        SystemExit: Always, with the exit code, unless there were no arguments.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        app(given or ["--help"], prog_name="grpcpool", obj=given)
    except SystemExit:
        if given:
            raise
    return ExitCode.DONE


def _console() -> Console:
    return Console(highlight=False)


@contextlib.contextmanager
def _told_in_one_line() -> Iterator[None]:
    """What fails in the ``with`` block, ends the command with one line and an exit code."""
    try:
        yield
    except CommandError as error:
        typer.echo(f"grpcpool: {error}", err=True)
        raise typer.Exit(error.code) from None
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except BrokenPipeError:
        # Whoever read what is written has had enough: typer ends the command without a word.
        raise
    except OSError as error:
        typer.echo(f"grpcpool: {error}", err=True)
        raise typer.Exit(ExitCode.FAILED) from None


def _part(name: str) -> Any:
    """Imports what does the work.

    Raises:
        CommandError: Something that it needs is not installed: typer alone may have come with something else.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise CommandError(f"there is no {error.name} here: {INSTALL}") from error
