"""Runs other projects' programs: each in its own folder, on ports of the system's choice, ended by its process id.

Which program it is and how it is configured is defined in its own module (`etcd.py`, `proxies.py`).
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from types import TracebackType
from typing import NoReturn, Self

import psutil
import pytest

REQUIRED = "GRPCPOOL_REQUIRE_COMPONENTS"
"""The environment variable that, set to 1, turns a missing program into a failure."""

_STARTS_WITHIN = 20.0
_TRIES = 5


def absent(what: str) -> NoReturn:
    """Skips the test because something is missing, or fails it if that is required."""
    reason = f"{what}; .ci/components installs it"
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{reason}, and {REQUIRED} is set")
    pytest.skip(reason)


def program(name: str) -> str:
    """The path of the program."""
    # Debian installs some in folders for administrators, which are not on every PATH.
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"]))
    if found is None:
        absent(f"{name} is not on PATH")
    return found


def free_port() -> int:
    """A loopback port without a listener; another program may take it before ours does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class PortTakenError(Exception):
    """The program ended before it listened; most likely another program took its port."""


class Program:
    """A program that serves on one port, as a process."""

    name: str
    """Its name on the command line."""

    def __init__(self) -> None:
        """Does not start it yet."""
        self._path = program(self.name)
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = contextlib.ExitStack()
        self.folder = pathlib.Path()
        self.port = 0

    @property
    def target(self) -> str:
        """The address to connect to."""
        return f"127.0.0.1:{self.port}"

    @property
    def process(self) -> psutil.Process:
        """The process that serves."""
        assert self._process is not None
        return psutil.Process(self._process.pid)

    def command(self) -> list[str]:
        """The arguments that make it serve on `port` in the foreground; writes its configuration."""
        raise NotImplementedError

    def start(self) -> Self:
        """Starts it and returns once it serves; on another port if its port has been taken meanwhile."""
        for _ in range(_TRIES):
            self.port = free_port()
            with contextlib.suppress(PortTakenError):
                self._run()
                return self
        raise AssertionError(f"{self.name} did not start:\n{self.output_end()}")

    def restart(self) -> None:
        """Serves again on the same port, whether it was killed before or not."""
        self.kill()
        self._run()

    def kill(self) -> None:
        """Ends the process at once, as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait(_STARTS_WITHIN)

    def output_end(self) -> str:
        """The last part of its output."""
        return (self.folder / "output").read_text(errors="replace")[-2000:]

    def _run(self) -> None:
        command = [self._path, *self.command()]
        if guard := shutil.which("setpriv"):
            # It must end with us, however we end.
            command = [guard, "--pdeathsig", "KILL", *command]
        with (self.folder / "output").open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 -- a program of the system's
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.folder
            )
        deadline = time.monotonic() + _STARTS_WITHIN
        while not self._listens():
            if self._process.poll() is not None:
                self._process = None
                raise PortTakenError
            assert time.monotonic() < deadline, f"{self.name} does not listen:\n{self.output_end()}"
            time.sleep(0.02)

    def _listens(self) -> bool:
        """Whether this very process listens: another program may have taken its port."""
        try:
            sockets = self.process.net_connections("tcp")
        except psutil.Error:
            return False
        return any(each.status == psutil.CONN_LISTEN and each.laddr[1:] == (self.port,) for each in sockets)

    def __enter__(self) -> Self:
        """Starts it in a new folder."""
        folder = tempfile.TemporaryDirectory(prefix=f"grpcpool-{self.name}-", ignore_cleanup_errors=True)
        self.folder = pathlib.Path(self._folder.enter_context(folder))
        try:
            return self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Ends it and removes its folder."""
        self.kill()
        self._folder.close()
