"""A chain of asyncio interceptors, run in public ways: for a gRPC whose own classes are not as known.

::

    made --(task: the interceptors, one within the other)--> what they returned: everything is that call's
      |  cancelled, or an interceptor raised
      v
    over, without a call

An interceptor may return a call, or a response (or an asynchronous iterator of responses), which `_Answer` stands for.
A call is held by its caller alone. A stream of responses that is dropped is cancelled. One with one response goes on:
what becomes of the call that the interceptors return is decided there.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from asyncio import _get_running_loop
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

if TYPE_CHECKING:
    # gRPC's classes take no type parameters at run time; and the messages are the user's.
    _UnaryUnaryCall = grpc.aio.UnaryUnaryCall[Any, Any]
    _UnaryStreamCall = grpc.aio.UnaryStreamCall[Any, Any]
    _StreamUnaryCall = grpc.aio.StreamUnaryCall[Any, Any]
    _StreamStreamCall = grpc.aio.StreamStreamCall[Any, Any]
else:
    _UnaryUnaryCall = grpc.aio.UnaryUnaryCall
    _UnaryStreamCall = grpc.aio.UnaryStreamCall
    _StreamUnaryCall = grpc.aio.StreamUnaryCall
    _StreamStreamCall = grpc.aio.StreamStreamCall

_MIXED = "The iterator and read/write APIs may not be mixed on a single RPC."
_FINISHED = "RPC already finished."
_HALF_CLOSED = 'RPC is half closed after calling "done_writing".'
_CANCELLED = "Locally cancelled by application!"

_END = object()

Callback = Callable[[Any], Any]


class _Answer(grpc.aio.Call):
    """What stands for the call where an interceptor returned an answer instead.

    If the interceptor went on before, the status is that of the call that it got; otherwise all is well.
    """

    def __init__(self, answer: Any, call: Any) -> None:
        self._answer = answer
        self._went_on_to = call

    def __await__(self) -> Generator[Any, None, Any]:
        yield from ()
        return self._answer

    def __aiter__(self) -> AsyncIterator[Any]:
        iterator: AsyncIterator[Any] = aiter(self._answer)
        return iterator

    def cancel(self) -> bool:
        return self._went_on_to is not None and bool(self._went_on_to.cancel())

    def cancelled(self) -> bool:
        return self._went_on_to is not None and bool(self._went_on_to.cancelled())

    def done(self) -> bool:
        return self._went_on_to is None or bool(self._went_on_to.done())

    def time_remaining(self) -> float | None:
        return None if self._went_on_to is None else self._went_on_to.time_remaining()

    def add_done_callback(self, callback: Callback) -> None:
        if self._went_on_to is None:
            callback(self)
        else:
            self._went_on_to.add_done_callback(lambda _: callback(self))

    async def initial_metadata(self) -> Any:
        return grpc.aio.Metadata() if self._went_on_to is None else await self._went_on_to.initial_metadata()

    async def trailing_metadata(self) -> Any:
        return grpc.aio.Metadata() if self._went_on_to is None else await self._went_on_to.trailing_metadata()

    async def code(self) -> Any:
        return grpc.StatusCode.OK if self._went_on_to is None else await self._went_on_to.code()

    async def details(self) -> Any:
        return "" if self._went_on_to is None else await self._went_on_to.details()

    async def debug_error_string(self) -> Any:
        return "" if self._went_on_to is None else await self._went_on_to.debug_error_string()

    async def wait_for_connection(self) -> None:
        if self._went_on_to is not None:
            await self._went_on_to.wait_for_connection()


class _Chain:
    """The interceptors of one call; each continues with the next."""

    def __init__(self, kind: str, of_streams: bool) -> None:
        self._intercept = f"intercept_{kind}"
        self._of_streams = of_streams
        # The last call that an interceptor returned.
        self._call: Any = None

    async def run(self, interceptors: Sequence[Any], details: Any, request: Any) -> Any:
        first, *others = interceptors
        answer = await getattr(first, self._intercept)(partial(self.run, others), details, request)
        if isinstance(answer, grpc.aio.Call):
            self._call = answer
        else:
            self._call = _Answer(answer, self._call if self._of_streams else None)
        return self._call


class OwnCall:
    """What the four kinds of intercepted call have in common."""

    _kind = ""
    _running: asyncio.Task[Any]

    def __init__(
        self,
        interceptors: Sequence[Any],
        request: Any,
        timeout: float | None,
        metadata: Any,
        credentials: grpc.CallCredentials | None,
        wait_for_ready: bool | None,
        _channel: None,
        method: bytes,
        _request_serializer: Any,
        _response_deserializer: Any,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Runs the chain; the parameters are those of gRPC's classes. The last interceptor must not go on."""
        self._loop = loop
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._callbacks: list[Callback] = []
        # gRPC gives interceptors the name in bytes.
        details = grpc.aio.ClientCallDetails(method, timeout, metadata, credentials, wait_for_ready)  # type: ignore[arg-type]
        chain = _Chain(self._kind, self._kind.endswith("stream"))
        self._running = loop.create_task(chain.run(interceptors, details, self._requests_of(request)))
        self._running.add_done_callback(self._has_run)

    def _requests_of(self, request: Any) -> Any:
        return request

    def _has_run(self, _: object) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self.add_done_callback(callback)

    def _returned(self) -> Any:
        """The call that the chain has returned; `None` if it runs, was cancelled, or raised."""
        task = self._running
        if not task.done() or task.cancelled() or task.exception() is not None:
            return None
        return task.result()

    @property
    def chain(self) -> asyncio.Task[Any]:
        """The task that runs the interceptors."""
        return self._running

    def __del__(self) -> None:
        if self._kind.endswith("stream") and "_running" in self.__dict__:
            end_at_home(self, self._loop)

    def cancel(self) -> bool:
        if not self._running.done():
            return self._running.cancel()
        call = self._returned()
        return call is not None and bool(call.cancel())

    def cancelled(self) -> bool:
        task, call = self._running, self._returned()
        if call is not None:
            return bool(call.cancelled())
        if not task.done() or task.cancelled():
            return task.cancelled()
        error = task.exception()
        return isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        call = self._returned()
        return self._running.done() if call is None else bool(call.done())

    def time_remaining(self) -> float | None:
        call = self._returned()
        if call is not None:
            left: float | None = call.time_remaining()
            return left
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def add_done_callback(self, callback: Callback) -> None:
        call = self._returned()
        if call is not None:
            call.add_done_callback(lambda _: callback(self))
        elif self._running.done():
            callback(self)
        else:
            self._callbacks.append(callback)

    async def _call_or_error(self) -> Any:
        """The call, or the `AioRpcError` of the chain; `None` if the chain was cancelled."""
        try:
            return await self._running
        except grpc.aio.AioRpcError as error:
            return error
        except asyncio.CancelledError:
            if not self._running.cancelled():
                raise
            return None

    async def _ask(self, name: str, if_cancelled: Any) -> Any:
        call = await self._call_or_error()
        if call is None:
            return if_cancelled
        answer = getattr(call, name)()
        return answer if isinstance(call, grpc.aio.AioRpcError) else await answer

    async def initial_metadata(self) -> Any:
        return await self._ask("initial_metadata", None)

    async def trailing_metadata(self) -> Any:
        return await self._ask("trailing_metadata", None)

    async def code(self) -> Any:
        return await self._ask("code", grpc.StatusCode.CANCELLED)

    async def details(self) -> Any:
        return await self._ask("details", _CANCELLED)

    async def debug_error_string(self) -> Any:
        return await self._ask("debug_error_string", "")

    async def wait_for_connection(self) -> None:
        await (await self._running).wait_for_connection()


