"""A thread that runs work in order.

A pool has one, for the callbacks of calls that failed before they were started. The thread ends when it has been idle
for a while.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable

from .._shared.announcer import logger
from .._shared.thread_start import join, new_thread, start

# Starting a thread costs as much as a hundred pieces of work. A busy pool keeps it.
_LINGERS_FOR = 0.5


class SerialRunner:
    """Runs work in order on a thread, which exists only while there is work."""

    def __init__(self, name: str, guard: threading.RLock) -> None:
        """Does not start the thread, called `name`, yet; for `guard`, see `Driver.guard`."""
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._guard = guard
        self._thread: threading.Thread | None = None
        self._runs = False
        self._lingers_for = _LINGERS_FOR

    def do(self, work: Callable[[], None]) -> None:
        """Queues `work`. If no thread can be started, as at the end of the process, runs it before it returns."""
        self._work.put(work)
        thread = None
        try:
            with self._guard:
                if self._runs:
                    return
                thread = new_thread(self._run, self._name)
                self._runs, self._thread = True, thread
            start(thread)
        except BaseException as error:
            if thread is not None:
                self._runs, self._thread = False, None
            if not isinstance(error, RuntimeError):
                if thread is not None:
                    # Others may have counted on it.
                    self.do(nothing)
                raise
            self._work_off()

    def is_current(self) -> bool:
        """Whether the caller runs on this thread."""
        return self._thread is threading.current_thread()

    def join(self, timeout: float) -> None:
        """Waits until the queued work is done and the thread has ended."""
        self._lingers_for = 0.0
        self._work.put(nothing)
        with self._guard:
            thread = self._thread
        if thread is not None and not self.is_current():
            join(thread, timeout)

    def _run(self) -> None:
        while True:
            try:
                work = self._work.get(timeout=self._lingers_for)
            except queue.Empty:
                # Under the guard: work that is queued from now on starts a new thread.
                with self._guard:
                    if self._work.empty():
                        self._runs = False
                        return
            else:
                run_logged(work)

    def _work_off(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                run_logged(self._work.get_nowait())


def nothing() -> None:
    """Work that only wakes, or starts, the thread that does it."""


def run_logged(work: Callable[[], None]) -> None:
    """Runs `work`, and logs what it raises."""
    try:
        work()
    except BaseException:  # noqa: BLE001 -- a user's callback may raise anything, and other work follows it
        logger.exception("a callback of a call failed")
