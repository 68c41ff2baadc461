"""The command line: commands, options and help texts. The work is done in other modules."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

from .._demo.run import run_demo
from .._values.config import PoolConfig
from .._values.version import __version__
from ._errors import INSTALL, CommandError, ExitCode, UsageError, report_os_error
from ._output import new_console, without_grpcs_log
from ._tls import Tls

_EXIT_CODES: Final = """Exit codes: 0 success; 1 failure, explained in one line; 2 wrong command line;
130 interrupted by Ctrl-C."""

app = typer.Typer(
    name="grpcpool",
    help="A connection pool for gRPC in Python: see it work, inspect a server, measure calls to it.",
    epilog=_EXIT_CODES,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)

F = TypeVar("F", bound=Callable[..., Any])

_TLS = "TLS"
_LOAD = "Load"
# A day. Sockets and gRPC do not accept arbitrarily long timeouts.
_MAX_SECONDS: Final = 86_400
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
        "--ca",
        help="Certificates to trust, PEM. Default: the system's in probe, gRPC's in bench. Implies --tls.",
        rich_help_panel=_TLS,
    ),
]
CertOf = Annotated[
    Path | None,
    typer.Option("--cert", help="Client certificate, PEM. Implies --tls.", rich_help_panel=_TLS),
]
KeyOf = Annotated[Path | None, typer.Option("--key", help="Key of the client certificate, PEM.", rich_help_panel=_TLS)]
AuthorityOf = Annotated[
    str | None,
    typer.Option(
        "--authority", help="Name that the certificate must match, and the :authority of calls.", rich_help_panel=_TLS
    ),
]
MetadataOf = Annotated[
    list[str] | None,
    typer.Option(
        "--metadata", "-H", help="Metadata for each call, as in 'name: value'; may be repeated. -bin: base64."
    ),
]
ConcurrencyOf = Annotated[
    str | None,
    typer.Option(
        help="Numbers of concurrent callers (threads), comma-separated. Default: 1,50,400.", rich_help_panel=_LOAD
    ),
]
RateOf = Annotated[
    str | None,
    typer.Option(
        help="Calls per second (an open loop, on asyncio), comma-separated; 70% is a share of the capacity, which "
        "is measured first.",
        rich_help_panel=_LOAD,
    ),
]
SeedOf = Annotated[int, typer.Option(help="Seed of the random schedule of --rate.", rich_help_panel=_LOAD)]
MaxInFlightOf = Annotated[
    int,
    typer.Option(help="Calls in flight beyond which --rate drops calls.", min=1, max=1_000_000, rich_help_panel=_LOAD),
]
JsonOf = Annotated[bool, typer.Option("--json", help="Print JSON with stable keys.")]


def _examples(*lines: str) -> str:
    """Returns the end of a help text, each example on a line of its own."""
    return "\n\n".join(["[bold]Examples[/bold]", *(f"[green]$ {line}[/green]" for line in lines), _EXIT_CODES])


def _command(summary: str, *examples: str) -> Callable[[F], F]:
    """Makes a function a command, whose help is its docstring."""

    def register(function: F) -> F:
        paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
        # Typer would keep the line breaks of all paragraphs but the first.
        text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
        return app.command(help=text, epilog=_examples(*examples), short_help=summary)(function)

    return register


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"grpcpool {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """The options of the command as a whole; `_print_version` has acted on them."""
    del version


@_command("Shows what a pool does, on local servers that it starts.", "grpcpool demo", "grpcpool demo --aio")
def demo(
    aio: Annotated[bool, typer.Option("--aio", help="Use asyncio: tasks, grpc.aio and grpcpool.aio.")] = False,
) -> None:
    """Starts local gRPC servers and shows what a pool does.

    More calls than one connection carries, over one channel, gRPC's own connection scaling and a pool; then a sick
    server and a rolling restart, beside gRPC's round_robin; then leases. Takes about fifteen seconds, longer on a busy
    machine. Exits with 0 if nothing was lost.
    """
    with _errors_in_one_line():
        raise typer.Exit(run_demo(sys.stdout, aio=aio))


@_command(
    "Inspects a server, and recommends a configuration for a pool.",
    "grpcpool probe localhost:50051",
    "grpcpool probe dns:///orders.internal:443 --tls --in-flight 2000",
    "grpcpool probe ipv4:10.0.0.7:8443 --ca ca.pem --authority orders.internal",
    "grpcpool probe unix:/run/orders.sock --json",
)
def probe(
    target: TargetOf,
    tls: TlsOf = False,
    ca: CaOf = None,
    cert: CertOf = None,
    key: KeyOf = None,
    authority: AuthorityOf = None,
    timeout: Annotated[
        float, typer.Option(help="Seconds that it may take in all.", min=0.001, max=_MAX_SECONDS)
    ] = 10.0,
    in_flight: Annotated[int, typer.Option(help="Concurrent calls that the pool must carry.", min=1)] = 500,
    with_json: JsonOf = False,
) -> None:
    """Inspects a server, and recommends a configuration for a pool.

    Connects to every address of the target and shows what gRPC does not: the stream limit and the other HTTP/2
    settings, the time to connect and the round-trip time, the server software, health and reflection.
    """
    with _errors_in_one_line():
        run = _import_part("grpcpool.cli._probe.run").run_probe
        options = Tls(tls, ca, cert, key, authority)
        run(target, options, timeout=timeout, in_flight=in_flight, with_json=with_json, console=new_console())


@_command(
    "Measures calls: one channel, gRPC's own scaling, a pool.",
    "grpcpool bench localhost:50051 shop.Orders/Get --data '{\"id\": 7}'",
    "grpcpool bench localhost:50051 shop.Orders/Get --concurrency 1,50,400 --report report.html",
    "grpcpool bench localhost:50051 shop.Orders/Get --rate 50%,90%,120% -H 'authorization: Bearer ...'",
    "grpcpool bench localhost:50051 shop.Orders/List --proto shop.proto --compare bare,pool",
    "grpcpool bench dns:///orders:443 shop.Orders/Get --data @request.json --tls --json",
)
def bench(
    context: typer.Context,
    target: TargetOf,
    method: Annotated[
        str, typer.Argument(help="package.Service/Method, unary or server-streaming", show_default=False)
    ],
    data: Annotated[str, typer.Option(help="The request as JSON, or @ and the path of a JSON file.")] = "{}",
    proto: Annotated[
        list[Path] | None,
        typer.Option(help="A .proto file that describes the method; may be repeated. Default: server reflection."),
    ] = None,
    metadata: MetadataOf = None,
    concurrency: ConcurrencyOf = None,
    rate: RateOf = None,
    seed: SeedOf = 1,
    max_in_flight: MaxInFlightOf = 10_000,
    compare: Annotated[str, typer.Option(help="Ways to call, comma-separated.")] = "bare,native,pool",
    duration: Annotated[float, typer.Option(help="Seconds to measure each way.", min=0.1, max=_MAX_SECONDS)] = 10.0,
    warmup: Annotated[
        float, typer.Option(help="Seconds of warm-up before each measurement.", min=0, max=_MAX_SECONDS)
    ] = 2.0,
    timeout: Annotated[
        float, typer.Option(help="Seconds that a call, or reflection, may take.", min=0.001, max=_MAX_SECONDS)
    ] = 10.0,
    max_size: Annotated[int, typer.Option(help="Maximum connections of pool and native.", min=1)] = 10,
    max_streams: Annotated[
        int, typer.Option(help="Maximum concurrent calls on each connection of the pool.", min=1)
    ] = 90,
    tls: TlsOf = False,
    ca: CaOf = None,
    cert: CertOf = None,
    key: KeyOf = None,
    authority: AuthorityOf = None,
    report: Annotated[Path | None, typer.Option(help="Write an HTML report to this file.")] = None,
    with_json: JsonOf = False,
) -> None:
    """Measures calls: over one channel (bare), over gRPC's own connection scaling (native), over a pool.

    With --concurrency, each caller makes its next call when its last one has ended (a closed loop). With --rate, calls
    are due at random times, whatever becomes of earlier ones (an open loop). The ways are measured one after the other,
    for the same time. Ctrl-C ends the run with the results so far, the report included.
    """
    with _errors_in_one_line():
        part = _import_part("grpcpool.cli._bench.run")
        try:
            config = PoolConfig(min_size=1, max_size=max_size, max_streams=max_streams)
        except ValueError as error:
            raise UsageError(str(error)) from error
        given = metadata or ()
        new_options = _import_part("grpcpool.cli._bench.options").BenchOptions
        options = new_options(concurrency, compare, report, context.obj, rate=rate, metadata=given)
        server = part.Server(target, Tls(tls, ca, cert, key, authority), config)
        with without_grpcs_log():
            times = (timeout, warmup, duration)
            plan = part.make_plan(
                server, method, data, proto or (), times, metadata=given, seed=seed, max_in_flight=max_in_flight
            )
            code = part.run_bench(server, plan, options, with_json=with_json, console=new_console())
        raise typer.Exit(code)


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: The command line; if not given, that of the process.

    Raises:
        SystemExit: Always, with the exit code, unless there were no arguments.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    # What a server sent, or a path, may have characters that the terminal's encoding lacks.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(given or ["--help"], prog_name="grpcpool", obj=given)
    except SystemExit:
        if given:
            raise
    except OSError as error:
        raise SystemExit(report_os_error(error)) from None
    return ExitCode.DONE


@contextlib.contextmanager
def _errors_in_one_line() -> Iterator[None]:
    """Turns an error in the ``with`` block into one line on standard error and an exit code."""
    try:
        yield
    except CommandError as error:
        typer.echo(f"grpcpool: {error}", err=True)
        raise typer.Exit(error.code) from None
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except BrokenPipeError:
        # The reader of the output has closed it: typer ends the command silently.
        raise
    except OSError as error:
        raise typer.Exit(report_os_error(error)) from None


def _import_part(name: str) -> Any:
    """Imports the module that does the work.

    Raises:
        CommandError: A dependency is missing: typer may have been installed without the rest of the extra.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise CommandError(f"{error.name} is not installed: {INSTALL}") from error
