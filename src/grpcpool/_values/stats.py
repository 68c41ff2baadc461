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
        state: `opening`, `ready`, `lost`, `draining` (compares equal to the string). With targets in an order of
            preference, a connection to a target that is on trial, or is kept while another is used, is `draining`.
        address: Where it leads, such as `10.0.0.7:50051`; `None` if that is not known.
        in_flight: Streams in flight on it: one for each call, and as many as it has for each lease; a whole-connection
            lease counts as one.
        limit: The maximum number of streams in flight on it.
        exclusive: Whether a whole-connection lease holds it.
        avoided: Whether it ranks behind others, because calls on it failed of late.
        failures: Calls on it that failed as calls do on a sick server.
        created_at: When it was opened; while `opening`, when that started.
        used_at: When a lease or call on it last ended; `created_at` if none has ended yet.
        calls: Leases and calls that got a place on it so far.
    """

    id: int
    state: SlotState
    address: str | None = None
    in_flight: int
    limit: int
    exclusive: bool
    avoided: bool = False
    failures: int = 0
    created_at: dt.datetime
    used_at: dt.datetime
    calls: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PoolStats:
    """A pool at one moment: gauges first, then counters since the start.

    Attributes:
        size: Connections open or opening, draining and overflow included.
        ready: Connections in service.
        lost: Connections in service that are down.
        avoided: Ready connections that rank behind others, because calls on them failed of late.
        opening: Connections being opened.
        draining: Connections that take no new calls and close when their last call ends; also those to a target that
            is on trial, or is kept while another is used.
        idle: Ready connections with nothing in flight.
        in_flight: Streams in flight: one for each call, and as many as it has for each lease; a whole-connection lease
            counts as one.
        waiting: Acquires and calls that wait for a place.
        min_size: The current lower bound (see `resize`).
        max_size: The current upper bound.
        target_streams: Calls on a connection beyond which the pool opens another; `None` if that is not known.
        acquired: Leases and calls that got a place.
        waited: How many of `acquired` had to wait.
        wait_seconds: Total seconds that `waited` waited.
        timeouts: Acquires and calls that timed out while they waited.
        rejected: Acquires and calls that failed at once because the queue was full.
        refused_streams: Refusals by servers (`REFUSED_STREAM`), at their stream limit or to shed load; a call that is
            sent again may be refused several times.
        failures: Calls that failed as calls do on a sick server: `UNAVAILABLE`, `DEADLINE_EXCEEDED`, `INTERNAL`,
            `UNKNOWN`, `RESOURCE_EXHAUSTED`.
        losses: How often a connection in service went down.
        opened: Connections opened.
        open_failures: Failed attempts to open a connection.
        closed: Connections closed, by reason: `idle`, `age`, `shrink`, `refresh`, `overflow`, `discarded`, `lost`,
            `address_gone`, `unresponsive`, `pool_closed`. Those that were never up do not count.
        target: What the pool connects to; `None` for a pool with a factory of its own.
        channels: All connections.
        taken_at: When the snapshot was taken; an aware `datetime`. It does not count when snapshots are compared.
    """

    size: int
    ready: int
    lost: int = 0
    avoided: int = 0
    opening: int
    draining: int
    idle: int
    in_flight: int
    waiting: int
    min_size: int
    max_size: int
    target_streams: int | None = None
    acquired: int
    waited: int
    wait_seconds: float
    timeouts: int
    rejected: int
    refused_streams: int
    failures: int = 0
    losses: int = 0
    opened: int
    open_failures: int
    closed: Mapping[str, int]
    target: str | None = None
    channels: tuple[ChannelStats, ...]
    taken_at: dt.datetime | None = dataclasses.field(default=None, compare=False)
