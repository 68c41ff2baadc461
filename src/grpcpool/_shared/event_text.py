"""The events of a pool in words: one plain line each."""

from __future__ import annotations

import logging
from typing import assert_never

from .._values.errors import brief
from .._values.events import (
    AnyEvent,
    Closed,
    Draining,
    Granted,
    Leaked,
    Opened,
    OpenFailed,
    Opening,
    RefusedStream,
    Rejected,
    Released,
    TimedOut,
)

_TROUBLE = (OpenFailed, Leaked, TimedOut, Rejected, RefusedStream)
_PER_CALL = (Granted, Released)


def level_of(event: AnyEvent) -> int:
    """The life of connections is INFO, trouble is WARNING, and what comes with calls that go well is DEBUG."""
    if isinstance(event, _TROUBLE):
        return logging.WARNING
    return logging.DEBUG if isinstance(event, _PER_CALL) else logging.INFO


def told(event: AnyEvent) -> str:
    """The line. Never credentials, metadata or payload."""
    return f"pool {event.pool!r}: {_what(event)}"


def _what(event: AnyEvent) -> str:  # noqa: C901, PLR0911 -- one line for each event
    match event:
        case Opening():
            successor = f", to replace channel {event.replaces}" if event.replaces is not None else ""
            return f"opening channel {event.channel}{successor}"
        case Opened():
            return f"channel {event.channel} is ready after {event.seconds:.3f} s"
        case OpenFailed():
            return (
                f"channel {event.channel} could not be opened: {brief(event.error)}; "
                f"next attempt in {event.retry_in:.3f} s at the earliest"
            )
        case Draining():
            waits = f"and waits for {event.in_flight} to end"
            return f"channel {event.channel} takes no new calls ({event.reason}) {waits}"
        case Closed():
            cancelled = f", {event.cancelled} in flight cancelled" if event.cancelled else ""
            return f"channel {event.channel} closed ({event.reason}){cancelled}"
        case Granted():
            return f"a place on channel {event.channel} was granted after a wait of {event.waited:.3f} s"
        case TimedOut():
            return f"no place came free within {event.waited:.3f} s"
        case Rejected():
            return f"turned away: {event.waiting} wait already"
        case RefusedStream():
            return f"the server refused a call on channel {event.channel}, which carries {event.limit} from now on"
        case Released():
            return f"a lease of channel {event.channel} was released after {event.held:.3f} s"
        case Leaked():
            taken = f"it was taken here:\n{event.stack}"
            return f"a lease of channel {event.channel} has been held for {event.held:.1f} s; {taken}"
        case _:
            assert_never(event)
