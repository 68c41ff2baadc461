"""Snapshots of a pool, each of one consistent moment."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from typing import Any, NoReturn, Self

from .slot_states import SlotState


class Counts(dict[str, int]):
    """An immutable mapping of names to numbers; a `dict`, so that tools that copy or print snapshots support it."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a snapshot cannot be changed")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _refuse

    def __reduce__(self) -> tuple[type[Self], tuple[dict[str, Any]]]:
        """Copies and pickles it by creating it again."""
        return type(self), (dict(self),)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ChannelStats:
    """One connection of a pool.

    Attributes:
        id: The connection's number in the pool, never reused.
        state: `opening`, `ready`, `lost`, `draining` (compares equal to the string).
        in_flight: Leases and calls on it; a whole-connection lease counts as one.
        limit: The maximum number of leases and calls on it.
        exclusive: Whether a whole-connection lease holds it.
        created_at: When it was opened; while `opening`, when that started.
        used_at: When a lease or call on it last ended; `created_at` if none has ended yet.
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
    """A pool at one moment: gauges first, then counters since the start.

    Attributes:
        size: Connections open or opening, draining and overflow included.
        ready: Connections in service.
        opening: Connections being opened.
        draining: Connections that take no new calls and close when their last call ends.
        idle: Ready connections with nothing in flight.
        in_flight: Leases and calls; a whole-connection lease counts as one.
        waiting: Acquires and calls that wait for a place.
        min_size: The current lower bound (see `resize`).
        max_size: The current upper bound.
        acquired: Leases and calls that got a place.
        waited: How many of `acquired` had to wait.
        wait_seconds: Total seconds that `waited` waited.
        timeouts: Acquires and calls that timed out while they waited.
        rejected: Acquires and calls that failed at once because the queue was full.
        refused_streams: Calls that a server refused at its stream limit (`REFUSED_STREAM`).
        opened: Connections opened.
        open_failures: Failed attempts to open a connection.
        closed: Connections closed, by reason: `idle`, `age`, `shrink`, `refresh`, `overflow`, `discarded`, `lost`,
            `pool_closed`.
        channels: All connections.
        taken_at: When the snapshot was taken; an aware `datetime`. It does not count when snapshots are compared.
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
