"""The command ``grpcpool``, which is ``python -m grpcpool``, too.

With the extra ``cli`` it is that of `grpcpool.cli`. Without, there is the demonstration, which needs grpcio alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence

from ._demo.run import run_demo
from .cli._failure import INSTALL, ExitCode

_MORE = {
    "probe": "looks at a server, and recommends a configuration",
    "bench": "measures calls to a server",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="grpcpool", description="A connection pool for gRPC in Python.")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="command")
    about = (
        "Starts a gRPC server of its own on this machine and shows what a pool does: leases and connections under a "
        "burst, then calls on one channel, on gRPC's own connection scaling and on a pool. On threads or, with --aio, "
        "on asyncio. Takes about ten seconds, and twenty at most; ends with 0 if nothing was lost."
    )
    demo = commands.add_parser("demo", help="shows what a pool does, on a server of its own", description=about)
    demo.add_argument("--aio", action="store_true", help="the same on asyncio: tasks, grpc.aio and grpcpool.aio")
    for name, does in _MORE.items():
        commands.add_parser(name, help=f"{does}; needs {INSTALL}")
    return parser


def _run_demo_alone(arguments: Sequence[str]) -> int:
    """The command without the extra."""
    if arguments and arguments[0] in _MORE:
        sys.stderr.write(f"grpcpool: {arguments[0]} needs more than grpcio: {INSTALL}\n")
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
    """Runs the command; returns its exit code, or leaves with it."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if importlib.util.find_spec("typer") is None or importlib.util.find_spec("rich") is None:
        return _run_demo_alone(given)
    from .cli.app import run  # noqa: PLC0415 -- there only with the extra

    return run(given)


if __name__ == "__main__":
    sys.exit(main())
