"""The asyncio twins of the fakes, with the same names: a `FakeChannel` is a whole `grpc.aio.Channel`.

::

    async def get(request):
        return b"an order"

    factory = aio.FakeFactory(lambda: aio.FakeChannel({"/shop.Orders/Get": get}))

Handlers are functions, coroutine functions or asynchronous generators. One that takes a stream of requests is given an
iterator for ``async for``; a plain function is called when all of them have come, and may use ``for``. An exception of
a handler ends its call as a server would. Deadlines are kept, by the clock of the loop.

A channel may be made anywhere. It belongs to the loop that runs then, else to that of its first use, and is used on
the thread of that loop, also by the test.
"""

# ruff: noqa: D102 -- the methods of multicallables are documented by gRPC

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc
from grpc.aio import AioRpcError, Metadata, UsageError

from ._aio_call import (
    FakeCall,
    FakeStreamStreamCall,
    FakeStreamUnaryCall,
    FakeUnaryStreamCall,
    FakeUnaryUnaryCall,
    Requests,
    Status,
)
from ._shared import ANSWERS, Codec, FakeConnection, FakeFactoryOf, Handler, codec

__all__ = [
    "FakeCall",
    "FakeChannel",
    "FakeFactory",
    "FakeStreamStream",
    "FakeStreamStreamCall",
    "FakeStreamUnary",
    "FakeStreamUnaryCall",
    "FakeUnaryStream",
    "FakeUnaryStreamCall",
    "FakeUnaryUnary",
    "FakeUnaryUnaryCall",
    "Requests",
    "error",
]

if TYPE_CHECKING:
    # Not all of gRPC's classes take type parameters at run time, in all its versions.
    _UnaryUnary = grpc.aio.UnaryUnaryMultiCallable[Any, Any]
    _UnaryStream = grpc.aio.UnaryStreamMultiCallable[Any, Any]
    _StreamUnary = grpc.aio.StreamUnaryMultiCallable[Any, Any]
    _StreamStream = grpc.aio.StreamStreamMultiCallable[Any, Any]
else:
    _UnaryUnary = grpc.aio.UnaryUnaryMultiCallable
    _UnaryStream = grpc.aio.UnaryStreamMultiCallable
    _StreamUnary = grpc.aio.StreamUnaryMultiCallable
    _StreamStream = grpc.aio.StreamStreamMultiCallable

C = TypeVar("C", bound=FakeCall)

_log = logging.getLogger("grpcpool.testing")


def error(code: grpc.StatusCode, details: str = "") -> AioRpcError:
    """An error for a handler to raise."""
    return AioRpcError(code, Metadata(), Metadata(), details, Status(code, details).debug_error_string())


class _Method:
    """What the four kinds of multicallable share: how a call of one method of one channel is begun."""

    def __init__(self, channel: FakeChannel, method: str, serialize: Codec, deserialize: Codec) -> None:
        self.channel = channel
        self.method = method
        self.serialize = _lenient(codec(serialize), b"")
        self._deserialize = _lenient(codec(deserialize), None)

    def begin(self, make: Callable[[], C], request: Callable[[C], Any]) -> C:
        call = self.channel.admit(make)
        given = request(call)
        if not self.channel.holds_calls:
            handler = self.channel.handlers.get(self.method, _ANSWERS[call.streams])
            call.handle(self._answer(call, handler, given))
        return call

    async def _answer(self, call: FakeCall, handler: Handler, given: Any) -> None:
        takes_stream, returns_stream = call.streams
        try:
            if takes_stream and not _is_asynchronous(handler):
                await given.complete.wait()
            answer = handler(given)
            if inspect.isawaitable(answer):
                answer = await answer
            if returns_stream:
                await self._send_each(call, answer)
            else:
                call.send(self._deserialize(answer))
        except grpc.RpcError as raised:
            call._conclude(Status.of(raised))
        except Exception as raised:  # noqa: BLE001 -- as a server does
            call._conclude(Status(grpc.StatusCode.UNKNOWN, f"Unexpected {type(raised)}: {raised}"))
        except BaseException:
            call.fail(grpc.StatusCode.CANCELLED, "The handler was cancelled")
            raise
        else:
            call.finish()

    async def _send_each(self, call: FakeCall, answers: AsyncIterable[Any] | Iterable[Any]) -> None:
        if not isinstance(answers, AsyncIterable):
            for answer in answers:
                await self._send(call, answer)
            return
        try:
            async for answer in answers:
                await self._send(call, answer)
        finally:
            if inspect.isasyncgen(answers):
                await answers.aclose()

    async def _send(self, call: FakeCall, answer: Any) -> None:
        call.send(self._deserialize(answer))
        # Lets who reads them do so, also if the answers have no end.
        await asyncio.sleep(0)


