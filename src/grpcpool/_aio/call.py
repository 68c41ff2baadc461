"""The calls that pools and leases return: proxies of gRPC's own, which ensure that their places are released.

There are three reasons for the proxy. From 1.83 on gRPC never frees a stream of responses that was abandoned; the
proxy, which only the caller holds, cancels the native call when it is dropped. A call has to be usable before it has a
place. And a call that the server refused for its limit of streams is sent again, which its caller does not notice.

What is asked of a call is passed on to its native call. A method that waits for that does so in a loop: by the time it
has ended, another may have replaced it. How a call gets its native call is in `staged_call.py`.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Generator
from typing import TYPE_CHECKING, Any

import grpc

from .._grpc.aio_calls import has_done_writing, is_being_read
from .._grpc.cancel_messages import NEED_NO_HELP, keeping_message, restore_kept
from .._shared.arguments import REQUEST
from .call_stages import Running, Waiting
from .endings import end_if_not_sent
from .failed_call import Failed
from .responses import NOWHERE, Responses
from .staged_call import StagedCall

if TYPE_CHECKING:
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

MIXED_STYLES = "The iterator and read/write APIs may not be mixed on a single RPC."
"""gRPC's text."""


class CallProxy(StagedCall):
    """What the four kinds of call share."""

    def __repr__(self) -> str:
        native = self._stage.native
        return f"<{type(self).__name__} waiting for a place>" if native is None else repr(native)

    # --- grpc.aio.RpcContext and grpc.aio.Call ------------------------------------------------------------------

    def cancelled(self) -> bool:
        native = self._stage.native
        return native is not None and bool(native.cancelled())

    def time_remaining(self) -> float | None:
        stage = self._stage
        left: float | None = (stage if isinstance(stage, Waiting) else stage.native).time_remaining()
        return left

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
