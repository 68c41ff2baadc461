"""The events of a `Listener`: one small frozen object for each."""

from __future__ import annotations

from ._values.events import (
    Avoided,
    ChannelEvent,
    Closed,
    Draining,
    Granted,
    Leaked,
    Lost,
    Opened,
    OpenFailed,
    Opening,
    PoolEvent,
    Recovered,
    RefusedStream,
    Rejected,
    Released,
    TimedOut,
)

__all__ = [
    "Avoided",
    "ChannelEvent",
    "Closed",
    "Draining",
    "Granted",
    "Leaked",
    "Lost",
    "OpenFailed",
    "Opened",
    "Opening",
    "PoolEvent",
    "Recovered",
    "RefusedStream",
    "Rejected",
    "Released",
    "TimedOut",
]
