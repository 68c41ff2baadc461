"""A thread that regularly shows the current state, counts the connections, and keeps the highest count."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from .screen import Screen
from .tcp_connections import count_connections

_INTERVAL = 0.05


class ConnectionMonitor:
    """Shows a state and the number of connections to a port, as the operating system counts them."""

    def __init__(self, port: int | None, screen: Screen, describe: Callable[[], str]) -> None:
        """Shows on `screen` the text from `describe`, and the connections to `port` if that is given."""
        self._port = port
        self._screen = screen
        self._describe = describe
        self.over = threading.Event()
        self.peak: int | None = None

    def run(self) -> None:
        """Monitors until `over` is set."""
        while not self.over.wait(_INTERVAL):
            self._screen.live(self._describe() + self._connections())

    def _connections(self) -> str:
        if self._port is None:
            return ""
        counted = count_connections(self._port)
        if counted is not None:
            self.peak = max(self.peak or 0, counted)
        return f"  connections {count_text(counted)}"


@contextlib.contextmanager
def monitoring(port: int | None, screen: Screen, describe: Callable[[], str]) -> Iterator[ConnectionMonitor]:
    """Monitors during the ``with`` block, on a thread of its own so that it does not block an event loop."""
    monitor = ConnectionMonitor(port, screen, describe)
    with ThreadPoolExecutor(1) as executor:
        running = executor.submit(monitor.run)
        try:
            yield monitor
        finally:
            monitor.over.set()
    running.result()


def poll(met: Callable[[], bool], within: float) -> Iterator[float]:
    """Yields how long to sleep, repeatedly, until the condition is met or `within` seconds have passed.

    The caller does the sleeping, as a thread or as a task.
    """
    deadline = time.monotonic() + within
    while not met() and time.monotonic() < deadline:
        yield _INTERVAL


def count_text(count: int | None) -> str:
    """Returns a count as text; a question mark if it is not known."""
    return "?" if count is None else str(count)
