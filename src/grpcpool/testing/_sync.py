"""The sync fakes: a channel, its calls, and a factory."""

from __future__ import annotations

import contextlib
import threading
import types
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

import grpc

from .._grpc.status import code_of, details_of
from ._shared import DEFAULT_HANDLERS, Codec, FakeConnection, FakeFactoryOf, Handler, codec

if TYPE_CHECKING:
    # gRPC's classes take no type parameters at run time; the messages are of the user's types.
    _UnaryUnary = grpc.UnaryUnaryMultiCallable[Any, Any]
    _UnaryStream = grpc.UnaryStreamMultiCallable[Any, Any]
    _StreamUnary = grpc.StreamUnaryMultiCallable[Any, Any]
    _StreamStream = grpc.StreamStreamMultiCallable[Any, Any]
    _Future = grpc.Future[Any]
else:
    _UnaryUnary = grpc.UnaryUnaryMultiCallable
    _UnaryStream = grpc.UnaryStreamMultiCallable
    _StreamUnary = grpc.StreamUnaryMultiCallable
    _StreamStream = grpc.StreamStreamMultiCallable
    _Future = grpc.Future

_WAIT_LIMIT = 30.0


class FakeCall(grpc.RpcError, grpc.Call, _Future):
    """A call, which is also its own future, its own iterator of responses, and the error that it fails with."""

    def __init__(self) -> None:
        """Starts the call; it runs until `finish` or `fail`."""
        super().__init__()
        self._changed = threading.Condition()
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._responses: list[Any] = []
        self._callbacks: list[Callable[[], None]] = []
        # Gives what gRPC's own calls have there: a pool looks whether the server has sent initial metadata.
        self._state = types.SimpleNamespace(initial_metadata=())

    # --- for tests ----------------------------------------------------------------------------------------------

    def send(self, response: Any) -> None:
        """Delivers one response of a stream; the call continues."""
        with self._changed:
            self._responses.append(response)
            self._changed.notify_all()

    def finish(self, responses: Iterable[Any] = ()) -> None:
        """Ends the call with OK and these responses (one, if the call has one response)."""
        self._end(grpc.StatusCode.OK, "", responses)

    def fail(self, code: grpc.StatusCode, details: str = "") -> None:
        """Ends the call with an error."""
        self._end(code, details, ())

    def _end(self, code: grpc.StatusCode, details: str, responses: Iterable[Any]) -> bool:
        with self._changed:
            if self._code is not None:
                return False
            self._responses.extend(responses)
            self._code, self._details = code, details
            callbacks, self._callbacks = self._callbacks, []
            self._changed.notify_all()
        for callback in callbacks:
            callback()
        return True

    # --- grpc.Call ----------------------------------------------------------------------------------------------

    def is_active(self) -> bool:
        """Whether the call is still running."""
        return self._code is None

    def time_remaining(self) -> Any:
        """Returns `None`: the call has no deadline."""
        return None

    def cancel(self) -> bool:
        """Cancels the call; returns whether it was still running."""
        return self._end(grpc.StatusCode.CANCELLED, "Locally cancelled by application!", ())

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Calls `callback` when the call ends; returns `False` if it has already ended."""
        with self._changed:
            if self._code is not None:
                return False
            self._callbacks.append(callback)
            return True

    def initial_metadata(self) -> Any:
        """Returns no metadata."""
        return ()

    def trailing_metadata(self) -> Any:
        """Returns no metadata."""
        return ()

    def code(self) -> grpc.StatusCode:
        """Waits for the end; returns the status code."""
        self._wait(None)
        return self._code or grpc.StatusCode.UNKNOWN

    def details(self) -> str:
        """Waits for the end; returns the details."""
        self._wait(None)
        return self._details

    # --- grpc.Future --------------------------------------------------------------------------------------------

    def cancelled(self) -> bool:
        """Whether the call was cancelled."""
        return self._code is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        """Whether the call has ended."""
        return self._code is not None

    def running(self) -> bool:
        """Whether the call is still running."""
        return self._code is None

    def result(self, timeout: float | None = None) -> Any:
        """Waits for the end; returns the response, or raises the error."""
        self._wait(timeout)
        if self._code is grpc.StatusCode.OK:
            return self._responses[0]
        if self._code is grpc.StatusCode.CANCELLED:
            raise grpc.FutureCancelledError
        raise self

    def exception(self, timeout: float | None = None) -> Exception | None:
        """Waits for the end; returns the error, or `None`."""
        self._wait(timeout)
        if self._code is grpc.StatusCode.CANCELLED:
            raise grpc.FutureCancelledError
        return None if self._code is grpc.StatusCode.OK else self

    def traceback(self, timeout: float | None = None) -> Any:
        """Waits for the end; returns `None`."""
        self._wait(timeout)

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """Calls `fn` with the call when it ends, or now if it has ended."""
        if not self.add_callback(lambda: fn(self)):
            fn(self)

    # --- the stream of responses --------------------------------------------------------------------------------

    def __iter__(self) -> Self:
        """Returns itself: the call is its own iterator."""
        return self

    def __next__(self) -> Any:
        """Returns the next response; at the end, stops or raises the error."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._responses or self._code is not None, _WAIT_LIMIT):
                raise AssertionError(f"the fake call did not end within {_WAIT_LIMIT} s")
            if self._responses:
                return self._responses.pop(0)
        if self._code is grpc.StatusCode.OK:
            raise StopIteration
        raise self

    def _wait(self, timeout: float | None) -> None:
        with self._changed:
            bound = _WAIT_LIMIT if timeout is None else timeout
            if self._changed.wait_for(lambda: self._code is not None, bound):
                return
        if timeout is None:
            raise AssertionError(f"the fake call did not end within {_WAIT_LIMIT} s")
        raise grpc.FutureTimeoutError

    def __str__(self) -> str:
        """Returns code and details as text."""
        return f"<{type(self).__name__}: {self._code}, {self._details!r}>"


