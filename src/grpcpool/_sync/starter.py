"""Starts calls that waited for their place, and tells those that waited in vain.

Places come free on gRPC's callback threads, on which no call may be begun and no foreign code may run for long; so
one thread of the pool begins them, in the order in which they got their places. It ends when there has been nothing
to do for a while.
"""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
from collections.abc import Callable

from .._shared.announcer import logger

# A thread costs as much as a hundred of its rounds; a busy pool keeps it.
_LINGERS_FOR = 0.5


class Starter:
    """A thread that does one thing after the other, when there is any."""

    def __init__(self, name: str) -> None:
        """Does not start a thread yet."""
        self._name = name
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._runs = False
        self._lingers_for = _LINGERS_FOR

    def do(self, work: Callable[[], None]) -> None:
        """Has `work` done. If no thread can be started, as at the end of the process, by this one."""
        self._work.put(work)
        with self._guard:
            if not self._runs:
                self._start()
            runs = self._runs
        if not runs:
            self._work_off()

    def _start(self) -> None:
        if sys.is_finalizing():
            return
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None
            return
        self._runs = True

    def is_current(self) -> bool:
        """Whether this is the starter's thread."""
        return self._thread is threading.current_thread()

    def join(self, timeout: float) -> None:
        """Waits until what is to be done is done and the thread has ended."""
        self._lingers_for = 0.0
        self._work.put(_nothing)
        # Under the guard, so that the thread has been started if there is one.
        with self._guard:
            thread = self._thread
        if thread is not None and not self.is_current():
            thread.join(timeout)

    def _run(self) -> None:
        while True:
            try:
                work = self._work.get(timeout=self._lingers_for)
            except queue.Empty:
                # Under the guard: who puts more in from now on finds no thread, and starts one.
                with self._guard:
                    if self._work.empty():
                        self._runs = False
                        return
            else:
                _do(work)

    def _work_off(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                _do(self._work.get_nowait())


def _nothing() -> None:
    pass


def _do(work: Callable[[], None]) -> None:
    try:
        work()
    except BaseException:  # noqa: BLE001 -- a user's callback may raise anything, and the next is another's
        logger.exception("a callback of a call failed")
