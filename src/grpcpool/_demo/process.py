"""Runs a server in another process: a program that prints its port and ends when its standard input does."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence

_GRACE = 5.0
_DEMO = ("-m", f"{__package__}.server")


@contextlib.contextmanager
def running_server(program: Sequence[str] = _DEMO) -> Iterator[int]:
    """Runs a server during the ``with`` block, and yields its port.

    Args:
        program: Arguments of the Python interpreter; the demonstration's server if not given.

    Raises:
        RuntimeError: The server did not start.
    """
    # In a session of its own the server does not receive Ctrl-C, even while it starts.
    with subprocess.Popen(  # noqa: S603 -- the command is ours
        [sys.executable, *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield _port_of(process)
        finally:
            _end(process)


def _port_of(process: subprocess.Popen[str]) -> int:
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        raise RuntimeError("the server did not start")
    return int(line)


def _end(process: subprocess.Popen[str]) -> None:
    """Closes the server's standard input, which ends it; kills a server that does not end."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
