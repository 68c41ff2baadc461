"""The asyncio twins of the fakes, with the same names: a `FakeChannel` is a complete `grpc.aio.Channel`.

::

    async def get(request):
        return b"an order"

    factory = aio.FakeFactory(lambda: aio.FakeChannel({"/shop.Orders/Get": get}))

Handlers are functions, coroutine functions or asynchronous generators. A handler for a stream of requests gets an
iterator for ``async for``; a plain function is called after all requests have arrived, and can use ``for``. A handler
waits while a few of its responses are unread. If it raises an error with a status code, such as that of `error`, the
call ends with this code, its details and its trailing metadata. A server would not use them; other errors are
`UNKNOWN`, as on a server. Deadlines use the clock of the loop.

A channel can be created anywhere. It belongs to the running loop, or without one to the loop of its first use, and must
be used only on that loop's thread, also by the test.
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
from ._shared import (
    DEFAULT_HANDLERS,
    Codec,
    FakeConnection,
    FakeFactoryOf,
    Handler,
    HandlerError,
    checked_code,
    codec,
    response_codec,
)

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
    # In some versions of gRPC these classes take no type parameters at run time.
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


def error(
    code: grpc.StatusCode, details: str = "", trailing_metadata: Iterable[tuple[str, str | bytes]] = ()
) -> AioRpcError:
    """Returns an error for a handler to raise."""
    trailing = Metadata(*trailing_metadata)
    text = Status(checked_code(code), details).debug_error_string()
    return AioRpcError(code, Metadata(), trailing, details, text)


class _Method:
    """What the four kinds of multicallable share: starts calls of one method on one channel."""

    def __init__(self, channel: FakeChannel, method: str, serialize: Codec, deserialize: Codec) -> None:
        self.channel = channel
        self.method = method
        self.serialize = _logging_errors(codec(serialize), b"")
        self._deserialize = _logging_errors(response_codec(deserialize), None)

    def begin(self, make: Callable[[], C], request: Callable[[C], Any]) -> C:
        call = self.channel.admit(make)
        call.method, call.request = self.method, request(call)
        if not self.channel.holds_calls:
            handler = self.channel.handlers.get(self.method, _DEFAULT_HANDLERS[call.streams])
            call.handle(self._respond(call, handler, call.request))
        return call

    async def _respond(self, call: FakeCall, handler: Handler, argument: Any) -> None:
        takes_stream, returns_stream = call.streams
        try:
            if takes_stream and not _is_asynchronous(handler):
                await argument.complete.wait()
            response = handler(argument)
            if inspect.isawaitable(response):
                response = await response
            if returns_stream:
                await self._send_each(call, response)
            else:
                call.send(self._deserialize(response))
        except Exception as raised:  # noqa: BLE001 -- as a server does
            call._conclude(Status.of(raised))
        except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit):
            call.fail(grpc.StatusCode.CANCELLED, "The handler was cancelled")
            raise
        except BaseException as raised:
            # The reader gets what a test raises, as `pytest.fail` does; if there is none any more, the task does.
            if not call._end(Status(grpc.StatusCode.UNKNOWN, "The handler was interrupted", raised=raised)):
                raise
        else:
            call.finish()

    async def _send_each(self, call: FakeCall, responses: AsyncIterable[Any] | Iterable[Any]) -> None:
        if not isinstance(responses, AsyncIterable):
            for response in responses:
                await self._send(call, response)
            return
        try:
            async for response in responses:
                await self._send(call, response)
        finally:
            if inspect.isasyncgen(responses):
                await responses.aclose()

    async def _send(self, call: FakeCall, response: Any) -> None:
        call.send(self._deserialize(response))
        await call._has_room()


async def _echo_each(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        yield request


_DEFAULT_HANDLERS: dict[tuple[bool, bool], Handler] = {**DEFAULT_HANDLERS, (True, True): _echo_each}


def _is_asynchronous(handler: Handler) -> bool:
    functions = (handler, getattr(handler, "__call__", None))  # noqa: B004 -- to inspect the method, not to call it
    return any(inspect.iscoroutinefunction(it) or inspect.isasyncgenfunction(it) for it in functions)


def _logging_errors(convert: Callable[[Any], Any], instead: Any) -> Callable[[Any], Any]:
    # As in grpc.aio: an exception is logged, and the call continues with `instead`.
    def converted(message: Any) -> Any:
        try:
            return convert(message)
        except HandlerError:
            # The mistake of the test, not of a codec.
            raise
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
    """A channel whose connectivity and responses the test controls."""

    def __init__(
        self,
        handlers: Mapping[str, Handler] | None = None,
        *,
        connects: bool = True,
        holds_calls: bool = False,
    ) -> None:
        """Creates a channel in state `IDLE`.

        Args:
            handlers: Handlers by full method name; other methods answer with the request.
            connects: Whether it becomes `READY` when asked to connect; otherwise it is `CONNECTING` until `set_state`.
            holds_calls: Whether calls run until the test ends them; `calls` contains them.
        """
        super().__init__(handlers, connects=connects, holds_calls=holds_calls)
        self.calls: list[FakeCall] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            # It will belong to the loop of its first use.
            self._loop = None

    # --- calls and loop -----------------------------------------------------------------------------------------

    def admit(self, make: Callable[[], C]) -> C:
        """Starts a call.

        Raises:
            UsageError: The channel is closed; with gRPC's message.
            RuntimeError: The channel belongs to another loop.
        """
        self._check()
        call = make()
        self.calls.append(call)
        return call

    def _check(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise RuntimeError("the fake channel belongs to another event loop")
        if self.closed:
            raise UsageError("Channel is closed.")
        return loop

    # --- grpc.aio.Channel ---------------------------------------------------------------------------------------

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Returns the state; then connects if requested."""
        state = self._state
        if try_to_connect:
            self._connect()
        return state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Waits until the state has changed; `close` changes it, too."""
        changed = self._check().create_future()
        if self._state is not last_observed_state:
            return

        def notify(state: grpc.ChannelConnectivity) -> None:
            if state is not last_observed_state and not changed.done():
                changed.set_result(None)

        self._subscribers.append(notify)
        try:
            await changed
        finally:
            self._subscribers.remove(notify)

    async def channel_ready(self) -> None:
        """Connects, and waits until the state is `READY`."""
        while (state := self.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
            await self.wait_for_state_change(state)

    async def close(self, grace: float | None = None) -> None:
        """Closes the channel; cancels calls that run for longer than `grace` seconds. `closed` counts how often."""
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
        """Closes the channel."""
        await self.close()

    def unary_unary(
        self,
        method: str,
        request_serializer: Codec = None,
        response_deserializer: Codec = None,
        _registered_method: bool | None = False,
    ) -> FakeUnaryUnary:
        """Same as `grpc.aio.Channel.unary_unary`."""
        return FakeUnaryUnary(_Method(self, method, request_serializer, response_deserializer))

    def unary_stream(
        self,
        method: str,
        request_serializer: Codec = None,
        response_deserializer: Codec = None,
        _registered_method: bool | None = False,
    ) -> FakeUnaryStream:
        """Same as `grpc.aio.Channel.unary_stream`."""
        return FakeUnaryStream(_Method(self, method, request_serializer, response_deserializer))

    def stream_unary(
        self,
        method: str,
        request_serializer: Codec = None,
        response_deserializer: Codec = None,
        _registered_method: bool | None = False,
    ) -> FakeStreamUnary:
        """Same as `grpc.aio.Channel.stream_unary`."""
        return FakeStreamUnary(_Method(self, method, request_serializer, response_deserializer))

    def stream_stream(
        self,
        method: str,
        request_serializer: Codec = None,
        response_deserializer: Codec = None,
        _registered_method: bool | None = False,
    ) -> FakeStreamStream:
        """Same as `grpc.aio.Channel.stream_stream`."""
        return FakeStreamStream(_Method(self, method, request_serializer, response_deserializer))


class FakeFactory(FakeFactoryOf[FakeChannel]):
    """Creates fake channels, and keeps them in `made`."""

    def __init__(self, make: Callable[[], FakeChannel] = FakeChannel, *, fails: int = 0) -> None:
        """Creates channels with `make`, after the first `fails` calls have failed."""
        super().__init__(make, fails=fails)
