"""What the fakes of both worlds share: how calls are answered by default, a connection's state, and the factory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

import grpc

Handler = Callable[[Any], Any]
"""Given the request (or the iterator of requests), returns the response (or iterable of responses), or raises.

In `grpcpool.testing.aio` it may be a coroutine function or an asynchronous generator, too."""

Codec = Callable[[Any], Any] | None
"""What turns messages into bytes, or bytes into messages; `None` leaves them."""

ANSWERS: dict[tuple[bool, bool], Handler] = {
    (False, False): lambda request: request,
    (False, True): lambda request: [request],
    (True, False): b",".join,
    (True, True): lambda requests: requests,
}
"""How methods answer that have no handler, by whether they take and return streams."""


def codec(given: Codec) -> Callable[[Any], Any]:
    """What a multicallable does with a message."""
    return given or (lambda message: message)


class FakeConnection:
    """What a test may say of a fake channel, whichever kind of channel it is."""

    def __init__(self, handlers: Mapping[str, Handler] | None, *, connects: bool, holds_calls: bool) -> None:
        """Is `IDLE`."""
        self.handlers = dict(handlers or {})
        self.holds_calls = holds_calls
        self.closed = 0
        self._connects = connects
        self._guard = threading.Lock()
        self._state = grpc.ChannelConnectivity.IDLE
        self._subscribers: list[Callable[[grpc.ChannelConnectivity], None]] = []

    @property
    def state(self) -> grpc.ChannelConnectivity:
        """Its state."""
        return self._state

    @property
    def subscribers(self) -> int:
        """How many wait to be told of its state."""
        return len(self._subscribers)

    def set_state(self, state: grpc.ChannelConnectivity) -> None:
        """Changes its state; subscribers are told, on this thread, before this returns."""
        with self._guard:
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
    """Makes channels, and remembers them."""

    def __init__(self, make: Callable[[], C], *, fails: int) -> None:
        """Makes channels with `make`, after as many failures as `fails` says."""
        self._make = make
        self._fails = fails
        self._guard = threading.Lock()
        self.made: list[C] = []
        self.calls = 0

    def __call__(self) -> C:
        """Makes one."""
        with self._guard:
            self.calls += 1
            failing = self.calls <= self._fails
            attempt = self.calls
        if failing:
            raise ConnectionRefusedError(f"attempt {attempt} was to fail")
        channel = self._make()
        with self._guard:
            self.made.append(channel)
        return channel

    @property
    def open(self) -> list[C]:
        """Those that have not been closed."""
        return [channel for channel in self.made if not channel.closed]
