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


class BlockedWaiter(Waiter):
    """A thread that waits to be told."""

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
        self._told.release()

    def refused(self, error: PoolError) -> None:
        """Wakes the thread with its refusal."""
        self.error = error
        self._told.release()

    def wait(self, core: Core) -> None:
        """Waits to be told; whoever is interrupted meanwhile leaves no trace.

        Raises:
            PoolError: What was told was a refusal.
        """
        try:
            self._told.acquire()
        except BaseException:
            if not core.cancel(self):
                # The answer is decided, and another thread is about to tell it.
                self._told.acquire()
                if self.slot is not None:
                    core.release(self.slot, self.streams)
            raise
        if self.error is not None:
            raise self.error


class BlockedOpenWaiter(BlockedWaiter, OpenWaiter):
    """A thread that waits in `open()`."""
