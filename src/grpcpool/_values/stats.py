"""What a pool says of itself: snapshots, each of one consistent moment."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Any, NoReturn, Self

from .slot_states import SlotState


class Counts(dict[str, int]):
    """Numbers by name that nobody can change. A `dict`, for what copies or prints a snapshot knows those."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a snapshot cannot be changed")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _refuse

    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, Any]]]:
        """Is copied and pickled by being made anew."""
        return type(self), (dict(self),)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStats:
    """One connection of a pool.

    Attributes:
        id: Its number in the pool, never used twice.
        state: `opening`, `ready`, `lost`, `draining` (compares equal to the string).
        in_flight: Leases and calls on it; a whole-connection lease counts as one.
        limit: How many it may carry.
        exclusive: Whether a whole-connection lease holds it.
        created_at: When it was opened (while `opening`: when that began).
        used_at: When something on it last ended; `created_at` if nothing has yet.
        calls: Leases and calls that got a place on it so far.
    """

    id: int
    state: SlotState
    in_flight: int
    limit: int
    exclusive: bool
    created_at: dt.datetime
    used_at: dt.datetime
    calls: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PoolStats:
    """A pool at one moment. Gauges first, then counters since the start.

    Attributes:
        size: Connections open or opening, draining and overflow included.
        ready: Connections in service.
        opening: Connections being made.
        draining: Connections that take no new calls and close when their last ends.
        idle: Ready connections with nothing in flight.
        in_flight: Leases and calls; a whole-connection lease counts as one.
        waiting: Acquires and calls that wait for a place.
        min_size: The lower bound as it is now (see `resize`).
        max_size: The upper bound as it is now.
        acquired: Leases and calls that got a place.
        waited: Those of them that had to wait.
        wait_seconds: Seconds that those waited, in sum.
        timeouts: Acquires and calls that waited in vain.
        rejected: Acquires and calls refused at once, because too many waited already.
        refused_streams: Calls that a server refused for its own limit (`REFUSED_STREAM`).
        opened: Connections made.
        open_failures: Attempts to make one that failed.
        closed: Connections closed, by reason: `idle`, `age`, `shrink`, `refresh`, `overflow`, `discarded`, `lost`,
            `pool_closed`.
        channels: Every connection.
        taken_at: The moment; an aware `datetime`. Snapshots with the same figures are equal whenever they were taken.
    """

    size: int
    ready: int
    opening: int
    draining: int
    idle: int
    in_flight: int
    waiting: int
    min_size: int
    max_size: int
    acquired: int
    waited: int
    wait_seconds: float
    timeouts: int
    rejected: int
    refused_streams: int
    opened: int
    open_failures: int
    closed: Mapping[str, int]
    channels: tuple[ChannelStats, ...]
    taken_at: dt.datetime | None = dataclasses.field(default=None, compare=False)
