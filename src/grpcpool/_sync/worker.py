"""The one background thread of a pool: it ticks the machine when a deadline has come.

It runs no foreign code that may block (listeners, and the work that finalizers leave, must be quick). Channels are
opened and closed by other threads, so that a factory that hangs or a channel that does not close never delays a
deadline. It starts at the first deadline, and ends when nothing of the pool can need it. It knows the driver, not the
pool: a pool that is dropped without `close()` is collected, and the worker closes its connections.

How a new deadline reaches it: a thread that changes the machine brings the alarm forward under the lock, and then reads
`Driver.wakes_at`. The worker sets that to infinity, and then reads the alarm. In any order of the four steps, either
the worker reads the new alarm, or the other thread finds a `wakes_at` that is later and nudges. No deadline is missed.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import weakref
from functools import partial
from typing import Protocol

from .._shared.announcer import logger
from .._shared.clock import Clock
from .._shared.thread_start import NoThreadError
from .one_thread import OneThread


class Ticked(Protocol):
    """What a worker works for."""

    # By when the worker will tick.
    wakes_at: float

    @property
    def alarm(self) -> float:
        """When the next tick is due."""

    def is_at_rest(self) -> bool:
        """Whether nothing could need a tick or a nudge any more."""

    def tick(self) -> None:
        """Does what is due."""

    def forget_deferred(self) -> None:
        """The worker has ended: forgets what nothing will do."""

    def abandon(self) -> None:
        """Closes everything: the pool is gone."""


class Worker:
    """Ticks when a deadline has come, or when nudged."""

    def __init__(self, driver: Ticked, name: str, clock: Clock, guard: threading.RLock) -> None:
        """Does not start a thread yet; for `guard`, see `Driver.guard`."""
        self._driver = weakref.ref(driver)
        self._clock = clock
        # put() of a SimpleQueue is safe in finalizers, which may interrupt any line, also one that holds a lock. The
        # value says whether the pool still exists.
        self._nudges: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._guard = guard
        self._thread = OneThread(name, guard)
        # Whether it has closed everything, and does nothing more.
        self.has_abandoned = False

    @property
    def runs(self) -> bool:
        """Whether its thread runs, which it does as long as the pool has connections. Safe in finalizers."""
        return self._thread.runs

    def nudge(self) -> None:
        """Wakes a running worker. Safe in finalizers."""
        self._nudges.put(True)

    def abandon(self) -> None:
        """Makes a running worker close everything and end. Safe in finalizers."""
        self._nudges.put(False)

    def wake(self) -> None:
        """Wakes the worker, and starts one if none runs and one is needed."""
        driver = self._driver()
        if driver is not None:
            # The thread holds the driver, and the driver this object, which refers to the driver only weakly.
            work, is_needed = partial(self._run, driver), partial(_is_needed_by, driver)
            # If it cannot be started, the interpreter shuts down: no deadline will come.
            with contextlib.suppress(NoThreadError):
                self._thread.start(work, is_needed)
        if self._thread.runs:
            self.nudge()

    def is_current(self) -> bool:
        """Whether this is the worker's thread."""
        return self._thread.is_current()

    def join(self, timeout: float) -> None:
        """Waits until the thread has ended, if there is one and this is not it."""
        self._thread.join(timeout)

    def _run(self, driver: Ticked) -> None:
        wanted = True
        while wanted:
            driver.wakes_at = -math.inf
            try:
                driver.tick()
            except BaseException:  # noqa: BLE001 -- deadlines come whatever happens
                logger.exception("a tick failed")
            driver.wakes_at = math.inf
            driver.wakes_at = alarm = driver.alarm
            if alarm == math.inf and self._may_end(driver):
                return
            wanted = self._wait(alarm)
        driver.abandon()
        self.has_abandoned = True
        driver.forget_deferred()

    def _wait(self, alarm: float) -> bool:
        """Waits until `alarm`, or until it is woken, maybe by several; returns whether the pool still exists."""
        wanted = True
        with contextlib.suppress(queue.Empty):
            wanted = self._nudges.get(timeout=self._clock.wait_until(alarm))
            while wanted:
                wanted = self._nudges.get_nowait()
        return wanted

    def _may_end(self, driver: Ticked) -> bool:
        """Ends under the guard, so that a thread that needs a worker from now on finds none and starts one."""
        if not driver.is_at_rest():
            return False
        with self._guard:
            if not driver.is_at_rest():
                return False
            self._thread.ends()
            driver.wakes_at = math.inf
        driver.forget_deferred()
        return True


def _is_needed_by(driver: Ticked) -> bool:
    return not driver.is_at_rest()
