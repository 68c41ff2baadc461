"""What the sync and asyncio fakes share: default handlers, the connectivity state, and the factory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, Protocol, TypeVar

import grpc

from .._grpc.status import code_of, details_of

Handler = Callable[[Any], Any]
"""Takes the request (or the iterator of requests); returns the response (or an iterable of responses), or raises.

In `grpcpool.testing.aio` it may also be a coroutine function or an asynchronous generator."""

Codec = Callable[[Any], Any] | None
"""Converts messages to bytes, or bytes to messages; `None` leaves them unchanged."""

DEFAULT_HANDLERS: dict[tuple[bool, bool], Handler] = {
    (False, False): lambda request: request,
    (False, True): lambda request: [request],
    (True, False): b",".join,
    (True, True): lambda requests: requests,
}
"""The handlers of methods without one of their own, by whether they take and return streams."""


UNREAD_LIMIT = 16
"""A handler waits while so many of its responses are unread, as on a server, whose connection can hold only so much."""


class HandlerError(TypeError):
    """A handler returned what no server can send."""


def codec(given: Codec) -> Callable[[Any], Any]:
    """Returns the function that converts a message."""
    return given or (lambda message: message)


def response_codec(deserialize: Codec) -> Callable[[Any], Any]:
    """Same as `codec`; raises `HandlerError` if a response cannot be converted because it is not bytes."""
    convert = codec(deserialize)

    def converted(response: Any) -> Any:
        try:
            return convert(response)
        except Exception as error:
            if isinstance(response, bytes):
                raise
            text = f"it must return bytes for the stub to deserialize, not {type(response).__name__}"
            raise HandlerError(text) from error

    return converted


def failure_of(raised: Exception, unexpected: str) -> tuple[grpc.StatusCode, str, tuple[Any, ...]]:
    """Returns code, details and trailing metadata of a call whose handler raised this.

    Unlike a server, uses those of an `RpcError` as far as it has any. Other errors are `UNKNOWN` and `unexpected`.
    """
    code = code_of(raised) if isinstance(raised, grpc.RpcError) else None
    if not isinstance(code, grpc.StatusCode) or code is grpc.StatusCode.OK:
        return grpc.StatusCode.UNKNOWN, unexpected, ()
    try:
        trailing: Any = raised.trailing_metadata()  # type: ignore[attr-defined]
        return code, details_of(raised), tuple((key, value) for key, value in trailing or ())
    except Exception:  # noqa: BLE001 -- many errors have no such method
        return code, details_of(raised), ()


def checked_responses(responses: Iterable[Any], *, streams: bool) -> list[Any]:
    """Returns the responses that a test ends a call with, if the call may have as many.

    Raises:
        TypeError: It is one text, which would be as many responses as characters.
        ValueError: There are several, and the call has no stream of responses.
    """
    if isinstance(responses, str | bytes):
        raise TypeError(f"responses must be a list: finish([{responses!r}])")
    found = list(responses)
    if len(found) > 1 and not streams:
        raise ValueError(f"the call has one response, not {len(found)}")
    return found


def checked_code(code: grpc.StatusCode) -> grpc.StatusCode:
    """Returns the code.

    Raises:
        TypeError: It is not a `grpc.StatusCode`.
    """
    if not isinstance(code, grpc.StatusCode):
        raise TypeError(f"code must be a grpc.StatusCode, not {code!r}")
    return code


class FakeConnection:
    """The part of a fake channel that tests control, in both worlds."""

    def __init__(self, handlers: Mapping[str, Handler] | None, *, connects: bool, holds_calls: bool) -> None:
        """Starts in state `IDLE`."""
        for method, handler in (handlers or {}).items():
            if not method.startswith("/"):
                raise ValueError(f"handlers need full method names, such as '/shop.Orders/Get', not {method!r}")
            if not callable(handler):
                raise TypeError(f"the handler of {method} must be a function of the request, not {handler!r}")
        self.handlers = dict(handlers or {})
        self.holds_calls = holds_calls
        self.closed = 0
        self._connects = connects
        self._lock = threading.Lock()
        self._state = grpc.ChannelConnectivity.IDLE
        self._subscribers: list[Callable[[grpc.ChannelConnectivity], None]] = []

    @property
    def state(self) -> grpc.ChannelConnectivity:
        """The connectivity state."""
        return self._state

    @property
    def subscribers(self) -> int:
        """The number of subscribers to the state."""
        return len(self._subscribers)

    def set_state(self, state: grpc.ChannelConnectivity) -> None:
        """Changes the state; calls the subscribers on this thread before it returns."""
        self._change(state)

    def _change(self, state: grpc.ChannelConnectivity, before: grpc.ChannelConnectivity | None = None) -> bool:
        """Changes the state, if it is `before`; returns whether it did."""
        with self._lock:
            if self._state is grpc.ChannelConnectivity.SHUTDOWN or before not in (None, self._state):
                return False
            self._state = state
            subscribers = list(self._subscribers)
        for subscriber in subscribers:
            self._notify(subscriber)
        return True

    def _notify(self, subscriber: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """Calls it with the state; again if another thread has changed that meanwhile, and may have called first."""
        state = self._state
        subscriber(state)
        while state is not self._state and subscriber in self._subscribers:
            state = self._state
            subscriber(state)

    def _connect(self) -> None:
        connecting = self._change(grpc.ChannelConnectivity.CONNECTING, grpc.ChannelConnectivity.IDLE)
        if connecting and self._connects:
            self._change(grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.CONNECTING)


class _Closable(Protocol):
    @property
    def closed(self) -> int: ...


C = TypeVar("C", bound=_Closable)


class FakeFactoryOf(Generic[C]):
    """Creates channels, and keeps them in `made`."""

    def __init__(self, make: Callable[[], C], *, fails: int) -> None:
        """Creates channels with `make`, after the first `fails` calls have failed."""
        if not callable(make):
            raise TypeError(f"a FakeFactory needs a function such as lambda: FakeChannel(handlers), not {make!r}")
        self._make = make
        self._fails = fails
        self._lock = threading.Lock()
        self.made: list[C] = []
        self.calls = 0

    def __call__(self) -> C:
        """Creates a channel."""
        with self._lock:
            self.calls += 1
            failing = self.calls <= self._fails
            attempt = self.calls
        if failing:
            raise ConnectionRefusedError(f"attempt {attempt} fails as requested")
        channel = self._make()
        with self._lock:
            self.made.append(channel)
        return channel

    @property
    def open(self) -> list[C]:
        """The channels that have not been closed."""
        return [channel for channel in self.made if not channel.closed]
