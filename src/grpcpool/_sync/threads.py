"""Short-lived threads for what may block: opening and closing channels."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from .._shared.thread_start import join, new_thread, start


class Threads:
    """Daemon threads that are known until they end, so that `close()` can wait for them."""

    def __init__(self, name: str, guard: threading.RLock) -> None:
        """Threads are named after `name`; for `guard`, see `Driver.guard`."""
        self._name = name
        self._known: list[threading.Thread] = []
        self._starting: set[threading.Thread] = set()
        self._guard = guard

    def run(self, work: Callable[[], None], what: str) -> None:
        """Does `work`, which must not raise, on a thread of its own.

        Raises:
            NoThreadError: No thread can be started.
        """
        thread = new_thread(work, f"{self._name}-{what}")
        # It is known before it runs, so that `is_current` and `join` find it. No thread removes itself: it would still
        # be running then.
        try:
            with self._guard:
                self._known = [*self._running(), thread]
                self._starting.add(thread)
            start(thread)
        finally:
            self._starting.discard(thread)

    def _running(self) -> list[threading.Thread]:
        return [thread for thread in self._known if thread in self._starting or thread.is_alive()]

    def is_current(self) -> bool:
        """Whether this is one of the threads."""
        return threading.current_thread() in self._known

    def join(self, timeout: float) -> bool:
        """Waits up to `timeout` seconds until none runs; returns whether that is so."""
        deadline = time.monotonic() + timeout
        while True:
            with self._guard:
                # Looked up each time: a thread that opens a connection may start one that closes it.
                running = self._running()
            left = deadline - time.monotonic()
            if not running or left <= 0:
                return not running
            join(running[0], left)
