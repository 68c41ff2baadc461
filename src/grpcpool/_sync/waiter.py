"""Threads that wait for the machine's answer."""

from __future__ import annotations

import threading
import weakref
from functools import partial
from typing import Any, Self

from .._machine.openers import OpenWaiter
from .._machine.queue import Waiter
from .._machine.slot import Slot
from .._values.errors import PoolError, Refusal
from .driver import SyncDriver
from .place import Place, new_place

# By then the worker has told who waits. If it has not, because a listener holds it up, or because the process is at its
# limit of threads and there is no worker, he sees for himself what the time has come for.
_LATE = 0.1


class _Blocked:
    """A thread that waits for an answer of the machine."""

    deadline: float
    since: float
    refusal: Refusal | None
    error: PoolError | None = None

    def prepare(self) -> Self:
        """Makes `wait` wait."""
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
        while not self._wakes.acquire(timeout=self._patience(driver)):
            driver.tick()
            if self.is_decided():
                # The thread that should deliver the answer is held up.
                break
        # Not kept here: a waiter stays in the queue's heap for a while, and an error holds the frames that it passes.
        error, self.error = self.error, None
        if error is None and self.refusal is not None:
            error = driver.refusal(self.refusal, self.since)
        if error is not None:
            raise error

    def is_decided(self) -> bool:
        """Whether the answer is decided, if not delivered."""
        return self.refusal is not None

    def _patience(self, driver: SyncDriver) -> float:
        left = driver.clock.wait_until(self.deadline)
        return -1 if left is None else left + _LATE


class BlockedWaiter(_Blocked, Waiter):
    """A thread that waits for a place. A thread that is interrupted meanwhile leaves no trace."""

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


class BlockedOpenWaiter(_Blocked, OpenWaiter):
    """A thread that waits in `open()`."""

    def started(self) -> None:
        """Wakes the thread."""
        self.wake()

    def open(self, driver: SyncDriver) -> None:
        """Opens `min_size` connections and waits for them.

        Raises:
            PoolError: That failed.
        """
        try:
            driver.open(self)
            self.wait(driver)
        except BaseException:
            driver.tell(driver.machine.cancel_open, self)
            raise


class CallWaiter(Waiter):
    """Waits for a place on behalf of a call, and does not keep it alive unless a done-callback waits for its end."""

    driver: SyncDriver
    call: weakref.ref[Any]
    kept: Any = None

    def granted(self, slot: Slot) -> None:  # noqa: ARG002 -- it is known from the decision
        """Has the starter begin the call."""
        self.driver.starter.do(self._begin)

    def refused(self, error: PoolError) -> None:
        """Has the starter notify the call."""
        self.driver.starter.do(partial(self._fail, error))

    def _begin(self) -> None:
        place = self._take_over()
        call, self.kept = self.call(), None
        if place is None:
            return
        if call is None:
            place.release()
        else:
            call.begin_waiting(place)

    def _take_over(self) -> Place | None:
        """The place as the call's; `None` if it was taken over or released before."""
        with self.driver.lock:
            if self._released:
                return None
            self._released = True
            return new_place(self.driver, self._slot)

    def _fail(self, error: PoolError) -> None:
        call, self.kept = self.call(), None
        if call is not None:
            call.refuse(error)
