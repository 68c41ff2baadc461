"""The calls of asyncio's fake channel: four kinds, of which each is a whole call as gRPC's own are.

What is awaited, read or written behaves as in `grpc.aio`: callbacks are called before whoever awaits the end goes on; a
task that is cancelled while it awaits or reads a call cancels the call; the iterator and `read` are not mixed.
Everything happens on the thread of the call's loop.
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
    """Whether it was cancelled on this side."""

    @classmethod
    def of(cls, error: grpc.RpcError) -> Self:
        """What the error of either world says."""
        told: Any = error
        trailing = tuple(told.trailing_metadata() or ())
        return cls(told.code(), told.details() or "", Metadata.from_tuple(trailing))

    def debug_error_string(self) -> str:
        """Code and details in one, for an error."""
        return "" if self.code is grpc.StatusCode.OK else f"{self.code.name}:{self.details}"

    def check(self) -> None:
        """Raises what whoever waits for the call is to catch, if it did not end well."""
        if self.local:
            raise asyncio.CancelledError
        if self.code is not grpc.StatusCode.OK:
            raise AioRpcError(self.code, Metadata(), self.trailing_metadata, self.details, self.debug_error_string())


_OK = Status(grpc.StatusCode.OK)
_CANCELLED = Status(grpc.StatusCode.CANCELLED, "Locally cancelled by application!", local=True)
_LATE = Status(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


class FakeCall(grpc.aio.Call):
    """What the four kinds share; `streams` says which it is: whether it takes and returns streams."""

    streams: ClassVar[tuple[bool, bool]]

    def __init__(self, timeout: float | None = None) -> None:
        """Begins; it runs until `finish` or `fail`, or for `timeout` seconds."""
        self._loop = asyncio.get_running_loop()
        self._status: Status | None = None
        self._responses: deque[Any] = deque()
        self._callbacks: list[Callable[[Any], object]] = []
        self._ended = asyncio.Event()
        self._answered = asyncio.Event()
        self._arrived = asyncio.Event()
        self._handler: asyncio.Task[None] | None = None
        self._deadline = None if timeout is None else self._loop.time() + timeout
        self._timer: asyncio.Handle | None = None
        if timeout is not None and timeout > 0:
            self._timer = self._loop.call_later(timeout, self._end, _LATE)
        elif timeout is not None:
            # Before its handler, which is started later, does anything.
            self._timer = self._loop.call_soon(self._end, _LATE)

    # --- what a test does ---------------------------------------------------------------------------------------

    def send(self, response: Any) -> None:
        """Sends one response of those that it streams."""
        if self._status is None:
            self._responses.append(response)
            self._answered.set()
            self._arrived.set()

    def finish(self, responses: Iterable[Any] = ()) -> None:
        """Ends it well, with these responses (one, if the call has one response), when they have been read."""
        for response in responses:
            self.send(response)
        self._conclude(_OK)

    def fail(self, code: grpc.StatusCode, details: str = "") -> None:
        """Ends it badly, at once: what has not been read is lost."""
        self._end(Status(code, details))

    def handle(self, work: Coroutine[Any, Any, None]) -> None:
        """Has `work` done, which ends the call, and is cancelled when that ends otherwise."""
        self._handler = self._loop.create_task(work)

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
        for event in (self._answered, self._arrived, self._ended):
            event.set()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)
        return True

    # --- being a call -------------------------------------------------------------------------------------------

    def cancelled(self) -> bool:
        """Whether it ended by being cancelled, on whichever side."""
        return self._status is not None and self._status.code is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        """Whether it has ended."""
        return self._status is not None

    def cancel(self) -> bool:
        """Cancels it; says whether it still ran."""
        return self._end(_CANCELLED)

    def add_done_callback(self, callback: Callable[[Any], object]) -> None:
        """Has `callback` called with this at the end, or at once."""
        if self._status is None:
            self._callbacks.append(callback)
        else:
            callback(self)

    def time_remaining(self) -> float | None:
        """The seconds to its deadline, if it has one."""
        return None if self._deadline is None else max(0.0, self._deadline - self._loop.time())

    async def initial_metadata(self) -> Metadata:
        """Waits for the first response; has none."""
        await self._answered.wait()
        return Metadata()

    async def trailing_metadata(self) -> Metadata:
        """Waits for the end; has what the error had that a handler raised."""
        return (await self._final()).trailing_metadata

    async def code(self) -> grpc.StatusCode:
        """Waits for the end; says how it was."""
        return (await self._final()).code

    async def details(self) -> str:
        """Waits for the end; says what was said."""
        return (await self._final()).details

    async def debug_error_string(self) -> str:
        """Waits for the end; says both."""
        return (await self._final()).debug_error_string()

    async def _final(self) -> Status:
        await self._ended.wait()
        assert self._status is not None  # noqa: S101 -- for the type checker
        return self._status

    async def _until(self, event: asyncio.Event) -> None:
        # Who is cancelled while he waits for the answer cancels the call, as in gRPC.
        try:
            await event.wait()
        except asyncio.CancelledError:
            self.cancel()
            raise

    def _check(self) -> None:
        if self._status is not None:
            self._status.check()

    def __repr__(self) -> str:
        """The kind, and how it ended."""
        how = "running" if self._status is None else f"{self._status.code.name} {self._status.details!r}"
        return f"<{type(self).__name__}: {how}>"


class _UnaryResponse(FakeCall):
    """Its answer is awaited."""

    def __await__(self) -> Generator[Any, None, Any]:
        """Waits for the end; returns the response, or raises."""
        return (yield from self._response().__await__())

    async def _response(self) -> Any:
        await self._until(self._ended)
        self._check()
        return self._responses[0] if self._responses else None


class _StreamResponse(FakeCall):
    """Its answers are read or iterated; it has ended when the last has been read."""

    _last: Status | None = None
    _iterator: AsyncIterator[Any] | None = None
    _reads = False

    def _conclude(self, status: Status) -> None:
        if self._responses:
            self._last = status
        else:
            self._end(status)

    def __aiter__(self) -> AsyncIterator[Any]:
        """Its one iterator of responses; at the end, stops or raises."""
        if self._reads:
            raise UsageError(_MIXED)
        if self._iterator is None:
            self._iterator = self._iterate()
        return self._iterator

    async def read(self) -> Any:
        """The next response; at the end, `EOF`, or raises."""
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
        if self._last is not None and not self._responses:
            self._end(self._last)
        return response


class Requests:
    """The requests of a call that streams them: as they come with ``async for``, those that have come with ``for``."""

    def __init__(self) -> None:
        """Has none yet."""
        self._waiting: deque[Any] = deque()
        self._changed = asyncio.Event()
        self.complete = asyncio.Event()

    def put(self, request: Any) -> None:
        """Adds one."""
        self._waiting.append(request)
        self._changed.set()

    def close(self) -> None:
        """Adds no more."""
        self.complete.set()
        self._changed.set()

    def __iter__(self) -> Self:
        """Is its own iterator."""
        return self

    def __next__(self) -> Any:
        """The next of those that have come."""
        if not self._waiting:
            raise StopIteration
        return self._waiting.popleft()

    def __aiter__(self) -> Self:
        """Is its own iterator."""
        return self

    async def __anext__(self) -> Any:
        """The next, when it has come."""
        while not self._waiting:
            if self.complete.is_set():
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        return self._waiting.popleft()


class _StreamRequest(FakeCall):
    """Its requests are written, or taken from what it was given."""

    def __init__(
        self,
        timeout: float | None = None,
        given: AsyncIterable[Any] | Iterable[Any] | None = None,
        serialize: Callable[[Any], Any] = lambda message: message,
    ) -> None:
        """Begins; takes the requests that are `given`, if they are."""
        super().__init__(timeout)
        self.requests = Requests()
        self._serialize = serialize
        self._begun = asyncio.Event()
        self._loop.call_soon(self._begun.set)
        self._poller = None if given is None else self._loop.create_task(self._take(given))

    async def write(self, request: Any) -> None:
        """Sends a request."""
        self._check_writes()
        await self._write(request)

    async def done_writing(self) -> None:
        """Has sent the last request."""
        self._check_writes()
        self._done_writing()

    async def wait_for_connection(self) -> None:
        """Waits until it has begun; raises if it has ended badly."""
        await self._begun.wait()
        self._check()

    def cancel(self) -> bool:
        """Cancels it; says whether it still ran."""
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
        await self._begun.wait()
        self._check()
        self.requests.put(self._serialize(request))
        # Lets who takes them do so, also if the requests have no end.
        await asyncio.sleep(0)

    def _done_writing(self) -> None:
        if not self.done():
            self.requests.close()

    async def _take(self, given: AsyncIterable[Any] | Iterable[Any]) -> None:
        # As in gRPC: an iterator that raises cancels the call; one that waits is left waiting when that ends.
        try:
            if isinstance(given, AsyncIterable):
                async for request in given:
                    await self._write(request)
            else:
                for request in given:
                    await self._write(request)
            self._done_writing()
        except BaseException:  # noqa: BLE001 -- the iterator's own; gRPC does not let it out
            _log.debug("The requests could not be taken", exc_info=True)
            self.cancel()


class FakeUnaryUnaryCall(_UnaryResponse, grpc.aio.UnaryUnaryCall[Any, Any]):
    """Unary request, unary response."""

    streams = (False, False)

    async def wait_for_connection(self) -> None:
        """Waits for the end, as gRPC does; raises if that was bad."""
        await self._until(self._ended)
        self._check()


class FakeUnaryStreamCall(_StreamResponse, grpc.aio.UnaryStreamCall[Any, Any]):
    """Unary request, stream of responses."""

    streams = (False, True)

    async def wait_for_connection(self) -> None:
        """Waits for the first response, as gRPC does; raises if it has ended badly."""
        await self._until(self._answered)
        self._check()


class FakeStreamUnaryCall(_StreamRequest, _UnaryResponse, grpc.aio.StreamUnaryCall[Any, Any]):
    """Stream of requests, unary response."""

    streams = (True, False)


class FakeStreamStreamCall(_StreamRequest, _StreamResponse, grpc.aio.StreamStreamCall[Any, Any]):
    """Stream of requests, stream of responses."""

    streams = (True, True)
