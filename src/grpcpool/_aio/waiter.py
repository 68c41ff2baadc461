"""Coroutines that wait for the machine's answer."""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from collections.abc import Callable
from typing import Any, Self

from .._machine.openers import OpenWaiter
from .._machine.queue import Waiter
from .._machine.slot import Slot
from .._shared.methods import Method
from .._values.errors import PoolError
from .arguments import Arguments
from .driver import AioDriver
from .failed_call import failed_by


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
        """Makes `wait` wait."""
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
    """A coroutine that waits for a place. One that is cancelled meanwhile leaves no trace."""

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
            PoolError: That failed.
        """
        self.prepare(driver)
        try:
            driver.open(self)
            await self.wait()
        except BaseException:
            driver.tell(driver.machine.cancel_open, self)
            raise


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

    def granted(self, slot: Slot) -> None:
        """Begins the call, as if it were begun where it was made."""
        call, self.kept = self.call(), None
        if self._released:
            # Cancelled while the grant was on its way.
            return
        if call is None or not call.waits_as(self):
            self.driver.release(slot, 1, self)
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
