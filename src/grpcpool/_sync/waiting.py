"""Threads that wait for the machine's answer."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from .._errors import PoolError
from .._machine import OpenWaiter
from .._queue import Waiter

if TYPE_CHECKING:
    from .._slot import Slot
    from .core import Core


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

    def get(self, core: Core) -> Slot | None:
        """Asks, waits for the answer, and returns the place; `None` if what is waited for is none.

        Raises:
            PoolError: The answer is a refusal.
        """
        try:
            self._ask(core)
            self.wait(core)
        except BaseException:
            self._withdraw(core)
            raise
        if self.error is not None:
            raise self.error
        return self.slot

    def wait(self, core: Core) -> None:
        """Waits to be told."""
        while not self._told.acquire(timeout=self._patience(core)):
            core.tick()

    def _patience(self, core: Core) -> float:
        left = core.clock.wait_until(self.deadline)
        return -1 if left is None else left + _LATE

    def _ask(self, core: Core) -> None:
        core.request(self)

    def _withdraw(self, core: Core) -> None:
        """Leaves the queue; if the answer is decided already, takes it and gives back what it brings."""
        if core.cancel(self):
            return
        if self.known and not self.answered:
            # Another thread is about to tell it.
            self._told.acquire()
        if self.slot is not None:
            core.release(self.slot, self.streams)


class BlockedOpenWaiter(BlockedWaiter, OpenWaiter):
    """A thread that waits in `open()`."""

    def _ask(self, core: Core) -> None:
        core.open(self)