async def _echo_each(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield request


_ANSWERS: dict[tuple[bool, bool], Handler] = {**ANSWERS, (True, True): _echo_each}


def _is_asynchronous(handler: Handler) -> bool:
    functions = (handler, getattr(handler, "__call__", None))  # noqa: B004 -- an object's method, to look at
    return any(inspect.iscoroutinefunction(it) or inspect.isasyncgenfunction(it) for it in functions)


def _lenient(convert: Callable[[Any], Any], instead: Any) -> Callable[[Any], Any]:
    # As grpc.aio does: what raises is logged, and the call goes on with nothing.
    def converted(message: Any) -> Any:
        try:
            return convert(message)
        except Exception:  # noqa: BLE001 -- whatever a codec raises
            _log.exception("A message could not be converted")
            return instead

    return converted


class FakeUnaryUnary(_UnaryUnary):
    """Unary request, unary response."""

    def __init__(self, method: _Method) -> None:
        """Calls `method`."""
        self._method = method

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> FakeUnaryUnaryCall:
        return self._method.begin(lambda: FakeUnaryUnaryCall(timeout), lambda call: self._method.serialize(request))


class FakeUnaryStream(_UnaryStream):
    """Unary request, stream of responses."""

    def __init__(self, method: _Method) -> None:
        """Calls `method`."""
        self._method = method

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> FakeUnaryStreamCall:
        return self._method.begin(lambda: FakeUnaryStreamCall(timeout), lambda call: self._method.serialize(request))


class FakeStreamUnary(_StreamUnary):
    """Stream of requests, unary response."""

    def __init__(self, method: _Method) -> None:
        """Calls `method`."""
        self._method = method

    def __call__(
        self,
        request_iterator: AsyncIterable[Any] | Iterable[Any] | None = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> FakeStreamUnaryCall:
        method = self._method
        return method.begin(
            lambda: FakeStreamUnaryCall(timeout, request_iterator, method.serialize), lambda call: call.requests
        )


class FakeStreamStream(_StreamStream):
    """Stream of requests, stream of responses."""

    def __init__(self, method: _Method) -> None:
        """Calls `method`."""
        self._method = method

    def __call__(
        self,
        request_iterator: AsyncIterable[Any] | Iterable[Any] | None = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> FakeStreamStreamCall:
        method = self._method
        return method.begin(
            lambda: FakeStreamStreamCall(timeout, request_iterator, method.serialize), lambda call: call.requests
        )


class FakeChannel(FakeConnection, grpc.aio.Channel):
    """A channel whose connection is whatever a test says."""

    def __init__(
        self,
        handlers: Mapping[str, Handler] | None = None,
        *,
        connects: bool = True,
        holds_calls: bool = False,
    ) -> None:
        """Makes a channel in state `IDLE`.

        Args:
            handlers: How methods answer, by their full names; others answer with the request.
            connects: Whether it is `READY` once it is asked to connect; else it is `CONNECTING` until `set_state`.
            holds_calls: Whether calls run until the test ends them; they are in `calls`.
        """
        super().__init__(handlers, connects=connects, holds_calls=holds_calls)
        self.calls: list[FakeCall] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            # Its loop will be that of its first use.
            self._loop = None

    # --- what a test does ---------------------------------------------------------------------------------------

    def admit(self, make: Callable[[], C]) -> C:
        """Begins a call.

        Raises:
            UsageError: The channel is closed; in gRPC's words.
            RuntimeError: It belongs to another loop.
        """
        self._check()
        call = make()
        self.calls.append(call)
        return call

    def _check(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise RuntimeError("a fake channel that belongs to one event loop was used in another")
        if self.closed:
            raise UsageError("Channel is closed.")
        return loop

    # --- being a channel ----------------------------------------------------------------------------------------

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Says its state; connects then, if it is asked to."""
        state = self._state
        if try_to_connect:
            self._connect()
        return state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Waits until its state is another, as it is after `close`."""
        changed = self._check().create_future()
        if self._state is not last_observed_state:
            return

        def tell(state: grpc.ChannelConnectivity) -> None:
            if state is not last_observed_state and not changed.done():
                changed.set_result(None)

        self._subscribers.append(tell)
        try:
            await changed
        finally:
            self._subscribers.remove(tell)

    async def channel_ready(self) -> None:
        """Connects, and waits until it is `READY`."""
        while (state := self.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
            await self.wait_for_state_change(state)

    async def close(self, grace: float | None = None) -> None:
        """Closes it; gives its calls so many seconds, then cancels them. `closed` counts how often."""
        self.closed += 1
        running = [call for call in self.calls if not call.done()]
        if grace and running:
            ends = [asyncio.ensure_future(call.code()) for call in running]
            await asyncio.wait(ends, timeout=grace)
        for call in running:
            call.cancel()
        self.set_state(grpc.ChannelConnectivity.SHUTDOWN)

    async def __aenter__(self) -> Self:
        """Returns the channel."""
        return self

    async def __aexit__(self, *raised: object) -> None:
        """Closes it."""
        await self.close()

    def unary_unary(
        self,
        method: str,
        request_serializer: Codec = None,
        response_deserializer: Codec = None,
        _registered_method: bool | None = False,
    ) -> FakeUnaryUnary:
        """As `grpc.aio.Channel.unary_unary`."""
        return FakeUnaryUnary(_Method(self, method, request_serializer, response_deserializer))

    def unary_stream(
        self,
        method: str,
        request_serializer: Codec = None,
        response_deserializer: Codec = None,
        _registered_method: bool | None = False,
    ) -> FakeUnaryStream:
        """As `grpc.aio.Channel.unary_stream`."""
        return FakeUnaryStream(_Method(self, method, request_serializer, response_deserializer))

    def stream_unary(
        self,
        method: str,
        request_serializer: Codec = None,
        response_deserializer: Codec = None,
        _registered_method: bool | None = False,
    ) -> FakeStreamUnary:
        """As `grpc.aio.Channel.stream_unary`."""
        return FakeStreamUnary(_Method(self, method, request_serializer, response_deserializer))

    def stream_stream(
        self,
        method: str,
        request_serializer: Codec = None,
        response_deserializer: Codec = None,
        _registered_method: bool | None = False,
    ) -> FakeStreamStream:
        """As `grpc.aio.Channel.stream_stream`."""
        return FakeStreamStream(_Method(self, method, request_serializer, response_deserializer))


class FakeFactory(FakeFactoryOf[FakeChannel]):
    """Makes fake channels, and remembers them."""

    def __init__(self, make: Callable[[], FakeChannel] = FakeChannel, *, fails: int = 0) -> None:
        """Makes channels with `make`, after as many failures as `fails` says."""
        super().__init__(make, fails=fails)
