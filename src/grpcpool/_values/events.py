"""The events that a pool emits: one small frozen object for each.

Events are for people and dashboards. They are emitted afterwards, without the pool's lock; events of different threads
may be emitted in either order.
"""

from __future__ import annotations

import dataclasses
import enum

from .slot_states import CloseReason


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
class Lost(ChannelEvent):
    """A connection in service is down.

    Attributes:
        cause: Why, if that is known.
        up: Connections that are up.
    """

    cause: BaseException | None = None
    up: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recovered(ChannelEvent):
    """A connection that was lost is up again.

    Attributes:
        seconds: How long it was down.
    """

    seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Avoided(ChannelEvent):
    """A connection ranks behind others for a while: a call to its server failed as calls do on a sick server.

    The call may have been on another connection: if the pool spreads over several addresses, one failure emits this for
    each connection to that address. Emitted for the first such call; the next of a row, until the connection ranks as
    before, are only counted.

    Attributes:
        code: The status of the call, a `grpc.StatusCode`; `None` if the server refused a stream at light load.
    """

    code: enum.Enum | None


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
    """A waiter got a place. A lease whose connection is found to be down then waits on, and gets another.

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
class AddressesChanged(PoolEvent):
    """A look-up has found other addresses of the target than the one before.

    Attributes:
        addresses: All of them, such as `10.0.0.7:50051`.
        new: Those that were not among them before; all, if this was the first look-up.
        gone: Those that are not among them any more. Connections to them drain.
    """

    addresses: tuple[str, ...]
    new: tuple[str, ...]
    gone: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LookUpFailed(PoolEvent):
    """The target's addresses could not be looked up; those that are known stay.

    Attributes:
        error: Why.
    """

    error: BaseException


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rejected(PoolEvent):
    """An acquire or call failed at once because the queue was full.

    Attributes:
        waiting: The number of waiters.
    """

    waiting: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RefusedStream(ChannelEvent):
    """A server refused a call (`REFUSED_STREAM`), at its stream limit or to shed load.

    Attributes:
        limit: How many streams the connection may carry now.
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
    | Lost
    | Recovered
    | Avoided
    | Closed
    | Draining
    | AddressesChanged
    | LookUpFailed
    | Granted
    | TimedOut
    | Rejected
    | RefusedStream
    | Released
    | Leaked
)
"""Any event."""
