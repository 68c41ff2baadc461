"""Tells what happens in a pool: to the log, and to the listeners.

Logger ``grpcpool``: the life of connections at INFO, trouble at WARNING, nothing per call, and never credentials,
metadata or payload. Listeners are foreign code: what they raise is logged and counted, and goes no further.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable

from ._listener import (
    HOOKS,
    AnyEvent,
    Closed,
    Draining,
    Leaked,
    Listener,
    Opened,
    OpenFailed,
    Opening,
    hears_releases,
)
from ._story import describe, level_of

logger = logging.getLogger("grpcpool")

_LOGGED = (Opening, Opened, OpenFailed, Draining, Closed, Leaked)


class Announcer:
    """Passes events on."""

    def __init__(self, listeners: Iterable[Listener]) -> None:
        """Tells `listeners`, in their order, after the log."""
        self.listener_errors = 0
        self.hear(listeners)

    def hear(self, listeners: Iterable[Listener]) -> None:
        """Tells these listeners from now on."""
        self.listeners = tuple(listeners)
        self.tells_releases = any(map(hears_releases, self.listeners))

    def tell(self, event: AnyEvent) -> None:
        """Logs `event` and calls the hook for it on each listener."""
        try:
            _log(event)
        except Exception:
            logger.exception("pool %r: %s could not be logged", event.pool, type(event).__name__)
        hook = HOOKS[type(event)]
        for listener in self.listeners:
            try:
                getattr(listener, hook)(event)
            except BaseException as error:
                if _may_be_a_signals(error):
                    raise
                self.listener_errors += 1
                logger.exception("pool %r: listener %r failed in %s", event.pool, type(listener).__name__, hook)


def _may_be_a_signals(error: BaseException) -> bool:
    """Whether a signal's handler may have raised this, which is not the listener's doing: only the main thread is told.

    On any other thread nothing that a hook raises may pass: it would end the pool's worker, or gRPC's for callbacks.
    Nor may `asyncio.CancelledError` on any: a hook awaits nothing, so it was not the task that was cancelled.
    """
    if isinstance(error, Exception | asyncio.CancelledError):
        return False
    return threading.current_thread() is threading.main_thread()


def _log(event: AnyEvent) -> None:
    # Waits, timeouts, rejections and refusals come with calls: their callers are told, and the counters.
    if isinstance(event, _LOGGED):
        logger.log(level_of(event), "%s", describe(event))
