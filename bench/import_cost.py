"""What importing the package costs, beside importing gRPC: CPU time in fresh processes, interleaved.

The package loads its parts at their first use, so the import of one name is measured as well: what a program pays that
creates a channel.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from _common import Measured, report

_ROUNDS = 25
_BOUND = 1.15

_BASE = "import grpc"
_OURS = {"import grpcpool": _BOUND, "from grpcpool import insecure_channel": None, "import grpcpool.aio": None}
_PROGRAM = "import time; began = time.process_time(); {}; print(time.process_time() - began)"


def cpu_seconds(statement: str) -> float:
    """Runs the statement in a process of its own; returns its CPU time, without that of starting Python."""
    command = [sys.executable, "-c", _PROGRAM.format(statement)]
    return float(subprocess.run(command, capture_output=True, check=True, text=True).stdout)  # noqa: S603 -- our own


def main() -> None:
    """Measures and reports."""
    statements = [_BASE, *_OURS]
    # The first round compiles and fills caches. Which is first changes.
    rounds = [
        {statement: cpu_seconds(statement) for statement in statements[:: 1 if number % 2 else -1]}
        for number in range(_ROUNDS + 1)
    ][1:]
    measured = {}
    for statement in _OURS:
        low, ratio, high = statistics.quantiles([each[statement] / each[_BASE] for each in rounds])
        base, ours = (statistics.median(each[name] for each in rounds) for name in (_BASE, statement))
        measured[statement] = Measured(base, ours, ratio, (low, high), _ROUNDS)
    bounds = [*_OURS.values()]
    report("import", measured, panel="calls", per=1, base=_BASE, ours="grpcpool", bounds=bounds)


if __name__ == "__main__":
    main()
