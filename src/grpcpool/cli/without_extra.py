"""The command ``grpcpool`` without the extra ``cli``: only the demonstration is available, which needs only grpcio."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from .._demo.run import run_demo
from .._values.version import __version__
from ._errors import INSTALL, ExitCode, report_os_error

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


def run(arguments: Sequence[str]) -> int:
    """Runs the command; returns the exit code or raises `SystemExit` with it."""
    if arguments and arguments[0] in _NEEDS_EXTRA:
        sys.stderr.write(f"grpcpool: {arguments[0]} needs the extra cli: {INSTALL}\n")
        return ExitCode.FAILED
    try:
        try:
            return _run(arguments)
        finally:
            # Later, Python would report that it cannot write.
            if sys.stdout is not None:
                sys.stdout.flush()
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except OSError as error:
        return report_os_error(error)


def _run(arguments: Sequence[str]) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return ExitCode.DONE
    return run_demo(sys.stdout, aio=options.aio)
