"""The one background thread of a pool: it ticks the machine when a deadline has come.

It runs no foreign code that may block (listeners, and what finalizers left to be done, are to be quick): channels are
opened and closed by threads of their own, so that a factory that hangs or a channel that does not close never delays a
deadline. It starts when there is a first deadline, and ends when the pool has nothing left that could need it. It knows
the driver, not the pool: a pool that is dropped without `close()` is collected, and the worker closes its connections.

How a new deadline reaches it. Whoever changes the machine brings the alarm forward under the lock, and then reads
`wakes_at`. The worker sets `wakes_at`, and then reads the alarm. In whichever order the four steps fall, one of the
two sees the other's, so no deadline is slept through.
"""

from __future__ import annotations

import contextlib
import math
import queue
import sys
import threading
import weakref
from typing import Protocol

from .._shared.announcer import logger
from .._shared.clock import Clock


class Ticked(Protocol):
    """What a worker works for."""

    @property
    def alarm(self) -> float:
        """When the next tick is due."""

    def is_at_rest(self) -> bool:
        """Whether nothing could need a tick or a nudge any more."""

    def tick(self) -> None:
        """Does what is due."""

    def abandon(self) -> None:
        """Closes everything: the pool is gone."""


class Worker:
    """Ticks when a deadline has come, or when nudged."""

    def __init__(self, driver: Ticked, name: str, clock: Clock) -> None:
        """Does not start a thread yet."""
        self._driver = weakref.ref(driver)
        self._name = name
        self._clock = clock
        # put() of a SimpleQueue is safe in finalizers, which may interrupt any line, also one that holds a lock.
        # What is put says whether the pool is still there.
        self._nudges: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._runs = False
        self.wakes_at = math.inf

    def nudge(self) -> None:
        """Has a running worker look again. Safe in finalizers."""
        self._nudges.put(True)

    def abandon(self) -> None:
        """Has a running worker close everything and end. Safe in finalizers."""
        self._nudges.put(False)

    def see_to(self, alarm: float) -> None:
        """Sees to it that a worker runs if there is any need of one, and that it does not sleep past `alarm`."""
        if self._runs and alarm >= self.wakes_at:
            return
        with self._guard:
            if not self._runs:
                self._start()
            runs = self._runs
        if runs:
            self.nudge()

    def _start(self) -> None:
        driver = self._driver()
        if driver is None or driver.is_at_rest() or sys.is_finalizing():
            return
        # The thread holds the driver; the driver holds this object, and not the other way round.
        self._thread = threading.Thread(target=self._run, args=(driver,), name=self._name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            # The interpreter shuts down: nothing will fall due any more.
            self._thread = None
            return
        self._runs = True
        self.wakes_at = -math.inf

    def is_current(self) -> bool:
        """Whether this is the worker's thread."""
        return self._thread is threading.current_thread()

    def join(self, timeout: float) -> None:
        """Waits until the thread has ended, if there is one and this is not it."""
        # Under the guard, so that the thread has been started if there is one.
        with self._guard:
            thread = self._thread
        if thread is not None and not self.is_current():
            thread.join(timeout)

    def _run(self, driver: Ticked) -> None:
        wanted = True
        while wanted:
            self.wakes_at = -math.inf
            try:
                driver.tick()
            except BaseException:  # noqa: BLE001 -- deadlines fall due whatever happens
                logger.exception("a tick failed")
            self.wakes_at = alarm = driver.alarm
            if driver.alarm < alarm:
                continue
            if self._may_end(driver):
                return
            with contextlib.suppress(queue.Empty):
                wanted = self._nudges.get(timeout=self._clock.wait_until(alarm))
        driver.abandon()

    def _may_end(self, driver: Ticked) -> bool:
        """Ends under the guard, so that whoever needs a worker from now on finds none and starts one."""
        if not driver.is_at_rest():
            return False
        with self._guard:
            if not driver.is_at_rest():
                return False
            self._runs = False
            self.wakes_at = math.inf
            return True
