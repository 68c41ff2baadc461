"""Watching what goes on: a thread that looks every so often, shows what it sees, and remembers the most connections."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from .screen import Screen
from .tcp import count_connections

_GLANCE = 0.05


class Watch:
    """Looks at the connections to a port, from outside, and at whatever `told` looks at."""

    def __init__(self, port: int, screen: Screen, told: Callable[[], str]) -> None:
        """Shows on `screen` what `told` says, and the connections to `port`."""
        self._port = port
        self._screen = screen
        self._told = told
        self.over = threading.Event()
        self.peak: int | None = None

    def run(self) -> None:
        """Looks until it is over."""
        while not self.over.wait(_GLANCE):
            counted = count_connections(self._port)
            if counted is not None:
                self.peak = max(self.peak or 0, counted)
            self._screen.live(f"{self._told()}  TCP connections {in_figures(counted)}")


@contextlib.contextmanager
def watching(port: int, screen: Screen, told: Callable[[], str]) -> Iterator[Watch]:
    """Watches while what is in the ``with`` block goes on. It has a thread, so that an event loop is not held up."""
    watch = Watch(port, screen, told)
    with ThreadPoolExecutor(1) as executor:
        running = executor.submit(watch.run)
        try:
            yield watch
        finally:
            watch.over.set()
    running.result()


def pauses(met: Callable[[], bool], within: float) -> Iterator[float]:
    """Yields how long to sleep, time and again, until the condition is met, or `within` seconds have passed.

    Who sleeps does it his own way: a thread as threads do, a task as tasks do.
    """
    deadline = time.monotonic() + within
    while not met() and time.monotonic() < deadline:
        yield _GLANCE


def in_figures(count: int | None) -> str:
    """A count to be shown; a question mark where the system does not tell."""
    return "?" if count is None else str(count)
