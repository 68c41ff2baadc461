"""Runs programs of their own: for what affects a whole process, and for what shows only at its end."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Sequence

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
    done = subprocess.run(  # noqa: S603 -- our own program
        [sys.executable, *options, "-c", program, *arguments],
        env={**_environment(), **(environment or {})},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@contextlib.contextmanager
def started_python(*arguments: str, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Starts a program that can import what tests can, and does what each line of its input says.

    `environment` are variables besides those of this process. When the block ends, so does the program's input, and
    with that the program.
    """
    with subprocess.Popen(  # noqa: S603 -- our own program
        [sys.executable, "-W", "error", *arguments],
        env={**_environment(), **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        yield program
    assert program.returncode == 0, program.returncode


def _environment() -> dict[str, str]:
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "GRPC_VERBOSITY": "ERROR"}
