"""The events of a `Listener`: one small frozen object for each."""

from __future__ import annotations

from ._values.events import (
    AddressesChanged,
    Avoided,
    ChannelEvent,
    Closed,
    Draining,
    Granted,
    Leaked,
    LookUpFailed,
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
    "AddressesChanged",
    "Avoided",
    "ChannelEvent",
    "Closed",
    "Draining",
    "Granted",
    "Leaked",
    "LookUpFailed",
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
