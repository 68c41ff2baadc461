"""Threads that wait for the machine's answer."""

from __future__ import annotations

import math
import threading
from typing import Self, cast

from .._machine.openers import OpenWaiter
from .._machine.queue import Waiter
from .._machine.slot import Slot
from .._shared.clock import Clock
from .._values.errors import PoolError, Refusal
from .driver import SyncDriver
from .sleeping import acquire_within

_LATE = 0.1


def patience(clock: Clock, deadline: float) -> float:
    """The seconds for which a thread waits for its answer, which is due at `deadline`.

    By then the worker has delivered a refusal. If it has not, because a listener blocks it, or because the process is
    at its limit of threads and there is no worker, the waiting thread does what is due itself.
    """
    left = clock.wait_until(deadline)
    return math.inf if left is None else left + _LATE


class _Blocked:
    """A thread that waits for an answer of the machine."""

    deadline: float
    since: float
    refusal: Refusal | None
    error: PoolError | None = None

    def prepare(self) -> Self:
        """Prepares `wait`."""
        self.thread = threading.get_ident()
        self._answered = False
        self._wakes = threading.Lock()
        self._wakes.acquire()
        return self

    def refused(self, error: PoolError) -> None:
        """Wakes the thread with its refusal."""
        self.error = error
        self.wake()

    def wake(self) -> None:
        """Wakes the thread, once."""
        if not self._answered:
            self._answered = True
            self._wakes.release()

    def wait(self, driver: SyncDriver) -> None:
        """Waits for the answer.

        Raises:
            PoolError: The answer is a refusal.
        """
        while not acquire_within(self._wakes, patience(driver.clock, self.deadline)):
            driver.tick()
            if self.is_decided():
                # The thread that should deliver the answer is blocked.
                break
        # Not kept here: a waiter stays in the queue's heap for a while, and an error holds the frames that it passes.
        error, self.error = self.error, None
        if error is None and self.refusal is not None:
            error = driver.refusal(self.refusal, cast("Waiter | OpenWaiter", self))
        if error is not None:
            raise error

    def is_decided(self) -> bool:
        """Whether the answer is decided, if not delivered."""
        return self.refusal is not None


class BlockedWaiter(_Blocked, Waiter):
    """A thread that waits for a place. If it is interrupted, it leaves the queue and holds no place."""

    def granted(self, slot: Slot) -> None:  # noqa: ARG002 -- it is known from the decision
        """Wakes the thread with its place."""
        self.wake()

    def is_decided(self) -> bool:
        """Whether the answer is decided, if not delivered."""
        return self.decided

    def get(self, driver: SyncDriver) -> Slot:
        """Asks for a place, waits for the answer, and returns the slot.

        Raises:
            PoolError: The answer is a refusal.
        """
        try:
            driver.request(self)
            self.wait(driver)
        except BaseException:
            driver.withdraw(self)
            raise
        slot = self._slot
        assert slot is not None  # noqa: S101 -- an answer is a place or an error
        return slot


class BlockedCall(BlockedWaiter):
    """A thread that waits for the place of its call."""

    is_call = True


class BlockedOpenWaiter(_Blocked, OpenWaiter):
    """A thread that waits in `open()`."""

    def started(self) -> None:
        """Wakes the thread."""
        self.wake()

    def open(self, driver: SyncDriver) -> None:
        """Opens `min_size` connections and waits for them.

        Raises:
            PoolError: They could not be opened.
        """
        try:
            driver.open(self)
            self.wait(driver)
        except BaseException:
            driver.tell(driver.machine.cancel_open, self)
            raise
