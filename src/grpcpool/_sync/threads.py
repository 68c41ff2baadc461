"""Short-lived threads for what may block: opening and closing channels."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from .._shared.thread_start import new_thread, start


class Threads:
    """Daemon threads that are known until they end, so that `close()` can wait for them."""

    def __init__(self, name: str, guard: threading.RLock) -> None:
        """Threads are named after `name`; for `guard`, see `Driver.guard`."""
        self._name = name
        self._known: list[threading.Thread] = []
        self._guard = guard

    def run(self, work: Callable[[], None], what: str) -> None:
        """Does `work`, which must not raise, on a thread of its own.

        Raises:
            RuntimeError: No thread can be started (the process is at its limit, or the interpreter shuts down).
        """
        thread = new_thread(work, f"{self._name}-{what}")
        # Started under the guard, so that `join` sees no thread that has not started. It is known before it runs, so
        # that `is_current` finds it. No thread removes itself, because it would still be running then.
        with self._guard:
            known = [known for known in self._known if known.is_alive()]
            self._known = [*known, thread]
            try:
                start(thread)
            except RuntimeError:
                self._known = known
                raise

    def is_current(self) -> bool:
        """Whether this is one of the threads."""
        return threading.current_thread() in self._known

    def join(self, timeout: float) -> bool:
        """Waits up to `timeout` seconds until none runs; returns whether that is so."""
        deadline = time.monotonic() + timeout
        while True:
            with self._guard:
                # Looked up each time: a thread that opens a connection may start one that closes it.
                running = [thread for thread in self._known if thread.is_alive()]
            left = deadline - time.monotonic()
            if not running or left <= 0:
                return not running
            running[0].join(left)
