"""Describes the events of a pool, in one line each, and chooses their log levels."""

from __future__ import annotations

import logging
from typing import assert_never

from .._values.errors import brief
from .._values.events import (
    AddressesChanged,
    AnyEvent,
    Avoided,
    Closed,
    Draining,
    Granted,
    Leaked,
    LookUpFailed,
    Lost,
    Opened,
    OpenFailed,
    Opening,
    Recovered,
    RefusedStream,
    Rejected,
    Released,
    TimedOut,
)
from .._values.plain_text import plain

_PROBLEMS = (OpenFailed, Lost, Avoided, LookUpFailed, Leaked, TimedOut, Rejected, RefusedStream)
_PER_CALL = (Granted, Released)


def level_of(event: AnyEvent) -> int:
    """Returns the log level: INFO for the lifecycle of connections, WARNING for problems, DEBUG for normal calls."""
    if isinstance(event, _PROBLEMS):
        return logging.WARNING
    return logging.DEBUG if isinstance(event, _PER_CALL) else logging.INFO


def describe(event: AnyEvent) -> str:
    """Returns the event as one line, without credentials, metadata or payload; below it the stack of a leaked lease.

    What a server sent is escaped.
    """
    line = plain(f"pool {event.pool!r}: {_text_of(event)}")
    return f"{line}; it was acquired here:\n{event.stack}" if isinstance(event, Leaked) else line


def _text_of(event: AnyEvent) -> str:  # noqa: C901, PLR0911, PLR0912 -- one line for each event
    match event:
        case Opening():
            predecessor = f" to replace channel {event.replaces}" if event.replaces is not None else ""
            return f"opening channel {event.channel}{predecessor}"
        case Opened():
            return f"channel {event.channel} opened in {event.seconds:.3f} s"
        case OpenFailed():
            return (
                f"channel {event.channel} failed to open: {brief(event.error)}; "
                f"next attempt in {event.retry_in:.3f} s at the earliest"
            )
        case Lost():
            cause = f": {brief(event.cause)}" if event.cause is not None else ""
            return f"channel {event.channel} is down{cause}"
        case Recovered():
            return f"channel {event.channel} is up again after {event.seconds:.3f} s"
        case Avoided():
            what = "the server refused a stream" if event.code is None else f"a call failed with {event.code.name}"
            return f"{what} on channel {event.channel}, which ranks behind others for now"
        case Draining():
            return f"channel {event.channel} draining ({event.reason}), {event.in_flight} in flight"
        case Closed():
            cancelled = f", cancelled {event.cancelled} in flight" if event.cancelled else ""
            return f"channel {event.channel} closed ({event.reason}){cancelled}"
        case AddressesChanged():
            changes = [
                f"{what} {', '.join(some)}" for what, some in (("new:", event.new), ("gone:", event.gone)) if some
            ]
            return f"the target has {_number_of(event.addresses)}; {'; '.join(changes)}"
        case LookUpFailed():
            return f"the target's addresses could not be looked up: {brief(event.error)}"
        case Granted():
            return f"granted a place on channel {event.channel} after {event.waited:.3f} s"
        case TimedOut():
            if not round(event.waited, 3):
                return "timed out at once: no place was free"
            return f"timed out after waiting {event.waited:.3f} s for a place"
        case Rejected():
            return f"rejected: queue full ({event.waiting} waiting)"
        case RefusedStream():
            return f"the server refused a stream on channel {event.channel}; its limit is now {event.limit}"
        case Released():
            return f"released a lease of channel {event.channel} after {event.held:.3f} s"
        case Leaked():
            return f"a lease of channel {event.channel} has been held for {event.held:.1f} s"
        case _:
            assert_never(event)


def _number_of(addresses: tuple[str, ...]) -> str:
    return "1 address" if len(addresses) == 1 else f"{len(addresses)} addresses"