def end_at_home(call: Any, loop: asyncio.AbstractEventLoop) -> None:
    """Cancels a call that is being finalized: at once on its loop, else soon.

    Then it lives until that is done, and its own objects are freed on the loop as well.
    """
    if _get_running_loop() is loop:
        _cancel(call)
    else:
        # A closed loop has nothing more to do.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_cancel, call)


def _cancel(call: Any) -> None:
    # In old releases gRPC's raises what an interceptor has raised.
    with contextlib.suppress(Exception):
        call.cancel()


class _OneResponse(OwnCall):
    """A call with one response."""

    def __await__(self) -> Generator[Any, None, Any]:
        call = yield from self._running.__await__()
        return (yield from call.__await__())


class _ManyResponses(OwnCall):
    """A call with a stream of responses."""

    _responses: AsyncIterator[Any] | None = None

    async def _read(self) -> AsyncIterator[Any]:
        # A generator of its own, which holds the call: often nothing else does.
        async for response in await self._running:
            yield response

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._responses is None:
            self._responses = self._read()
        return self._responses

    async def read(self) -> Any:
        return await anext(aiter(self), grpc.aio.EOF)


async def _written(queue: asyncio.Queue[Any]) -> AsyncIterator[Any]:
    while (request := await queue.get()) is not _END:
        yield request


