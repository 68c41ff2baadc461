"""A thread that exists only while it is needed, and never twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

from .._shared.thread_start import NoThreadError, join, new_thread, start


class OneThread:
    """Starts the thread unless it runs. It ends by itself, see `ends`, and can be started again then."""

    def __init__(self, name: str, guard: threading.RLock) -> None:
        """Does not start the thread, called `name`, yet; for `guard`, see `Driver.guard`."""
        self._name = name
        self._guard = guard
        # The one that works, or was the last to; one that is being started.
        self._thread: threading.Thread | None = None
        self._coming: threading.Thread | None = None
        self._works = False

    @property
    def runs(self) -> bool:
        """Whether it works or is being started. Safe in finalizers."""
        # In this order: the new thread sets the one before it clears the other.
        return self._coming is not None or self._works

    def start(self, work: Callable[[], None], is_needed: Callable[[], bool]) -> None:
        """Starts the thread, which does `work`, unless it runs or is not needed, which is asked under the guard.

        Raises:
            NoThreadError: It cannot be started.
        """
        thread = None
        try:
            with self._guard:
                if self.runs or not is_needed():
                    return
                thread = new_thread(partial(self._run, work), self._name)
                self._coming = thread
            start(thread)
        except BaseException as error:
            if thread is not None:
                with self._guard:
                    # If a signal handler has raised, it may still come: it ends at once then.
                    if self._coming is thread:
                        self._coming = None
                if not isinstance(error, NoThreadError):
                    # Others may have counted on it.
                    self.start(work, is_needed)
            raise

    def _run(self, work: Callable[[], None]) -> None:
        with self._guard:
            if self._coming is not threading.current_thread():
                return
            self._thread, self._works = self._coming, True
            self._coming = None
        work()

    def ends(self) -> None:
        """Says that the thread ends. Called by itself under the guard; from then on another one is started."""
        self._works = False

    def is_current(self) -> bool:
        """Whether the caller runs on this thread."""
        return threading.current_thread() in (self._thread, self._coming)

    def join(self, timeout: float) -> None:
        """Waits up to `timeout` seconds until the thread has ended, if there is one and this is not it."""
        with self._guard:
            thread = self._coming or self._thread
        if thread is not None and not self.is_current():
            join(thread, timeout)
