"""Runs the demonstration's server in another process."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

_PATIENCE = 5.0


@contextlib.contextmanager
def running_server() -> Iterator[int]:
    """Runs a server within the ``with`` block, and yields its port.

    Raises:
        RuntimeError: The server did not start.
    """
    command = [sys.executable, "-m", f"{__package__}.server"]
    # A session of its own keeps Ctrl-C from the server, also while it starts.
    with subprocess.Popen(  # noqa: S603 -- the command is ours
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield _port_of(process)
        finally:
            _end(process)


def _port_of(process: subprocess.Popen[str]) -> int:
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        raise RuntimeError("the demonstration's server did not start")
    return int(line)


def _end(process: subprocess.Popen[str]) -> None:
    """Closes the server's standard input, which ends it; kills a server that does not listen."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
