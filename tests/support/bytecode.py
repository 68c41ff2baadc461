"""Lets the processes of a test run share what they compile.

`PYTHONDONTWRITEBYTECODE` keeps Python from writing beside the sources. Each of the hundreds of programs that tests
start would compile the whole project again, which takes longer than most of them run.

The processes of pytest-xdist import all tests at the same time. Each would compile them all if nothing is compiled yet.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import sys
from collections.abc import Iterator

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Until pytest ends, programs that it starts keep what they compile in pytest's cache, also for the next run."""
    folder = _folder(config)
    if folder is None or not (sys.dont_write_bytecode and "PYTHONDONTWRITEBYTECODE" in os.environ):
        return
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    patch.delenv("PYTHONDONTWRITEBYTECODE")
    patch.setenv("PYTHONPYCACHEPREFIX", str(folder))


@contextlib.contextmanager
def first_alone(config: pytest.Config) -> Iterator[None]:
    """One of the processes runs the block first; the others wait for that, and then run it at the same time."""
    folder = _folder(config) if hasattr(config, "workerinput") else None
    if folder is None:
        yield
        return
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def _folder(config: pytest.Config) -> pathlib.Path | None:
    """The folder in pytest's cache; `None` if there is no cache, or if it cannot be written."""
    cache: pytest.Cache | None = getattr(config, "cache", None)
    try:
        return None if cache is None else cache.mkdir("compiled")
    except OSError:
        return None