class _Method:
    """What the four kinds of multicallable share: starts calls of one method on one channel."""

    def __init__(self, channel: FakeChannel, method: str, serialize: Codec, deserialize: Codec) -> None:
        self.channel = channel
        self.method = method
        self._serialize = codec(serialize)
        self._deserialize = codec(deserialize)

    def begin(self, request: Any, *, streams_in: bool, streams_out: bool) -> FakeCall:
        if streams_in:
            sent: Any = (self._serialize(message) for message in request)
        else:
            try:
                sent = self._serialize(request)
            except Exception as error:
                call = FakeCall()
                call.fail(grpc.StatusCode.INTERNAL, "Exception serializing request!")
                raise call from error
        call = self.channel.admit()
        if not self.channel.holds_calls:
            handler = self.channel.handlers.get(self.method, DEFAULT_HANDLERS[streams_in, streams_out])
            self._respond(call, handler, sent, streams_out=streams_out)
        return call

    def _respond(self, call: FakeCall, handler: Handler, sent: Any, *, streams_out: bool) -> None:
        try:
            response = handler(sent)
            for message in response if streams_out else (response,):
                call.send(self._deserialize(message))
        except grpc.RpcError as error:
            call.fail(code_of(error) or grpc.StatusCode.UNKNOWN, details_of(error))
        except Exception as error:  # noqa: BLE001 -- as a server does
            call.fail(grpc.StatusCode.UNKNOWN, f"Exception calling application: {error}")
        else:
            call.finish()

    def block(self, request: Any, timeout: float | None, *, streams_in: bool) -> FakeCall:
        call = self.begin(request, streams_in=streams_in, streams_out=False)
        try:
            call.exception(timeout)
        except grpc.FutureTimeoutError:
            call.fail(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        except grpc.FutureCancelledError:
            pass
        if call.code() is not grpc.StatusCode.OK:
            raise call
        return call


class FakeUnaryUnary(_UnaryUnary):
    """Unary request, unary response."""

    def __init__(self, method: _Method) -> None:
        """Calls `method`."""
        self._method = method

    def __call__(self, request: Any, timeout: float | None = None, *how: Any, **more: Any) -> Any:
        return self._method.block(request, timeout, streams_in=False).result()

    def with_call(self, request: Any, timeout: float | None = None, *how: Any, **more: Any) -> Any:
        call = self._method.block(request, timeout, streams_in=False)
        return call.result(), call

    def future(self, request: Any, timeout: float | None = None, *how: Any, **more: Any) -> Any:
        return self._method.begin(request, streams_in=False, streams_out=False)


class FakeUnaryStream(_UnaryStream):
    """Unary request, stream of responses."""

    def __init__(self, method: _Method) -> None:
        """Calls `method`."""
        self._method = method

    def __call__(self, request: Any, timeout: float | None = None, *how: Any, **more: Any) -> Any:
        return self._method.begin(request, streams_in=False, streams_out=True)


class FakeStreamUnary(_StreamUnary):
    """Stream of requests, unary response."""

    def __init__(self, method: _Method) -> None:
        """Calls `method`."""
        self._method = method

    def __call__(self, request_iterator: Any, timeout: float | None = None, *how: Any, **more: Any) -> Any:
        return self._method.block(request_iterator, timeout, streams_in=True).result()

    def with_call(self, request_iterator: Any, timeout: float | None = None, *how: Any, **more: Any) -> Any:
        call = self._method.block(request_iterator, timeout, streams_in=True)
        return call.result(), call

    def future(self, request_iterator: Any, timeout: float | None = None, *how: Any, **more: Any) -> Any:
        return self._method.begin(request_iterator, streams_in=True, streams_out=False)


class FakeStreamStream(_StreamStream):
    """Stream of requests, stream of responses."""

    def __init__(self, method: _Method) -> None:
        """Calls `method`."""
        self._method = method

    def __call__(self, request_iterator: Any, timeout: float | None = None, *how: Any, **more: Any) -> Any:
        return self._method.begin(request_iterator, streams_in=True, streams_out=True)


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
            state = self._state
        callback(state)
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


def error(code: grpc.StatusCode, details: str = "") -> FakeCall:
    """Returns an error for a handler to raise."""
    call = FakeCall()
    call.fail(code, details)
    return call


class FakeFactory(FakeFactoryOf[FakeChannel]):
    """Creates fake channels, and keeps them in `made`."""

    def __init__(self, make: Callable[[], FakeChannel] = FakeChannel, *, fails: int = 0) -> None:
        """Creates channels with `make`, after the first `fails` calls have failed."""
        super().__init__(make, fails=fails)
