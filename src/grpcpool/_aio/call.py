"""The calls that pools and leases return: proxies of gRPC's own, which ensure that their places are released.

::

    Waiting --granted--> Running: everything is the native call's
       |   <--refused by the server--   (a call that may be sent again)
       | refused by the pool, cancelled
       v
    Failed: over without having been started; it serves in place of a native call

There are three reasons for the proxy. From 1.83 on gRPC never frees a stream of responses that was abandoned; the
proxy, which only the caller holds, cancels the native call when it is dropped. A call has to be usable before it has a
place. And a call that the server refused for its limit of streams is sent again, which its caller does not notice.

A call that ends by itself, because it has one response and its requests are not written, goes on when it is dropped, as
with gRPC: what it is for may be done by the server. Its stage holds it then; in `Waiting` it does so from the start.

A method that waits for the native call does so in a loop: by the time the native call has ended, another may have
replaced it.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from asyncio import _get_running_loop
from collections.abc import AsyncIterator, Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from .._grpc.aio_calls import has_done_writing, is_being_read, is_over, when_over
from .._grpc.cancel_messages import NEED_NO_HELP, keeping_message, restore_kept
from .._grpc.status import is_refused_stream
from .._shared.arguments import REQUEST
from .._shared.finalizers import interrupts
from .._shared.stays import Stays
from .call_stages import Running, Stage, Waiting
from .endings import call_all, drop, end_if_not_sent, end_unheld
from .failed_call import Failed, locally_cancelled
from .responses import NOWHERE, Responses

if TYPE_CHECKING:
    from .driver import AioDriver

    # gRPC's classes take no type parameters at run time. The messages are the user's.
    _UnaryUnaryCall = grpc.aio.UnaryUnaryCall[Any, Any]
    _UnaryStreamCall = grpc.aio.UnaryStreamCall[Any, Any]
    _StreamUnaryCall = grpc.aio.StreamUnaryCall[Any, Any]
    _StreamStreamCall = grpc.aio.StreamStreamCall[Any, Any]
else:
    _UnaryUnaryCall = grpc.aio.UnaryUnaryCall
    _UnaryStreamCall = grpc.aio.UnaryStreamCall
    _StreamUnaryCall = grpc.aio.StreamUnaryCall
    _StreamStreamCall = grpc.aio.StreamStreamCall

# After these errors the native call is over, or unaffected: it does not support what was tried, or a coroutine that
# waited for it was closed.
_HARMLESS = (grpc.RpcError, grpc.aio.UsageError, asyncio.InvalidStateError, GeneratorExit, StopAsyncIteration)


MIXED_STYLES = "The iterator and read/write APIs may not be mixed on a single RPC."
"""gRPC's text."""


# The stage of every call that has been dropped.
_DROPPED = locally_cancelled()


class CallProxy(Stays):
    """What the four kinds of call share."""

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

    def __repr__(self) -> str:
        native = self._stage.native
        return f"<{type(self).__name__} waiting for a place>" if native is None else repr(native)

    # --- grpc.aio.RpcContext and grpc.aio.Call ------------------------------------------------------------------

    def cancelled(self) -> bool:
        native = self._stage.native
        return native is not None and bool(native.cancelled())

    def done(self) -> bool:
        native = self._stage.native
        return native is not None and bool(native.done())

    def time_remaining(self) -> float | None:
        stage = self._stage
        left: float | None = (stage if isinstance(stage, Waiting) else stage.native).time_remaining()
        return left

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

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        if not callable(callback):
            raise TypeError("the first argument must be callable")
        stage = self._stage
        if isinstance(stage, Failed) or stage.over:
            callback(self)
            return
        if self._callbacks is None:
            self._callbacks = []
            end_if_not_sent(self._stage.native)
            if self._ends_unread:
                # The callback is called even if the call is dropped, as with gRPC. A stream of responses has no end
                # unless it is read: one that is dropped is cancelled.
                stage.keep(self)
        self._callbacks.append(callback)

    async def _ask(self, name: str) -> Any:
        while True:
            native = await self._begun()
            end_if_not_sent(self._stage.native)
            answer = await getattr(native, name)()
            if native is self._stage.native:
                return answer

    async def initial_metadata(self) -> Any:
        return await self._ask("initial_metadata")

    async def trailing_metadata(self) -> Any:
        return await self._ask("trailing_metadata")

    async def code(self) -> Any:
        return await self._ask("code")

    async def details(self) -> Any:
        return await self._ask("details")

    async def debug_error_string(self) -> Any:
        return await self._ask("debug_error_string")

    async def wait_for_connection(self) -> None:
        while True:
            native = await self._begun_or_cancelled()
            try:
                await keeping_message(native.wait_for_connection())
            except BaseException as error:
                if not self._is_sent_again(native, error):
                    raise
            else:
                if native is self._stage.native:
                    return


