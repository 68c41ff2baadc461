"""What the sync and asyncio fakes share: default handlers, the connectivity state, and the factory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

import grpc

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


def codec(given: Codec) -> Callable[[Any], Any]:
    """Returns the function that converts a message."""
    return given or (lambda message: message)


class FakeConnection:
    """The part of a fake channel that tests control, in both worlds."""

    def __init__(self, handlers: Mapping[str, Handler] | None, *, connects: bool, holds_calls: bool) -> None:
        """Starts in state `IDLE`."""
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
        with self._lock:
            if self._state is grpc.ChannelConnectivity.SHUTDOWN:
                return
            self._state = state
            subscribers = list(self._subscribers)
        for subscriber in subscribers:
            subscriber(state)

    def _connect(self) -> None:
        if self._state is grpc.ChannelConnectivity.IDLE:
            self.set_state(grpc.ChannelConnectivity.CONNECTING)
            if self._connects:
                self.set_state(grpc.ChannelConnectivity.READY)


class _Closable(Protocol):
    @property
    def closed(self) -> int: ...


C = TypeVar("C", bound=_Closable)


class FakeFactoryOf(Generic[C]):
    """Creates channels, and keeps them in `made`."""

    def __init__(self, make: Callable[[], C], *, fails: int) -> None:
        """Creates channels with `make`, after the first `fails` calls have failed."""
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
