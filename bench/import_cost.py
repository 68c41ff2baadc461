"""What importing the package costs, beside importing gRPC: CPU time in fresh processes, interleaved.

The package loads its parts at their first use, so the import of one name is measured as well: what a program pays that
creates a channel.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile

from _common import Measured, report

_ROUNDS = 25
_BOUND = 1.15

_BASE = "import grpc"
_OURS = {"import grpcpool": _BOUND, "from grpcpool import insecure_channel": None, "import grpcpool.aio": None}
_PROGRAM = "import time; began = time.process_time(); {}; print(time.process_time() - began)"


def cpu_seconds(statement: str, cache: str) -> float:
    """Runs the statement in a process of its own; returns its CPU time, without that of starting Python.

    Compiled modules are kept in the folder `cache`, whatever the settings of this process are.
    """
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", _PROGRAM.format(statement)]
    done = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)  # noqa: S603 -- our own
    return float(done.stdout)


def main() -> None:
    """Measures and reports."""
    statements = [_BASE, *_OURS]
    with tempfile.TemporaryDirectory() as cache:
        # The first round compiles and fills caches. Which is first changes.
        rounds = [
            {statement: cpu_seconds(statement, cache) for statement in statements[:: 1 if number % 2 else -1]}
            for number in range(_ROUNDS + 1)
        ][1:]
    measured = {}
    for statement in _OURS:
        low, ratio, high = statistics.quantiles([each[statement] / each[_BASE] for each in rounds])
        base, ours = (statistics.median(each[name] for each in rounds) for name in (_BASE, statement))
        measured[statement] = Measured(base, ours, ratio, (low, high), _ROUNDS)
    bounds = [*_OURS.values()]
    report("CPU time", measured, panel="imports", per=1, base=_BASE, ours="grpcpool", bounds=bounds)


if __name__ == "__main__":
    main()
