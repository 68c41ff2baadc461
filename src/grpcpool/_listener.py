"""The events that a pool emits, one small frozen object for each, and the hooks that receive them.

Events are for people and dashboards. They are emitted afterwards, without the pool's lock; events of different threads
may be emitted in either order.
"""

from __future__ import annotations

import dataclasses

from ._slot import CloseReason


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PoolEvent:
    """An event of a pool.

    Attributes:
        pool: The pool's name.
    """

    pool: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChannelEvent(PoolEvent):
    """An event of one connection.

    Attributes:
        channel: The connection's number in the pool, as in `ChannelStats.id`.
    """

    channel: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Opening(ChannelEvent):
    """A connection is being opened.

    Attributes:
        replaces: The connection that it will replace.
    """

    replaces: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Opened(ChannelEvent):
    """A connection is ready and primed.

    Attributes:
        seconds: How long it took.
    """

    seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OpenFailed(ChannelEvent):
    """A connection failed to open.

    Attributes:
        error: The reason.
        retry_in: Seconds before the pool tries again, if it still needs the connection.
    """

    error: BaseException
    retry_in: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Closed(ChannelEvent):
    """A connection left the pool.

    Attributes:
        reason: The reason.
        cancelled: Leases and calls that were cancelled because they were still on it.
    """

    reason: CloseReason
    cancelled: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Draining(ChannelEvent):
    """A connection takes no new calls and closes when its last call ends.

    Attributes:
        reason: The reason.
        in_flight: Leases and calls that it waits for.
    """

    reason: CloseReason
    in_flight: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Granted(ChannelEvent):
    """A waiter got a place.

    Attributes:
        waited: Seconds that it waited.
    """

    waited: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TimedOut(PoolEvent):
    """A waiter timed out.

    Attributes:
        waited: Seconds that it waited.
    """

    waited: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rejected(PoolEvent):
    """An acquire or call failed at once because the queue was full.

    Attributes:
        waiting: The number of waiters.
    """

    waiting: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RefusedStream(ChannelEvent):
    """A server refused a call at its stream limit.

    Attributes:
        limit: The connection's new limit of leases and calls.
    """

    limit: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Released(ChannelEvent):
    """A lease was released. Emitted for leases, not for calls, and only if a listener has the hook.

    Attributes:
        held: Seconds that it was held.
    """

    held: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Leaked(ChannelEvent):
    """A lease has been held for longer than `PoolConfig.leak_threshold`.

    Attributes:
        held: Seconds so far.
        stack: The stack that acquired it, formatted.
    """

    held: float
    stack: str


AnyEvent = (
    Opening
    | Opened
    | OpenFailed
    | Closed
    | Draining
    | Granted
    | TimedOut
    | Rejected
    | RefusedStream
    | Released
    | Leaked
)
"""Any event."""


class Listener:
    """Hooks that do nothing; override those of interest and pass an instance as `listeners=[...]`.

    Hooks are synchronous and must be quick: they run on the thread on which the event happened, which may be one of
    gRPC's callback threads. Exceptions are logged and not raised further. A listener that refers to its pool keeps the
    pool alive until `close()`, so that it also receives the events of the last connections.
    """

    def opening(self, event: Opening) -> None:
        """A connection is being opened."""

    def opened(self, event: Opened) -> None:
        """A connection is ready and primed."""

    def open_failed(self, event: OpenFailed) -> None:
        """A connection failed to open."""

    def closed(self, event: Closed) -> None:
        """A connection left the pool."""

    def draining(self, event: Draining) -> None:
        """A connection takes no new calls and closes when its last call ends."""

    def granted(self, event: Granted) -> None:
        """A waiter got a place."""

    def timed_out(self, event: TimedOut) -> None:
        """A waiter timed out."""

    def rejected(self, event: Rejected) -> None:
        """An acquire or call failed at once because the queue was full."""

    def refused_stream(self, event: RefusedStream) -> None:
        """A server refused a call at its stream limit."""

    def released(self, event: Released) -> None:
        """A lease was released. The pool measures this only if a listener overrides this hook."""

    def leaked(self, event: Leaked) -> None:
        """A lease has been held for longer than `PoolConfig.leak_threshold`."""


HOOKS: dict[type[PoolEvent], str] = {
    Opening: "opening",
    Opened: "opened",
    OpenFailed: "open_failed",
    Closed: "closed",
    Draining: "draining",
    Granted: "granted",
    TimedOut: "timed_out",
    Rejected: "rejected",
    RefusedStream: "refused_stream",
    Released: "released",
    Leaked: "leaked",
}
"""The hook for each event."""


def hears_releases(listener: Listener) -> bool:
    """Returns whether a listener overrides the hook for `Released`."""
    return type(listener).released is not Listener.released
