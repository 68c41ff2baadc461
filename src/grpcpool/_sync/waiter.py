"""Threads that wait for the machine's answer."""

from __future__ import annotations

import threading
import weakref
from functools import partial
from typing import Any, Self

from .._machine.machine import OpenWaiter
from .._machine.queue import Waiter
from .._machine.slot import Slot
from .._values.errors import PoolError
from .driver import SyncDriver

# By then the worker has told who waits. If it has not, because a listener holds it up, or because the process is at its
# limit of threads and there is no worker, he sees for himself what the time has come for.
_LATE = 0.1


class BlockedWaiter(Waiter):
    """A thread that waits to be told. Whoever is interrupted meanwhile leaves no trace."""

    slot: Slot | None = None
    error: PoolError | None = None

    def prepare(self) -> Self:
        """Makes `wait` wait."""
        self._told = threading.Lock()
        self._told.acquire()
        return self

    def granted(self, slot: Slot | None) -> None:
        """Wakes the thread with its place."""
        self.slot = slot
        self.answered = True
        self._told.release()

    def refused(self, error: PoolError) -> None:
        """Wakes the thread with its refusal."""
        self.error = error
        self.answered = True
        self._told.release()

    def get(self, driver: SyncDriver) -> Slot | None:
        """Asks, waits for the answer, and returns the place; `None` if what is waited for is none.

        Raises:
            PoolError: The answer is a refusal.
        """
        try:
            self._ask(driver)
            self.wait(driver)
        except BaseException:
            self._withdraw(driver)
            raise
        if self.error is not None:
            raise self.error
        return self.slot

    def wait(self, driver: SyncDriver) -> None:
        """Waits to be told."""
        while not self._told.acquire(timeout=self._patience(driver)):
            driver.tick()

    def _patience(self, driver: SyncDriver) -> float:
        left = driver.clock.wait_until(self.deadline)
        return -1 if left is None else left + _LATE

    def _ask(self, driver: SyncDriver) -> None:
        driver.request(self)

    def _withdraw(self, driver: SyncDriver) -> None:
        """Leaves the queue; if the answer is decided already, takes it and gives back what it brings."""
        if driver.cancel(self):
            return
        if self.known and not self.answered:
            # Another thread is about to tell it.
            self._told.acquire()
        if self.slot is not None:
            driver.release(self.slot, self.streams)


class BlockedOpenWaiter(BlockedWaiter, OpenWaiter):
    """A thread that waits in `open()`."""

    def _ask(self, driver: SyncDriver) -> None:
        driver.open(self)


class CallWaiter(Waiter):
    """Waits for a place on behalf of a call, and does not keep it alive unless somebody waits for its end."""

    driver: SyncDriver
    call: weakref.ref[Any]
    kept: Any = None

    def granted(self, slot: Slot | None) -> None:
        """Has the starter begin the call."""
        assert slot is not None  # noqa: S101 -- only open() is granted None
        self.driver.starter.do(partial(self._begin, slot))

    def refused(self, error: PoolError) -> None:
        """Has the starter tell the call."""
        self.driver.starter.do(partial(self._fail, error))

    def _begin(self, slot: Slot) -> None:
        call = self.call()
        self.kept = None
        if call is None:
            self.driver.release(slot, 1)
        else:
            call.begin_waiting(slot)

    def _fail(self, error: PoolError) -> None:
        call = self.call()
        self.kept = None
        if call is not None:
            call.refuse(error)
