"""The command ``grpcpool``, which is ``python -m grpcpool``, too."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ._demo.run import run_demo

_INTERRUPTED = 130


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
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    try:
        return run_demo(sys.stdout, aio=options.aio)
    except KeyboardInterrupt:
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
