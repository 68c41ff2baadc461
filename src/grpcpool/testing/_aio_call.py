"""The calls of the asyncio fake channel: four kinds, each a complete call like gRPC's own.

Awaiting, reading and writing behave as in `grpc.aio`: callbacks run before tasks that await the end continue; a task
that is cancelled while it awaits or reads a call cancels the call; the iterator and `read` cannot be mixed. Everything
runs on the thread of the call's loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Generator, Iterable
from typing import Any, ClassVar, Self

import grpc
from grpc.aio import EOF, AioRpcError, Metadata, UsageError

from ._shared import UNREAD_LIMIT, checked_code, checked_responses, failure_of

_log = logging.getLogger("grpcpool.testing")

_MIXED = "The iterator and read/write APIs may not be mixed on a single RPC."
_FINISHED = "RPC already finished."
_HALF_CLOSED = 'RPC is half closed after calling "done_writing".'


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """How a call ended."""

    code: grpc.StatusCode
    details: str = ""
    trailing_metadata: Metadata = dataclasses.field(default_factory=Metadata)
    local: bool = False
    """Whether the client cancelled the call."""
    raised: BaseException | None = None
    """What interrupted the handler: it is raised where the call is read."""

    @classmethod
    def of(cls, raised: Exception) -> Self:
        """Returns the status of a call whose handler raised this, which may be an error of the sync world."""
        code, details, trailing = failure_of(raised, f"Unexpected {type(raised)}: {raised}")
        return cls(code, details, Metadata.from_tuple(trailing))

    def debug_error_string(self) -> str:
        """Returns code and details in one text."""
        return "" if self.code is grpc.StatusCode.OK else f"{self.code.name}:{self.details}"

    def check(self) -> None:
        """Raises the error that a task waiting for the call gets, if the status is not OK."""
        if self.local:
            raise asyncio.CancelledError
        if self.raised is not None:
            raise self.raised
        if self.code is not grpc.StatusCode.OK:
            raise AioRpcError(self.code, Metadata(), self.trailing_metadata, self.details, self.debug_error_string())


_OK = Status(grpc.StatusCode.OK)
_CANCELLED = Status(grpc.StatusCode.CANCELLED, "Locally cancelled by application!", local=True)
_DEADLINE_EXCEEDED = Status(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


class FakeCall(grpc.aio.Call):
    """What the four kinds share. `streams` is whether a call takes and returns streams."""

    streams: ClassVar[tuple[bool, bool]]

    method = ""
    """The full name of the method that was called."""

    request: Any = None
    """The request as bytes, or an iterator of the requests, as a handler gets it."""

    def __init__(self, timeout: float | None = None) -> None:
        """Starts the call; it runs until `finish` or `fail`, or for `timeout` seconds."""
        self._loop = asyncio.get_running_loop()
        self._status: Status | None = None
        self._responses: deque[Any] = deque()
        self._callbacks: list[Callable[[Any], object]] = []
        self._ended = asyncio.Event()
        self._response_started = asyncio.Event()
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()
        self._handler: asyncio.Task[None] | None = None
        self._deadline = None if timeout is None else self._loop.time() + timeout
        self._timer: asyncio.Handle | None = None
        if timeout is not None and timeout > 0:
            self._timer = self._loop.call_later(timeout, self._end, _DEADLINE_EXCEEDED)
        elif timeout is not None:
            # Runs before the handler, which is started later.
            self._timer = self._loop.call_soon(self._end, _DEADLINE_EXCEEDED)

    # --- for tests ----------------------------------------------------------------------------------------------

    def send(self, response: Any) -> None:
        """Delivers one response of a stream, a message as the stub returns it; the call continues."""
        if self._status is None:
            self._responses.append(response)
            self._response_started.set()
            self._arrived.set()

    def finish(self, responses: Iterable[Any] = ()) -> None:
        """Ends the call with OK and these responses, as the stub returns them, after they have been read.

        One, if the call has one response. They are messages, not bytes: the stub does not deserialize them.
        """
        for response in checked_responses(responses, streams=self.streams[1]):
            self.send(response)
        self._conclude(_OK)

    def fail(self, code: grpc.StatusCode, details: str = "") -> None:
        """Ends the call with an error, at once; unread responses are lost."""
        self._end(Status(checked_code(code), details))

    def handle(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs the handler, which ends the call; cancels it if the call ends in another way."""
        self._handler = self._loop.create_task(work)

    async def _has_room(self) -> None:
        """Waits until a handler may send another response."""
        while len(self._responses) >= UNREAD_LIMIT:
            self._taken.clear()
            await self._taken.wait()
        # Lets the reader run, even if the responses never end.
        await asyncio.sleep(0)

    def _conclude(self, status: Status) -> None:
        self._end(status)

    def _end(self, status: Status) -> bool:
        if self._status is not None:
            return False
        self._status = status
        if self._timer is not None:
            self._timer.cancel()
        if self._handler is not None and self._handler is not asyncio.current_task():
            self._handler.cancel()
        if status.code is not grpc.StatusCode.OK:
            self._responses.clear()
        for event in (self._response_started, self._arrived, self._ended):
            event.set()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)
        return True

    # --- grpc.aio.Call ------------------------------------------------------------------------------------------

    def cancelled(self) -> bool:
        """Whether the call was cancelled, by the client or by the handler."""
        return self._status is not None and self._status.code is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        """Whether the call has ended."""
        return self._status is not None

    def cancel(self) -> bool:
        """Cancels the call; returns whether it was still running."""
        return self._end(_CANCELLED)

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Calls `callback` with the call when it ends, or now if it has ended."""
        if self._status is None:
            self._callbacks.append(callback)
        else:
            callback(self)

    def time_remaining(self) -> float | None:
        """Returns the seconds to the deadline, if there is one."""
        return None if self._deadline is None else max(0.0, self._deadline - self._loop.time())

    async def initial_metadata(self) -> Metadata:
        """Waits for the first response; returns no metadata."""
        await self._response_started.wait()
        return Metadata()

    async def trailing_metadata(self) -> Metadata:
        """Waits for the end; returns the metadata of the error that a handler raised."""
        return (await self._final()).trailing_metadata

    async def code(self) -> grpc.StatusCode:
        """Waits for the end; returns the status code."""
        return (await self._final()).code

    async def details(self) -> str:
        """Waits for the end; returns the details."""
        return (await self._final()).details

    async def debug_error_string(self) -> str:
        """Waits for the end; returns code and details as text."""
        return (await self._final()).debug_error_string()

    async def _final(self) -> Status:
        await self._ended.wait()
        assert self._status is not None  # noqa: S101 -- for the type checker
        return self._status

    async def _until(self, event: asyncio.Event) -> None:
        # A task that is cancelled while it waits cancels the call, as in gRPC.
        try:
            await event.wait()
        except asyncio.CancelledError:
            self.cancel()
            raise

    def _check(self) -> None:
        if self._status is not None:
            self._status.check()

    def __repr__(self) -> str:
        """Returns the kind of the call, and how it ended."""
        how = "running" if self._status is None else f"{self._status.code.name} {self._status.details!r}"
        return f"<{type(self).__name__}: {how}>"


class _UnaryResponse(FakeCall):
    """A call whose single response is awaited."""

    def __await__(self) -> Generator[Any, None, Any]:
        """Waits for the end; returns the response, or raises the error."""
        return (yield from self._response().__await__())

    async def _response(self) -> Any:
        await self._until(self._ended)
        self._check()
        return self._responses[0] if self._responses else None


class _StreamResponse(FakeCall):
    """A call whose responses are read or iterated; it ends when the last one has been read."""

    _last: Status | None = None
    _iterator: AsyncIterator[Any] | None = None
    _reads = False

    def _conclude(self, status: Status) -> None:
        if self._responses:
            self._last = status
        else:
            self._end(status)

    def __aiter__(self) -> AsyncIterator[Any]:
        """Returns the call's only iterator of responses; at the end, it stops or raises the error."""
        if self._reads:
            raise UsageError(_MIXED)
        if self._iterator is None:
            self._iterator = self._iterate()
        return self._iterator

    async def read(self) -> Any:
        """Returns the next response; at the end, returns `EOF` or raises the error."""
        if self.done():
            self._check()
            return EOF
        if self._iterator is not None:
            raise UsageError(_MIXED)
        self._reads = True
        response = await self._next()
        if response is EOF:
            self._check()
        return response

    async def _iterate(self) -> AsyncIterator[Any]:
        while (response := await self._next()) is not EOF:
            yield response
        self._check()

    async def _next(self) -> Any:
        while not self._responses and not self.done():
            self._arrived.clear()
            await self._until(self._arrived)
        if not self._responses:
            return EOF
        response = self._responses.popleft()
        self._taken.set()
        if self._last is not None and not self._responses:
            self._end(self._last)
        return response


