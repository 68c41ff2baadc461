"""Runs the programs under ``examples``, and sees from outside what connections they have."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Self

import psutil

from support.waiting import eventually

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


@contextlib.contextmanager
def running(*command: str, fds: tuple[int, ...] = (), environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Runs a Python program in the examples' folder; ends it and its children by their process ids."""
    process = subprocess.Popen(  # noqa: S603 -- our own programs
        [sys.executable, *command],
        cwd=EXAMPLES,
        env={**os.environ, "GRPC_VERBOSITY": "NONE", "PYTHONDONTWRITEBYTECODE": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=fds,
        text=True,
    )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[str]) -> None:
    """Ends a process and its children."""
    started: list[psutil.Process] = []
    if process.poll() is None:
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
    for member in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.kill()
    process.communicate()


def output_of(*command: str, environment: dict[str, str] | None = None, seconds: float = 60) -> str:
    """The output of a program that ends by itself, successfully."""
    with running(*command, environment=environment or {}) as process:
        said, _ = process.communicate(timeout=seconds)
        assert process.returncode == 0, said
        return said


@contextlib.contextmanager
def served() -> Iterator[str]:
    """Runs the examples' own server; yields its address."""
    with running("server.py", environment={}) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()


class Watch:
    """The connections to one port, and the processes that a program starts, while a block runs.

    The processes that ran before, such as the server, are left out.
    """

    def __init__(self, target: str) -> None:
        """Does not watch yet."""
        self._port = int(target.rpartition(":")[2])
        self._before: set[int] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._started: set[psutil.Process] = set()
        self.most: Counter[int] = Counter()
        """The most connections at once of each process, by its id."""

    def _run(self) -> None:
        while not self._ended.wait(0.05):
            self._started.update(psutil.Process().children(recursive=True))
            for pid, number in self._now().items():
                self.most[pid] = max(self.most[pid], number)

    def _now(self) -> Counter[int]:
        return Counter(
            each.pid
            for each in psutil.net_connections("tcp")
            if each.raddr and each.raddr.port == self._port and each.status == psutil.CONN_ESTABLISHED
            # While a process ends, its id is not known. Servers such as etcd have connections to themselves.
            if each.pid and each.pid not in self._before
        )

    def __enter__(self) -> Self:
        """Begins."""
        self._before = {os.getpid(), *(each.pid for each in psutil.Process().children(recursive=True))}
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends."""
        self._ended.set()
        self._thread.join()

    def wait_until_nothing_is_left(self) -> None:
        """Returns when no process has a connection, and all processes that were started meanwhile have ended.

        Those that have not ended by then are ended here.

        Raises:
            AssertionError: Something is left.
        """
        started = [each for each in self._started if each.pid not in self._before]
        try:
            eventually(lambda: not self._now())
            eventually(lambda: not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in started))
        finally:
            for each in started:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
