"""The JSON of ``pools``: its keys, which are stable, and how it is built from a pool.

Moments are seconds since 1970, durations are seconds. Keys may be added; none is renamed, removed or changed in meaning
without a new `VERSION`.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import TypedDict

from ..._values.config import PoolConfig
from ..._values.stats import ChannelStats, PoolStats
from ._history import Detail, PoolHistory, RecordedEvent, Sample
from ._waits import WaitSummary

VERSION = 1


class ChannelDocument(TypedDict):
    """One connection: the fields of `ChannelStats`, and `reason`: why it is draining, or `null`."""

    id: int
    state: str
    reason: str | None
    address: str | None
    in_flight: int
    limit: int
    exclusive: bool
    avoided: bool
    failures: int
    created_at: float
    used_at: float
    calls: int


class StatsDocument(TypedDict):
    """The fields of `PoolStats`, from one consistent snapshot."""

    size: int
    ready: int
    lost: int
    avoided: int
    opening: int
    draining: int
    idle: int
    in_flight: int
    waiting: int
    min_size: int
    max_size: int
    target_streams: int | None
    acquired: int
    waited: int
    wait_seconds: float
    timeouts: int
    rejected: int
    refused_streams: int
    failures: int
    losses: int
    opened: int
    open_failures: int
    closed: dict[str, int]
    target: str | None
    channels: list[ChannelDocument]


class TimelineDocument(TypedDict):
    """The samples of the last minutes, oldest first, as lists of equal length. Keys as in `PoolStats`, and `at`.

    `acquired`, `failures`, `timeouts` and `rejected` are counters: subtract neighbours for the number of an interval.
    """

    at: list[float]
    in_flight: list[int]
    size: list[int]
    waiting: list[int]
    acquired: list[int]
    failures: list[int]
    timeouts: list[int]
    rejected: list[int]


class WaitsDocument(TypedDict):
    """How long the callers waited that had to wait and whose wait ended in the last minutes.

    Attributes:
        count: The number of waits, those that timed out included; those that the caller cancelled are not known.
        timed_out: How many of them timed out.
        seconds: The time that is covered: at most `keep`, less if the inspector was created later.
        p50: Half of the waits took at most this many seconds; at most 5 % too high. `null` if there were none.
        p90: The same for 90 % of the waits.
        p99: The same for 99 % of the waits.
    """

    count: int
    timed_out: int
    seconds: float
    p50: float | None
    p90: float | None
    p99: float | None


class EventDocument(TypedDict):
    """An event of a pool, or several equal ones: in a row, or within some seconds.

    Attributes:
        id: The event's number, in order of the first occurrence.
        kind: The name of the `Listener`'s hook: `opened`, `open_failed`, `lost`, `recovered`, `avoided`, `draining`,
            `closed`, `addresses_changed`, `look_up_failed`, `timed_out`, `rejected`, `refused_stream`, `leaked`.
        channel: The connection; `null` if the event does not concern one.
        address: The connection's address; `null` if it is not known.
        at: When it happened first.
        last_at: When it happened last.
        count: How often it happened; `channel`, `address` and `details` are those of the last occurrence.
        details: The event's own fields: `seconds` and `replaces`; `error` and `retry_in`; `cause` and `up`; `seconds`;
            `code`; `reason` and `in_flight`; `reason` and `cancelled`; the numbers `addresses`, `new` and `gone`;
            `error`; `waited`; `waiting`; `limit`; `held`.
    """

    id: int
    kind: str
    channel: int | None
    address: str | None
    at: float
    last_at: float
    count: int
    details: Mapping[str, Detail]


class PoolDocument(TypedDict):
    """One pool.

    Attributes:
        id: The pool's number in this process; names need not be unique.
        name: The pool's name.
        kind: `threads` or `asyncio`.
        state: `open`, `closed`, or `void` (an asyncio pool in a forked child).
        taken_at: When the snapshot was taken, by the clock of its other dates, which a suspension of the system or a
            change of its calendar does not move. `taken_at - created_at` is a connection's age. `null` if void.
        down: Whether it is open and no connection is up, although some were or could not be opened.
        config: The fields of `PoolConfig`; `target_streams` is never `null`, `prime` is whether there is one.
        stats: The current snapshot; `null` if the pool is void.
        timeline: The samples of the last minutes.
        waits: How long callers waited in the last minutes.
        events: The latest events, oldest first.
    """

    id: int
    name: str
    kind: str
    state: str
    taken_at: float | None
    down: bool
    config: dict[str, object]
    stats: StatsDocument | None
    timeline: TimelineDocument
    waits: WaitsDocument
    events: list[EventDocument]


class ProcessDocument(TypedDict):
    """The process that the pools belong to."""

    pid: int
    host: str


class PoolsDocument(TypedDict):
    """All pools that an inspector shows in this process.

    Attributes:
        version: The version of this format.
        process: The process that the pools belong to.
        now: The current time.
        every: Seconds between two samples of the timeline.
        keep: Seconds that the timeline covers.
        pools: The pools, in the order in which they were added to the inspector.
    """

    version: int
    process: ProcessDocument
    now: float
    every: float
    keep: float
    pools: list[PoolDocument]


def document_of_process(every: float, keep: float, pools: list[PoolDocument]) -> PoolsDocument:
    """Returns the JSON object for all pools of this process."""
    return {
        "version": VERSION,
        "process": {"pid": os.getpid(), "host": socket.gethostname()},
        "now": time.time(),
        "every": every,
        "keep": keep,
        "pools": pools,
    }


def document_of_config(config: PoolConfig) -> dict[str, object]:
    """Returns the settings as a JSON object."""
    settings: dict[str, object] = {name: getattr(config, name) for name in PoolConfig.__dataclass_fields__}
    settings["target_streams"] = config.resolved_target_streams
    settings["mode"] = config.mode.value
    settings["prime"] = config.prime is not None
    return settings


def document_of_stats(stats: PoolStats, history: PoolHistory) -> StatsDocument:
    """Returns a snapshot as a JSON object."""
    return {
        "size": stats.size,
        "ready": stats.ready,
        "lost": stats.lost,
        "avoided": stats.avoided,
        "opening": stats.opening,
        "draining": stats.draining,
        "idle": stats.idle,
        "in_flight": stats.in_flight,
        "waiting": stats.waiting,
        "min_size": stats.min_size,
        "max_size": stats.max_size,
        "target_streams": stats.target_streams,
        "acquired": stats.acquired,
        "waited": stats.waited,
        "wait_seconds": stats.wait_seconds,
        "timeouts": stats.timeouts,
        "rejected": stats.rejected,
        "refused_streams": stats.refused_streams,
        "failures": stats.failures,
        "losses": stats.losses,
        "opened": stats.opened,
        "open_failures": stats.open_failures,
        "closed": {str(reason): number for reason, number in stats.closed.items()},
        "target": stats.target,
        "channels": [_document_of_channel(channel, history) for channel in stats.channels],
    }


def _document_of_channel(channel: ChannelStats, history: PoolHistory) -> ChannelDocument:
    return {
        "id": channel.id,
        "state": str(channel.state),
        "reason": history.reason(channel.id) if channel.state == "draining" else None,
        "address": channel.address,
        "in_flight": channel.in_flight,
        "limit": channel.limit,
        "exclusive": channel.exclusive,
        "avoided": channel.avoided,
        "failures": channel.failures,
        "created_at": channel.created_at.timestamp(),
        "used_at": channel.used_at.timestamp(),
        "calls": channel.calls,
    }


def document_of_samples(samples: Sequence[Sample]) -> TimelineDocument:
    """Returns the samples as one list for each value: a tenth of the size of a list of objects."""
    return {
        "at": [round(sample.at, 2) for sample in samples],
        "in_flight": [sample.in_flight for sample in samples],
        "size": [sample.size for sample in samples],
        "waiting": [sample.waiting for sample in samples],
        "acquired": [sample.acquired for sample in samples],
        "failures": [sample.failures for sample in samples],
        "timeouts": [sample.timeouts for sample in samples],
        "rejected": [sample.rejected for sample in samples],
    }


def document_of_waits(waits: WaitSummary) -> WaitsDocument:
    """Returns the waits as a JSON object; percentiles have three digits, which is what they are good for."""
    p50, p90, p99 = (None if each is None else float(f"{each:.3g}") for each in (waits.p50, waits.p90, waits.p99))
    return {
        "count": waits.count,
        "timed_out": waits.timed_out,
        "seconds": round(waits.seconds, 1),
        "p50": p50,
        "p90": p90,
        "p99": p99,
    }


def document_of_event(event: RecordedEvent) -> EventDocument:
    """Returns an event as a JSON object."""
    return {
        "id": event.id,
        "kind": event.kind,
        "channel": event.channel,
        "address": event.address,
        "at": event.at,
        "last_at": event.last_at,
        "count": event.count,
        "details": event.details,
    }
