"""The sync fakes: a channel with its multicallables, and a factory."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

import grpc

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
from ._sync_call import OK, ClientError, FakeCall, Requests, Status

if TYPE_CHECKING:
    # gRPC's classes take no type parameters at run time; the messages are of the user's types.
    _UnaryUnary = grpc.UnaryUnaryMultiCallable[Any, Any]
    _UnaryStream = grpc.UnaryStreamMultiCallable[Any, Any]
    _StreamUnary = grpc.StreamUnaryMultiCallable[Any, Any]
    _StreamStream = grpc.StreamStreamMultiCallable[Any, Any]
else:
    _UnaryUnary = grpc.UnaryUnaryMultiCallable
    _UnaryStream = grpc.UnaryStreamMultiCallable
    _StreamUnary = grpc.StreamUnaryMultiCallable
    _StreamStream = grpc.StreamStreamMultiCallable

_log = logging.getLogger("grpcpool.testing")


class _Method:
    """What the four kinds of multicallable share: starts calls of one method on one channel."""

    def __init__(self, channel: FakeChannel, method: str, serialize: Codec, deserialize: Codec) -> None:
        self.channel = channel
        self.method = method
        self._serialize = codec(serialize)
        self._deserialize = response_codec(deserialize)

    def begin(self, request: Any, timeout: float | None, *, streams_in: bool, streams_out: bool) -> FakeCall:
        call = self._begin(request, timeout, streams_in, streams_out)
        call._watch_deadline()
        return call._of_caller() if streams_out and not self.channel.holds_calls else call

    def block(self, request: Any, timeout: float | None, *, streams_in: bool) -> FakeCall:
        call = self._begin(request, timeout, streams_in, False)
        try:
            call.exception(call.time_remaining())
        except grpc.FutureTimeoutError:
            call._expire()
        except grpc.FutureCancelledError:
            pass
        if call.code() is not grpc.StatusCode.OK:
            raise call
        return call

    def _begin(self, request: Any, timeout: float | None, streams_in: bool, streams_out: bool) -> FakeCall:
        try:
            sent = None if streams_in else self._serialize(request)
        except Exception as error:
            call = FakeCall()
            call.fail(grpc.StatusCode.INTERNAL, "Exception serializing request!")
            raise call from error
        call = self.channel.admit()
        if streams_in:
            sent = Requests(call, request, self._serialize)
        call.method, call.request = self.method, sent
        call._begin(timeout, streams_out)
        if self.channel.holds_calls or not call.is_active():
            return call
        handler = self.channel.handlers.get(self.method, DEFAULT_HANDLERS[streams_in, streams_out])
        if streams_out:
            # The caller may have to read a response before there are more requests or responses.
            call._run(lambda: self._respond(call, handler, sent))
        else:
            self._respond(call, handler, sent)
        return call

    def _respond(self, call: FakeCall, handler: Handler, sent: Any) -> None:
        try:
            for response in handler(sent) if call._streams else (handler(sent),):
                call._deliver(self._deserialized(response))
        except Exception as error:  # noqa: BLE001 -- as a server does
            call._conclude(Status.of(error))
        else:
            call._conclude(OK)

    def _deserialized(self, response: Any) -> Any:
        try:
            return self._deserialize(response)
        except HandlerError:
            raise
        except Exception as error:
            _log.exception("Exception deserializing response!")
            raise ClientError(grpc.StatusCode.INTERNAL, "Exception deserializing response!") from error


class FakeUnaryUnary(_UnaryUnary):
    """Unary request, unary response."""

    def __init__(self, method: _Method) -> None:
        """Calls `method`."""
        self._method = method

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._method.block(request, timeout, streams_in=False).result()

    def with_call(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        call = self._method.block(request, timeout, streams_in=False)
        return call.result(), call

    def future(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._method.begin(request, timeout, streams_in=False, streams_out=False)


class FakeUnaryStream(_UnaryStream):
    """Unary request, stream of responses."""

    def __init__(self, method: _Method) -> None:
        """Calls `method`."""
        self._method = method

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._method.begin(request, timeout, streams_in=False, streams_out=True)


class FakeStreamUnary(_StreamUnary):
    """Stream of requests, unary response."""

    def __init__(self, method: _Method) -> None:
        """Calls `method`."""
        self._method = method

    def __call__(
        self,
        request_iterator: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._method.block(request_iterator, timeout, streams_in=True).result()

    def with_call(
        self,
        request_iterator: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        call = self._method.block(request_iterator, timeout, streams_in=True)
        return call.result(), call

    def future(
        self,
        request_iterator: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._method.begin(request_iterator, timeout, streams_in=True, streams_out=False)


class FakeStreamStream(_StreamStream):
    """Stream of requests, stream of responses."""

    def __init__(self, method: _Method) -> None:
        """Calls `method`."""
        self._method = method

    def __call__(
        self,
        request_iterator: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._method.begin(request_iterator, timeout, streams_in=True, streams_out=True)


class FakeChannel(FakeConnection, grpc.Channel):
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

    def admit(self) -> FakeCall:
        """Starts a call.

        Raises:
            ValueError: The channel is closed; with gRPC's message.
        """
        with self._lock:
            if self.closed:
                raise ValueError("Cannot invoke RPC on closed channel!")
            call = FakeCall()
            self.calls.append(call)
            return call

    def subscribe(
        self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool | None = False
    ) -> None:
        """Calls `callback` with the state now, and at each change."""
        with self._lock:
            self._subscribers.append(callback)
        self._notify(callback)
        if try_to_connect:
            self._connect()

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """Ends the subscription."""
        with self._lock, contextlib.suppress(ValueError):
            self._subscribers.remove(callback)

    def unary_unary(
        self,
        method: str,
        request_serializer: Codec = None,
        response_deserializer: Codec = None,
        _registered_method: bool | None = False,
    ) -> FakeUnaryUnary:
        """Same as `grpc.Channel.unary_unary`."""
        return FakeUnaryUnary(_Method(self, method, request_serializer, response_deserializer))

    def unary_stream(
        self,
        method: str,
        request_serializer: Codec = None,
        response_deserializer: Codec = None,
        _registered_method: bool | None = False,
    ) -> FakeUnaryStream:
        """Same as `grpc.Channel.unary_stream`."""
        return FakeUnaryStream(_Method(self, method, request_serializer, response_deserializer))

    def stream_unary(
        self,
        method: str,
        request_serializer: Codec = None,
        response_deserializer: Codec = None,
        _registered_method: bool | None = False,
    ) -> FakeStreamUnary:
        """Same as `grpc.Channel.stream_unary`."""
        return FakeStreamUnary(_Method(self, method, request_serializer, response_deserializer))

    def stream_stream(
        self,
        method: str,
        request_serializer: Codec = None,
        response_deserializer: Codec = None,
        _registered_method: bool | None = False,
    ) -> FakeStreamStream:
        """Same as `grpc.Channel.stream_stream`."""
        return FakeStreamStream(_Method(self, method, request_serializer, response_deserializer))

    def close(self) -> None:
        """Closes the channel and cancels its calls. `closed` counts how often."""
        with self._lock:
            self.closed += 1
            self._state = grpc.ChannelConnectivity.SHUTDOWN
            self._subscribers.clear()
            calls = list(self.calls)
        for call in calls:
            call.fail(grpc.StatusCode.CANCELLED, "Channel closed!")

    def __enter__(self) -> Self:
        """Returns the channel."""
        return self

    def __exit__(self, *raised: object) -> None:
        """Closes the channel."""
        self.close()


def error(
    code: grpc.StatusCode, details: str = "", trailing_metadata: Iterable[tuple[str, str | bytes]] = ()
) -> FakeCall:
    """Returns an error for a handler to raise."""
    call = FakeCall()
    call._conclude(Status(checked_code(code), details, tuple(trailing_metadata)))
    return call


class FakeFactory(FakeFactoryOf[FakeChannel]):
    """Creates fake channels, and keeps them in `made`."""

    def __init__(self, make: Callable[[], FakeChannel] = FakeChannel, *, fails: int = 0) -> None:
        """Creates channels with `make`, after the first `fails` calls have failed."""
        super().__init__(make, fails=fails)
