"""Tells what happens in a pool: to the log, and to the listeners.

Logger ``grpcpool``: the life of connections at INFO, trouble at WARNING, nothing per call, and never credentials,
metadata or payload. Listeners are foreign code: what they raise is logged and counted, and goes no further.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from ._errors import brief
from ._listener import (
    HOOKS,
    Closed,
    Draining,
    Leaked,
    Listener,
    Opened,
    OpenFailed,
    Opening,
    PoolEvent,
)

logger = logging.getLogger("grpcpool")


class Announcer:
    """Passes events on."""

    def __init__(self, listeners: Iterable[Listener]) -> None:
        """Tells `listeners`, in their order, after the log."""
        self.listeners = tuple(listeners)
        self.listener_errors = 0

    def tell(self, event: PoolEvent) -> None:
        """Logs `event` and calls the hook for it on each listener."""
        try:
            _log(event)
        except Exception:
            logger.exception("pool %r: %s could not be logged", event.pool, type(event).__name__)
        hook = HOOKS[type(event)]
        for listener in self.listeners:
            try:
                getattr(listener, hook)(event)
            except Exception:
                self.listener_errors += 1
                logger.exception("pool %r: listener %r failed in %s", event.pool, type(listener).__name__, hook)


def _log(event: PoolEvent) -> None:
    match event:
        case Opening():
            successor = f", to replace channel {event.replaces}" if event.replaces is not None else ""
            logger.info("pool %r: opening channel %d%s", event.pool, event.channel, successor)
        case Opened():
            logger.info("pool %r: channel %d is ready after %.3f s", event.pool, event.channel, event.seconds)
        case Draining():
            text = "pool %r: channel %d takes no new calls (%s) and waits for %d to end"
            logger.info(text, event.pool, event.channel, event.reason, event.in_flight)
        case Closed():
            cancelled = f", {event.cancelled} in flight cancelled" if event.cancelled else ""
            logger.info("pool %r: channel %d closed (%s)%s", event.pool, event.channel, event.reason, cancelled)
        case OpenFailed():
            text = "pool %r: channel %d could not be opened: %s; next attempt in %.3f s at the earliest"
            logger.warning(text, event.pool, event.channel, brief(event.error), event.retry_in)
        case Leaked():
            text = "pool %r: a lease of channel %d has been held for %.1f s; it was taken here:\n%s"
            logger.warning(text, event.pool, event.channel, event.held, event.stack)
        case _:
            # Waits, timeouts, rejections and refusals come with calls: their callers are told, and the counters.
            pass
