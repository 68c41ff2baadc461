"""Runs servers in other processes: a program that prints its port and ends when its standard input does."""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Sequence

_GRACE = 5.0
# As a script it imports gRPC alone, which takes half the time.
_DEMO = ("-P", str(pathlib.Path(__file__).with_name("server.py")))

_running: set[subprocess.Popen[str]] = set()


class ServerProcess:
    """A server in a process of its own."""

    def __init__(self, program: Sequence[str] = _DEMO) -> None:
        """Starts it; `wait_for_port` waits until it serves."""
        # In a session of its own the server does not receive Ctrl-C, even while it starts.
        self._process = subprocess.Popen(  # noqa: S603 -- the command is ours
            [sys.executable, *program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        _running.add(self._process)
        self.port = 0

    def wait_for_port(self) -> int:
        """Waits until it serves; returns the port.

        Raises:
            RuntimeError: The server did not start.
        """
        line = self._read_line()
        if not line:
            raise RuntimeError("the server did not start")
        self.port = int(line)
        return self.port

    def tell(self, command: str) -> None:
        """Makes it do something, and waits until that is done.

        Raises:
            RuntimeError: The server ended.
        """
        assert self._process.stdin is not None  # noqa: S101 -- a pipe was asked for
        try:
            self._process.stdin.write(f"{command}\n")
            self._process.stdin.flush()
        except OSError as error:
            raise RuntimeError("a server ended") from error
        if not self._read_line():
            raise RuntimeError("a server ended")

    def end(self) -> None:
        """Closes its standard input, which ends it."""
        if self._process.stdin is not None:
            # What could not be written to a server that has ended does not matter.
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def wait(self) -> None:
        """Waits until it has ended; kills a server that does not end."""
        with self._process as process:
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
        _running.discard(self._process)

    def _read_line(self) -> str:
        assert self._process.stdout is not None  # noqa: S101 -- a pipe was asked for
        return self._process.stdout.readline()


@contextlib.contextmanager
def running_server(program: Sequence[str] = _DEMO) -> Iterator[int]:
    """Runs a server during the ``with`` block, and yields its port.

    Args:
        program: Arguments of the Python interpreter; the demonstration's server if not given.

    Raises:
        RuntimeError: The server did not start.
    """
    with running_servers(1, program) as servers:
        yield servers[0].port


@contextlib.contextmanager
def running_servers(number: int, program: Sequence[str] = _DEMO) -> Iterator[list[ServerProcess]]:
    """Runs `number` servers during the ``with`` block.

    Raises:
        RuntimeError: A server did not start.
    """
    servers: list[ServerProcess] = []
    try:
        servers.extend(ServerProcess(program) for _ in range(number))
        for server in servers:
            server.wait_for_port()
        yield servers
    finally:
        for server in servers:
            server.end()
        for server in servers:
            server.wait()


def kill_servers() -> None:
    """Kills all servers that are running, for a process that ends at once."""
    for process in tuple(_running):
        process.kill()
