"""The command ``grpcpool``, also ``python -m grpcpool``.

With the extra ``cli`` it runs `grpcpool.cli`. Without it, only the demonstration is available, which needs only grpcio.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence

from . import _early_interrupt
from ._demo.run import run_demo
from ._values.version import __version__
from .cli._errors import INSTALL, ExitCode

_NEEDS_EXTRA = {
    "probe": "inspects a server, and recommends a configuration",
    "bench": "measures calls to a server",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="grpcpool", description="A connection pool for gRPC in Python.")
    parser.add_argument("--version", action="version", version=f"grpcpool {__version__}")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="command")
    description = (
        "Starts local gRPC servers and shows what a pool does: with more calls than one connection carries, a sick "
        "server, a rolling restart, and leases. Uses threads or, with --aio, asyncio. Takes about fifteen seconds, "
        "longer on a busy machine. Exits with 0 if nothing was lost."
    )
    demo = commands.add_parser(
        "demo", help="shows what a pool does, on local servers that it starts", description=description
    )
    demo.add_argument("--aio", action="store_true", help="use asyncio: tasks, grpc.aio and grpcpool.aio")
    for name, summary in _NEEDS_EXTRA.items():
        commands.add_parser(name, help=f"{summary}; needs {INSTALL}")
    return parser


def _run_without_extra(arguments: Sequence[str]) -> int:
    """Runs the command without the extra ``cli``; returns the exit code."""
    if arguments and arguments[0] in _NEEDS_EXTRA:
        sys.stderr.write(f"grpcpool: {arguments[0]} needs the extra cli: {INSTALL}\n")
        return ExitCode.FAILED
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    try:
        return run_demo(sys.stdout, aio=options.aio)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code or raises `SystemExit` with it."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] != ["demo"]:
        _early_interrupt.restore()
    if importlib.util.find_spec("typer") is None or importlib.util.find_spec("rich") is None:
        return _run_without_extra(given)
    from .cli.app import run  # noqa: PLC0415 -- installed only with the extra

    return run(given)


if __name__ == "__main__":
    sys.exit(main())
