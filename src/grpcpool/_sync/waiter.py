"""Threads that wait for the machine's answer."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from .._machine.machine import OpenWaiter
from .._machine.queue import Waiter
from .._values.errors import PoolError

if TYPE_CHECKING:
    from .._machine.slot import Slot
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
