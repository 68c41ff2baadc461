"""The events of a `Listener`: one small frozen object for each."""

from __future__ import annotations

from ._values.events import (
    ChannelEvent,
    Closed,
    Draining,
    Granted,
    Leaked,
    Opened,
    OpenFailed,
    Opening,
    PoolEvent,
    RefusedStream,
    Rejected,
    Released,
    TimedOut,
)

__all__ = [
    "ChannelEvent",
    "Closed",
    "Draining",
    "Granted",
    "Leaked",
    "OpenFailed",
    "Opened",
    "Opening",
    "PoolEvent",
    "RefusedStream",
    "Rejected",
    "Released",
    "TimedOut",
]
