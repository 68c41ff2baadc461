"""What happens in a pool: one small frozen object for each event."""

from __future__ import annotations

import dataclasses

from .slot_states import CloseReason


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PoolEvent:
    """Something happened in a pool.

    Attributes:
        pool: The pool's name.
    """

    pool: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChannelEvent(PoolEvent):
    """Something happened to one connection.

    Attributes:
        channel: Its number in the pool, as in `ChannelStats.id`.
    """

    channel: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Opening(ChannelEvent):
    """A connection is being made.

    Attributes:
        replaces: The connection whose successor it is to be.
    """

    replaces: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Opened(ChannelEvent):
    """A connection is ready and primed.

    Attributes:
        seconds: How long that took.
    """

    seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OpenFailed(ChannelEvent):
    """A connection could not be made.

    Attributes:
        error: Why.
        retry_in: Seconds before the pool tries again, if there is still need.
    """

    error: BaseException
    retry_in: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Closed(ChannelEvent):
    """A connection left the pool.

    Attributes:
        reason: Why.
        cancelled: Leases and calls that were still on it.
    """

    reason: CloseReason
    cancelled: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Draining(ChannelEvent):
    """A connection takes no new calls and closes when its last ends.

    Attributes:
        reason: Why.
        in_flight: Leases and calls that it waits for.
    """

    reason: CloseReason
    in_flight: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Granted(ChannelEvent):
    """A waiter got its place.

    Attributes:
        waited: Seconds that it waited.
    """

    waited: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TimedOut(PoolEvent):
    """A waiter waited in vain.

    Attributes:
        waited: Seconds that it waited.
    """

    waited: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rejected(PoolEvent):
    """An acquire or call was refused at once.

    Attributes:
        waiting: How many waited already.
    """

    waiting: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RefusedStream(ChannelEvent):
    """A server refused a call for its own limit of streams.

    Attributes:
        limit: What the connection may carry from now on.
    """

    limit: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Released(ChannelEvent):
    """A lease was given back. Told of leases, not of calls, and only if a listener wants to know.

    Attributes:
        held: Seconds that it was held.
    """

    held: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Leaked(ChannelEvent):
    """A lease has been held for longer than `PoolConfig.leak_threshold`.

    Attributes:
        held: Seconds so far.
        stack: The stack that took it, formatted.
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
"""Every event there is."""
