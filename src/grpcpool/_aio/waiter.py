"""Coroutines that wait for the machine's answer."""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import Callable
from typing import Any

from .._machine.machine import OpenWaiter
from .._machine.queue import Waiter
from .._machine.slot import Slot
from .._shared.methods import Method
from .._values.errors import PoolError
from .arguments import Arguments
from .driver import AioDriver
from .failed_call import failed_by


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


class CallWaiter(Waiter):
    """Waits for a place on behalf of a call, and does not keep it alive unless somebody waits for its end."""

    __slots__ = ("arguments", "asking", "began", "begin", "call", "context", "driver", "kept", "method")

    driver: AioDriver
    call: weakref.ref[Any]
    begin: Callable[[CallWaiter, Any, Slot], None]
    method: Method
    arguments: Arguments
    context: contextvars.Context
    asking: bool
    began: float
    kept: Any

    def granted(self, slot: Slot | None) -> None:
        """Begins the call, as if it were begun where it was made."""
        assert slot is not None  # noqa: S101 -- only open() is granted None
        call, self.kept = self.call(), None
        if call is None or not call.waits_as(self):
            # Dropped or cancelled while the grant was on its way.
            self.driver.release(slot, 1)
        else:
            self.begin(self, call, slot)

    def refused(self, error: PoolError) -> None:
        """Fails the call; as with gRPC, it is never over before who makes it has it."""
        if self.asking:
            self.driver.loop.call_soon(self._fail, error)
        else:
            self._fail(error)

    def _fail(self, error: PoolError) -> None:
        call, self.kept = self.call(), None
        if call is not None and call.waits_as(self):
            call.fail(failed_by(error, own_deadline=self.arguments[1] is not None))

    def forget(self) -> None:
        """Nobody waits for it any more."""
        self.kept = None
        self.arguments = (None,) * 6

    @property
    def own_deadline(self) -> float | None:
        """The deadline that the call came with, if any."""
        return None if self.arguments[1] is None else self.deadline

    def time_remaining(self) -> float | None:
        """Seconds until the call's own deadline, if it has one."""
        deadline = self.own_deadline
        return None if deadline is None else max(0.0, deadline - self.driver.monotonic())
