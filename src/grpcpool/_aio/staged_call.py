"""How a call goes from stage to stage: the stages are in `call_stages.py`.

::

    Waiting --granted--> Running: everything is the native call's
       |   <--refused by the server--   (a call that may be sent again)
       | refused by the pool, cancelled
       v
    Failed: over without having been started; it serves in place of a native call

A call that ends by itself, because it has one response and its requests are not written, goes on when it is dropped, as
with gRPC: what it is for may be done by the server. Its stage holds it then; in `Waiting` it does so from the start.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from asyncio import _get_running_loop
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from .._grpc.aio_calls import is_over, when_over
from .._grpc.status import is_refused_stream
from .._shared.finalizers import interrupts
from .._shared.unpicklable import Unpicklable
from .call_stages import Running, Stage, Waiting
from .endings import call_all, drop, end_if_not_sent, end_unheld
from .failed_call import Failed, locally_cancelled

if TYPE_CHECKING:
    from .driver import AioDriver

# After these errors the native call is over, or unaffected: it does not support what was tried, or a coroutine that
# waited for it was closed.
_HARMLESS = (grpc.RpcError, grpc.aio.UsageError, asyncio.InvalidStateError, GeneratorExit, StopAsyncIteration)

# The stage of every call that has been dropped.
_DROPPED = locally_cancelled()


class StagedCall(Unpicklable):
    """A call without what its caller uses of it."""

    # Until `_begin` or `_wait` sets it, there is nothing that would have to end.
    _stage: Stage = _DROPPED
    # Whether it may be sent again: its request is not an iterator.
    _may_resend = True
    # How often it has been sent again.
    _resends = 0
    # Whether a response has been read: then it is not sent again.
    _has_responded = False
    # Whether the call ends even if its responses are not read.
    _ends_unread = True
    _callbacks: list[Callable[[Any], None]] | None = None
    # References to the calls of its handle, if it is of one.
    _followed_in: set[weakref.ref[Any]] | None = None
    # Before 1.83 a channel that is closed looks for it in all tasks, to find its own calls.
    _channel: Any = None

    # Set by its creator, for which calling an __init__ would cost too much.
    _driver: AioDriver
    # A pool or a lease; kept as gRPC's calls keep their channel.
    _owner: Any

    # --- its stages ---------------------------------------------------------------------------------------------

    def _begin(self, native: Any, running: Running, waiting: Waiting | None = None) -> None:
        """The native call runs; `waiting`: the stage before, if the call waited."""
        running.native = native
        self._stage = running
        when_over(native, running.ended)
        if waiting is not None:
            if self._callbacks is not None:
                end_if_not_sent(self._stage.native)
                if self._ends_unread:
                    running.keep(self)
            waiting.left()

    def _wait(self, waiting: Waiting) -> None:
        """The call waits for a place, at first or again."""
        self._stage = waiting
        if self._ends_unread:
            waiting.keep(self)

    def _fail(self, waiting: Waiting, failed: Failed) -> None:
        """The call is over, and was never started."""
        failed.ends_at(waiting.own_deadline, self._driver.monotonic)
        self._stage = failed
        context = waiting.context
        waiting.left()
        if self._callbacks:
            # Callbacks see the variables of their call, wherever it is refused; that context may be in use here.
            context.copy().run(self._run_callbacks)

    def _end(self, running: Running) -> None:
        """The native call is over, and the call with it."""
        running.over = True
        if self._callbacks is not None:
            self._run_callbacks()

    def _run_callbacks(self) -> None:
        callbacks, self._callbacks = self._callbacks, None
        call_all(callbacks or (), self, self._driver.loop)

    async def _begun(self) -> Any:
        """The native call; waits for it if need be."""
        while isinstance(stage := self._stage, Waiting):
            future = self._driver.loop.create_future()
            stage.awaiting_start.append(future)
            await future
        return stage.native

    async def _begun_or_cancelled(self) -> Any:
        """As `_begun`; if the waiting coroutine is cancelled, so is the call."""
        try:
            return await self._begun()
        except asyncio.CancelledError:
            self.cancel()
            raise

    def _is_sent_again(self, native: Any, error: BaseException) -> bool:
        """Whether, after `native` failed with `error`, the call goes on with another native call.

        gRPC never ends a call that could not send what it has to send (because gRPC refuses its metadata, say). It is
        cancelled here, so that its place is released.
        """
        running = self._stage
        if isinstance(running, Running) and running.native is native and is_over(native):
            # A callback before ours may have raised; then gRPC called no further ones.
            running.ended()
        if native is not self._stage.native:
            if isinstance(error, grpc.RpcError):
                return True
            if not isinstance(error, GeneratorExit):
                # The call has not ended: the coroutine that waits for it was cancelled.
                self.cancel()
        elif not isinstance(error, _HARMLESS) and not is_over(native):
            self.cancel()
        elif isinstance(error, grpc.RpcError) and not self._may_resend and is_refused_stream(error):
            # For a call that writes, gRPC first reports only that it failed.
            self._report_refusal()
        return False

    def _report_refusal(self) -> None:
        running = self._stage
        if isinstance(running, Running) and not running.refused:
            running.refused = True
            # Its place may have been released by now, so that the slot has been used since it began.
            driver = self._driver
            driver.tell(driver.machine.note_refusal, running._slot, 1, driver.monotonic())

    def done(self) -> bool:
        native = self._stage.native
        return native is not None and bool(native.done())

    def cancel(self) -> bool:
        driver = self._driver
        # A finalizer of the user's may run anywhere.
        if not driver.is_at_home() or interrupts(driver):
            running = not self.done()
            driver.defer(self.cancel)
            return running
        stage = self._stage
        if not isinstance(stage, Waiting):
            return bool(stage.native.cancel())
        self._fail(stage, locally_cancelled())
        driver.withdraw(stage)
        return True

    def __del__(self) -> None:
        stage = self._stage
        # As `isinstance`, which calls a function.
        if type(stage) is Failed:
            return
        # Finalizers of intercepted calls that are collected together with this one may still cancel it.
        self._stage = _DROPPED
        driver = self._driver
        if stage.over and (_get_running_loop() is driver.loop or driver.is_at_home()):
            # Would be a cycle: the native call holds the stage, by its callbacks.
            stage.native = None
        elif driver.is_orphan():
            # As gRPC does when its own call is dropped.
            with contextlib.suppress(RuntimeError):
                if isinstance(stage, Waiting):
                    stage.left()
                else:
                    stage.native.cancel()
            stage.drop()
        elif self._ends_unread and isinstance(stage, Running) and not stage.kept and stage.runs():
            self._go_on(stage)
        else:
            driver.defer(partial(drop, driver, stage, self._callbacks))

    def _go_on(self, running: Running) -> None:
        """The call has been dropped while it runs, and goes on: another proxy, which `running` holds, replaces this."""
        heir = type(self)()
        heir.__dict__.update(self.__dict__)
        heir._stage = running
        running.call = weakref.ref(heir)
        followed_in = self._followed_in
        if followed_in is not None:
            followed_in.add(weakref.ref(heir, followed_in.discard))
        self._driver.defer(partial(end_unheld, running, heir))
