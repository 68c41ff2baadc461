"""What ``pools`` answers: the keys, which stay as they are, and how they are made of a pool.

Moments are seconds since 1970, durations are seconds. A key may be added; none is renamed, removed or given another
meaning without a new `VERSION`.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import TypedDict

from ..._values.config import PoolConfig
from ..._values.stats import ChannelStats, PoolStats
from ._book import Book, Detail, Noted, Sample

VERSION = 1


class ChannelDocument(TypedDict):
    """One connection: as `ChannelStats`, and `reason`: why it takes no new calls, while it is draining."""

    id: int
    state: str
    reason: str | None
    in_flight: int
    limit: int
    exclusive: bool
    created_at: float
    used_at: float
    calls: int


class StatsDocument(TypedDict):
    """A pool at this moment: as `PoolStats`, all of one consistent moment."""

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
    closed: dict[str, int]
    channels: list[ChannelDocument]


class TimelineDocument(TypedDict):
    """The last minutes, oldest first: as many items under each key. But for `at` they are those of `PoolStats`."""

    at: list[float]
    in_flight: list[int]
    size: list[int]
    waiting: list[int]
    acquired: list[int]


class EventDocument(TypedDict):
    """Something that happened in a pool.

    Attributes:
        id: Its number, in the order in which they began.
        kind: The name of the `Listener`'s hook: `opened`, `open_failed`, `draining`, `closed`, `timed_out`,
            `rejected`, `refused_stream`, `leaked`.
        channel: The connection; `null` if it is not about one.
        at: When.
        last_at: When the last of `count` was.
        count: How many of that kind, in short order, this stands for; `channel` and `details` are those of the last.
        details: The event's own fields: `seconds` and `replaces`; `error` and `retry_in`; `reason` and `in_flight`;
            `reason` and `cancelled`; `waited`; `waiting`; `limit`; `held`.
    """

    id: int
    kind: str
    channel: int | None
    at: float
    last_at: float
    count: int
    details: Mapping[str, Detail]


class PoolDocument(TypedDict):
    """One pool.

    Attributes:
        id: Its number in this process: names may be equal.
        name: Its name.
        kind: `threads` or `asyncio`.
        state: `open`, `closed`, or `void` (an asyncio pool in a forked child).
        config: The fields of `PoolConfig`; `target_streams` is what `None` stands for, `prime` whether there is one.
        stats: The figures; `null` if the pool is void.
        timeline: The last minutes.
        events: The latest events, oldest first.
    """

    id: int
    name: str
    kind: str
    state: str
    config: dict[str, object]
    stats: StatsDocument | None
    timeline: TimelineDocument
    events: list[EventDocument]


class ProcessDocument(TypedDict):
    """Whose pools these are."""

    pid: int
    host: str


class PoolsDocument(TypedDict):
    """All pools that an inspector watches in this process.

    Attributes:
        version: Of this description.
        process: Whose pools these are.
        now: The moment.
        every: Seconds between two samples of the timeline.
        keep: Seconds that the timeline reaches back.
        pools: In the order in which they were given to the inspector.
    """

    version: int
    process: ProcessDocument
    now: float
    every: float
    keep: float
    pools: list[PoolDocument]


def document_of_process(every: float, keep: float, pools: list[PoolDocument]) -> PoolsDocument:
    """Says whose pools these are, and when."""
    return {
        "version": VERSION,
        "process": {"pid": os.getpid(), "host": socket.gethostname()},
        "now": time.time(),
        "every": every,
        "keep": keep,
        "pools": pools,
    }


def document_of_config(config: PoolConfig) -> dict[str, object]:
    """The settings, as JSON has them."""
    settings: dict[str, object] = {name: getattr(config, name) for name in PoolConfig.__dataclass_fields__}
    settings["target_streams"] = config.resolved_target_streams
    settings["mode"] = config.mode.value
    settings["prime"] = config.prime is not None
    return settings


def document_of_stats(stats: PoolStats, book: Book) -> StatsDocument:
    """The figures, as JSON has them."""
    return {
        "size": stats.size,
        "ready": stats.ready,
        "opening": stats.opening,
        "draining": stats.draining,
        "idle": stats.idle,
        "in_flight": stats.in_flight,
        "waiting": stats.waiting,
        "min_size": stats.min_size,
        "max_size": stats.max_size,
        "acquired": stats.acquired,
        "waited": stats.waited,
        "wait_seconds": stats.wait_seconds,
        "timeouts": stats.timeouts,
        "rejected": stats.rejected,
        "refused_streams": stats.refused_streams,
        "opened": stats.opened,
        "open_failures": stats.open_failures,
        "closed": {str(reason): number for reason, number in stats.closed.items()},
        "channels": [_document_of_channel(channel, book) for channel in stats.channels],
    }


def _document_of_channel(channel: ChannelStats, book: Book) -> ChannelDocument:
    return {
        "id": channel.id,
        "state": str(channel.state),
        "reason": book.reason(channel.id) if channel.state == "draining" else None,
        "in_flight": channel.in_flight,
        "limit": channel.limit,
        "exclusive": channel.exclusive,
        "created_at": channel.created_at.timestamp(),
        "used_at": channel.used_at.timestamp(),
        "calls": channel.calls,
    }


def document_of_samples(samples: Sequence[Sample]) -> TimelineDocument:
    """The samples, a list for each figure: a tenth of the size that an object for each would have."""
    return {
        "at": [round(sample.at, 2) for sample in samples],
        "in_flight": [sample.in_flight for sample in samples],
        "size": [sample.size for sample in samples],
        "waiting": [sample.waiting for sample in samples],
        "acquired": [sample.acquired for sample in samples],
    }


def document_of_event(noted: Noted) -> EventDocument:
    """An event, as JSON has it."""
    return {
        "id": noted.id,
        "kind": noted.kind,
        "channel": noted.channel,
        "at": noted.at,
        "last_at": noted.last_at,
        "count": noted.count,
        "details": noted.details,
    }
