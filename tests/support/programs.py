"""Runs programs of their own: for what affects a whole process, and for what shows only at its end."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence

TESTS = pathlib.Path(__file__).parents[1]


def run_python(
    program: str,
    *arguments: str,
    options: Sequence[str] = ("-W", "error"),
    seconds: float = 60,
    environment: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a program in a fresh interpreter; returns what it wrote.

    Args:
        program: Its text; it can import what tests can.
        arguments: Its arguments.
        options: The interpreter's options.
        seconds: How long it may take.
        environment: Variables besides those of this process.

    Raises:
        AssertionError: It did not end with code 0.
    """
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(  # noqa: S603 -- our own program
        [sys.executable, *options, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": path, "GRPC_VERBOSITY": "ERROR", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done