class _ManyRequests(OwnCall):
    """A call with a stream of requests: an iterator, or what is written."""

    _queue: asyncio.Queue[Any] | None = None
    _ended: asyncio.Future[None]
    _has_done_writing = False
    _when_complete: Callable[[], None]

    def _requests_of(self, request: Any) -> Any:
        if request is not None:
            return request
        self._queue = asyncio.Queue(maxsize=1)
        self._ended = self._loop.create_future()
        return _written(self._queue)

    def _has_run(self, task: object) -> None:
        super()._has_run(task)
        call = self._returned()
        if call is not None and self._queue is not None:
            call.add_done_callback(partial(_end, self._queue, self._ended))

    async def write(self, request: Any) -> None:
        call = await self._call_for_writing()
        if call.done():
            raise asyncio.InvalidStateError(_FINISHED)
        if self._has_done_writing:
            raise asyncio.InvalidStateError(_HALF_CLOSED)
        await self._put(request)
        if call.done():
            raise asyncio.InvalidStateError(_FINISHED)

    async def done_writing(self) -> None:
        await self._call_for_writing()
        if not self._has_done_writing:
            self._has_done_writing = True
            await self._put(_END)
            self._when_complete()

    async def _call_for_writing(self) -> Any:
        if self._queue is None:
            raise grpc.aio.UsageError(_MIXED)
        call = await self._call_or_error()
        if call is None or isinstance(call, grpc.aio.AioRpcError):
            raise asyncio.InvalidStateError(_FINISHED)
        return call

    async def _put(self, request: Any) -> None:
        """Waits until the request before this one is taken, or the call is over."""
        assert self._queue is not None  # noqa: S101 -- for the type checker
        putting = self._loop.create_task(self._queue.put(request))
        try:
            await asyncio.wait((putting, self._ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            putting.cancel()


def _end(queue: asyncio.Queue[Any], ended: asyncio.Future[None], _: object) -> None:
    """The call is over: what waits to write, or for what is written, waits no longer."""
    if not ended.done():
        ended.set_result(None)
    if queue.empty():
        queue.put_nowait(_END)


class OwnUnaryUnaryCall(_OneResponse, _UnaryUnaryCall):
    """A call with one request and one response."""

    _kind = "unary_unary"


class OwnUnaryStreamCall(_ManyResponses, _UnaryStreamCall):
    """A call with one request and a stream of responses."""

    _kind = "unary_stream"


class OwnStreamUnaryCall(_ManyRequests, _OneResponse, _StreamUnaryCall):
    """A call with a stream of requests and one response."""

    _kind = "stream_unary"


class OwnStreamStreamCall(_ManyRequests, _ManyResponses, _StreamStreamCall):
    """A call with a stream of requests and a stream of responses."""

    _kind = "stream_stream"


OWN_CHAINS: dict[str, type[OwnCall]] = {
    kind._kind: kind for kind in (OwnUnaryUnaryCall, OwnUnaryStreamCall, OwnStreamUnaryCall, OwnStreamStreamCall)
}
"""By the names of the makers of multicallables."""