class _OneResponse(CallProxy):
    """A call with one response."""

    def __await__(self) -> Generator[Any, None, Any]:
        while True:
            native = self._stage.native
            if native is None:
                yield from self._begun_or_cancelled().__await__()
                continue
            try:
                if type(native) not in NEED_NO_HELP:
                    return (yield from keeping_message(native))
                return (yield from native.__await__())
            except BaseException as error:
                restore_kept(error, native)
                if not self._is_sent_again(native, error):
                    raise


class _ManyResponses(CallProxy):
    """A call with a stream of responses."""

    _ends_unread = False
    # How it is read, for as long as there is no native call to keep it.
    _is_iterated: bool | None = None
    # What iterates it, which holds it; and gRPC's own iterator, once that will not be replaced.
    _responses: weakref.ref[Responses] | None = None
    _iterator: AsyncIterator[Any] | None = None

    def _has_heard(self) -> Any:
        """A response has been read: the call is not sent again, and its connection lives; returns its slot."""
        self._has_responded = True
        slot = self._delivers()
        slot.heard += 1
        return slot

    def _delivers(self) -> Any:
        """The slot whose connection delivers the responses."""
        stage = self._stage
        return stage._slot if isinstance(stage, Running) and self._has_responded else NOWHERE

    def _set_reading_style(self, *, iterated: bool) -> None:
        if self._is_iterated is (not iterated):
            raise grpc.aio.UsageError(MIXED_STYLES)
        self._is_iterated = iterated

    def __aiter__(self) -> AsyncIterator[Any]:
        native = self._stage.native
        if native is None or self._is_iterated is not None:
            self._set_reading_style(iterated=True)
        if native is not None:
            # Raises if the responses are being read the other way.
            native.__aiter__()
        responses = None if self._responses is None else self._responses()
        if responses is None:
            responses = Responses(self)
            self._responses = weakref.ref(responses)
        return responses

    async def read(self) -> Any:
        if self._stage.native is None or (self._is_iterated is not None and not self.done()):
            self._set_reading_style(iterated=False)
        while True:
            native = await self._begun_or_cancelled()
            try:
                # Until the request is sent, a cancellation ends the sending, and its message is lost.
                message = await (native.read() if self._has_responded else keeping_message(native.read()))
            except BaseException as error:
                if isinstance(error, RuntimeError) and is_being_read(native):
                    raise
                if not self._is_sent_again(native, error):
                    raise
            else:
                self._has_heard()
                return message


class _ManyRequests(CallProxy):
    """A call with a stream of requests; never sent again."""

    _may_resend = False
    # Whether its requests are written; known if it has failed before it began.
    _is_written = True

    @property
    def _done_writing_flag(self) -> bool:
        """GRPC's own interceptors read it."""
        native = self._stage.native
        return native is not None and has_done_writing(native)

    def _fail(self, waiting: Waiting, failed: Failed) -> None:
        self._is_written = waiting.arguments[REQUEST] is None
        super()._fail(waiting, failed)

    async def write(self, request: Any) -> None:
        native = await self._begun_for_writing()
        await native.write(request)

    async def done_writing(self) -> None:
        try:
            native = await self._begun_for_writing()
        except asyncio.CancelledError:
            self.cancel()
            raise
        await native.done_writing()

    async def _begun_for_writing(self) -> Any:
        """As `_begun`. As with gRPC, a coroutine that is cancelled while it waits to write does not cancel the call."""
        stage = self._stage
        if not (stage.arguments[REQUEST] is None if isinstance(stage, Waiting) else self._is_written):
            raise grpc.aio.UsageError(MIXED_STYLES)
        if not isinstance(stage, Waiting):
            return stage.native
        native = await self._begun()
        if isinstance(native, Failed):
            # It failed while this waited: raises that error, and not that the call was over before.
            await native.wait_for_connection()
        return native

    async def wait_for_connection(self) -> None:
        native = await self._begun()
        await native.wait_for_connection()


class UnaryUnaryCall(_OneResponse, _UnaryUnaryCall):
    """A call with one request and one response."""


class UnaryStreamCall(_ManyResponses, _UnaryStreamCall):
    """A call with one request and a stream of responses."""


class StreamUnaryCall(_ManyRequests, _OneResponse, _StreamUnaryCall):
    """A call with a stream of requests and one response."""

    def _mark_written(self) -> None:
        """Its requests are written. If it is dropped, it does not end: nothing can write the last one."""
        self._ends_unread = False
        if isinstance(self._stage, Waiting):
            self._stage.keep(None)

    def _mark_complete(self) -> None:
        """The last request has been written: from here on it ends by itself."""
        self._ends_unread = True
        stage = self._stage
        if self._callbacks is not None and not isinstance(stage, Failed):
            stage.keep(self)

    async def done_writing(self) -> None:
        await super().done_writing()
        self._mark_complete()


class StreamStreamCall(_ManyRequests, _ManyResponses, _StreamStreamCall):
    """A call with a stream of requests and a stream of responses."""


PROXIES: dict[str, type[CallProxy]] = {
    "unary_unary": UnaryUnaryCall,
    "unary_stream": UnaryStreamCall,
    "stream_unary": StreamUnaryCall,
    "stream_stream": StreamStreamCall,
}
"""By the names of the makers of multicallables."""