class Requests:
    """The requests of a streaming call: all of them with ``async for``, those that have arrived with ``for``."""

    def __init__(self) -> None:
        """Contains no requests yet."""
        self._waiting: deque[Any] = deque()
        self._changed = asyncio.Event()
        self.complete = asyncio.Event()

    def put(self, request: Any) -> None:
        """Adds a request."""
        self._waiting.append(request)
        self._changed.set()

    def close(self) -> None:
        """Marks the requests as complete."""
        self.complete.set()
        self._changed.set()

    def __iter__(self) -> Self:
        """Returns itself."""
        return self

    def __next__(self) -> Any:
        """Returns the next request that has arrived."""
        if not self._waiting:
            raise StopIteration
        return self._waiting.popleft()

    def __aiter__(self) -> Self:
        """Returns itself."""
        return self

    async def __anext__(self) -> Any:
        """Returns the next request, after it has arrived."""
        while not self._waiting:
            if self.complete.is_set():
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft()


class _StreamRequest(FakeCall):
    """A call whose requests are written, or read from an iterator."""

    def __init__(
        self,
        timeout: float | None = None,
        given: AsyncIterable[Any] | Iterable[Any] | None = None,
        serialize: Callable[[Any], Any] = lambda message: message,
    ) -> None:
        """Starts the call; reads the requests from `given`, if there is one."""
        super().__init__(timeout)
        self.requests = Requests()
        self._serialize = serialize
        self._started = asyncio.Event()
        self._loop.call_soon(self._started.set)
        self._poller = None if given is None else self._loop.create_task(self._read_requests(given))

    async def write(self, request: Any) -> None:
        """Sends a request."""
        self._check_writes()
        await self._write(request)

    async def done_writing(self) -> None:
        """Marks the last request as sent."""
        self._check_writes()
        self._done_writing()

    async def wait_for_connection(self) -> None:
        """Waits until the call has started; raises if it has failed."""
        await self._started.wait()
        self._check()

    def cancel(self) -> bool:
        """Cancels the call; returns whether it was still running."""
        cancelled = super().cancel()
        if cancelled and self._poller is not None:
            self._poller.cancel()
        return cancelled

    def _check_writes(self) -> None:
        if self._poller is not None:
            raise UsageError(_MIXED)

    async def _write(self, request: Any) -> None:
        if self.done():
            raise asyncio.InvalidStateError(_FINISHED)
        if self.requests.complete.is_set():
            raise asyncio.InvalidStateError(_HALF_CLOSED)
        await self._started.wait()
        self._check()
        self.requests.put(self._serialize(request))
        # Lets the reader run, even if the requests never end.
        await asyncio.sleep(0)

    def _done_writing(self) -> None:
        if not self.done():
            self.requests.close()

    async def _read_requests(self, given: AsyncIterable[Any] | Iterable[Any]) -> None:
        # As in gRPC: an iterator that raises cancels the call; one that waits is left waiting when the call ends.
        try:
            if isinstance(given, AsyncIterable):
                async for request in given:
                    await self._write(request)
            else:
                for request in given:
                    await self._write(request)
            self._done_writing()
        except BaseException:  # noqa: BLE001 -- from the iterator; gRPC does not raise it either
            _log.debug("The iterator of requests raised", exc_info=True)
            self.cancel()


class FakeUnaryUnaryCall(_UnaryResponse, grpc.aio.UnaryUnaryCall[Any, Any]):
    """Unary request, unary response."""

    streams = (False, False)

    async def wait_for_connection(self) -> None:
        """Waits for the end, as gRPC does; raises if the call has failed."""
        await self._until(self._ended)
        self._check()


class FakeUnaryStreamCall(_StreamResponse, grpc.aio.UnaryStreamCall[Any, Any]):
    """Unary request, stream of responses."""

    streams = (False, True)

    async def wait_for_connection(self) -> None:
        """Waits for the first response, as gRPC does; raises if the call has failed."""
        await self._until(self._response_started)
        self._check()


class FakeStreamUnaryCall(_StreamRequest, _UnaryResponse, grpc.aio.StreamUnaryCall[Any, Any]):
    """Stream of requests, unary response."""

    streams = (True, False)


class FakeStreamStreamCall(_StreamRequest, _StreamResponse, grpc.aio.StreamStreamCall[Any, Any]):
    """Stream of requests, stream of responses."""

    streams = (True, True)
