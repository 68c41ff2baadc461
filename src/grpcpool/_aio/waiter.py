"""Coroutines that wait for the machine's answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .._machine.machine import OpenWaiter
from .._machine.queue import Waiter
from .._values.errors import PoolError

if TYPE_CHECKING:
    from .._machine.slot import Slot
    from .driver import AioDriver


class AwaitedWaiter(Waiter):
    """A coroutine that waits to be told. One that is cancelled meanwhile leaves no trace."""

    slot: Slot | None = None
    error: PoolError | None = None
    _told: asyncio.Future[None]

    def granted(self, slot: Slot | None) -> None:
        """Wakes the coroutine with its place."""
        self.slot = slot
        self._tell()

    def refused(self, error: PoolError) -> None:
        """Wakes the coroutine with its refusal."""
        self.error = error
        self._tell()

    def _tell(self) -> None:
        self.answered = True
        if not self._told.done():
            self._told.set_result(None)

    async def get(self, driver: AioDriver) -> Slot | None:
        """Asks, waits for the answer, and returns the place; `None` if what is waited for is none.

        Raises:
            PoolError: The answer is a refusal.
        """
        self._told = driver.loop.create_future()
        try:
            self._ask(driver)
            await self._told
        except BaseException:
            self._withdraw(driver)
            raise
        if self.error is not None:
            raise self.error
        return self.slot

    def _ask(self, driver: AioDriver) -> None:
        driver.request(self)

    def _withdraw(self, driver: AioDriver) -> None:
        """Leaves the queue; if the answer is decided already, takes it and gives back what it brings."""
        # An answer that is on its way from another thread arrives with this.
        if not driver.cancel(self) and self.slot is not None:
            driver.release(self.slot, self.streams)


class AwaitedOpenWaiter(AwaitedWaiter, OpenWaiter):
    """A coroutine that waits in `open()`."""

    def _ask(self, driver: AioDriver) -> None:
        driver.open(self)
