"""Coroutines that wait for the machine's answer."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Self

from .._machine.openers import OpenWaiter
from .._machine.queue import Waiter
from .._machine.slot import Slot
from .._values.errors import PoolError
from .driver import AioDriver


class _Awaited:
    """A coroutine that waits for an answer of the machine."""

    error: PoolError | None = None
    _answer: asyncio.Future[None]

    def refused(self, error: PoolError) -> None:
        """Wakes the coroutine with its refusal."""
        self.error = error
        self.wake()

    def wake(self) -> None:
        """Wakes the coroutine."""
        if not self._answer.done():
            self._answer.set_result(None)

    def prepare(self, driver: AioDriver) -> Self:
        """Prepares `wait`."""
        self.task = asyncio.current_task(driver.loop)
        self._answer = driver.loop.create_future()
        return self

    async def wait(self) -> None:
        """Waits for the answer.

        Raises:
            PoolError: The answer is a refusal.
        """
        await self._answer
        # Not kept here: a waiter stays in the queue's heap for a while, and an error holds the frames that it passes.
        error, self.error = self.error, None
        if error is not None:
            raise error


class AwaitedWaiter(_Awaited, Waiter):
    """A coroutine that waits for a place. If it is cancelled, it leaves the queue and holds no place."""

    def granted(self, slot: Slot) -> None:  # noqa: ARG002 -- it is known from the decision
        """Wakes the coroutine with its place."""
        self.wake()

    async def get(self, driver: AioDriver) -> Slot:
        """Asks for a place, waits for the answer, and returns the slot.

        Raises:
            PoolError: The answer is a refusal.
        """
        self.prepare(driver)
        try:
            driver.request(self)
            await self.wait()
        except GeneratorExit:
            # The garbage collector may end a coroutine anywhere, like any finalizer.
            driver.defer(partial(driver.withdraw, self))
            raise
        except BaseException:
            driver.withdraw(self)
            raise
        slot = self._slot
        assert slot is not None  # noqa: S101 -- an answer is a place or an error
        return slot


class AwaitedOpenWaiter(_Awaited, OpenWaiter):
    """A coroutine that waits in `open()`."""

    def started(self) -> None:
        """Wakes the coroutine."""
        self.wake()

    async def open(self, driver: AioDriver) -> None:
        """Opens `min_size` connections and waits for them.

        Raises:
            PoolError: They could not be opened.
        """
        self.prepare(driver)
        try:
            driver.open(self)
            await self.wait()
        except GeneratorExit:
            driver.defer(partial(driver.tell, driver.machine.cancel_open, self))
            raise
        except BaseException:
            driver.tell(driver.machine.cancel_open, self)
            raise
