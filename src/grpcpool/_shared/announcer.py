"""Emits what happens in a pool: to the log, and to the listeners.

Logger ``grpcpool``: the life of connections at INFO, trouble at WARNING, nothing per call, and never credentials,
metadata or payload. What a server sent is escaped. Listeners are foreign code: what they raise is logged and goes no
further.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from .._values.events import (
    AddressesChanged,
    AnyEvent,
    Closed,
    Draining,
    Leaked,
    LookUpFailed,
    Lost,
    Opened,
    OpenFailed,
    Opening,
    Recovered,
)
from .._values.listener import HOOKS, Listener, hears_releases
from .._values.plain_text import plain
from .event_text import describe, level_of
from .plain_tracebacks import PlainTracebacks
from .signal_handlers import may_be_of_handler

logger = logging.getLogger("grpcpool")
logger.addFilter(PlainTracebacks())

_LOGGED = (Opening, Opened, OpenFailed, Lost, Recovered, Draining, Closed, AddressesChanged, LookUpFailed, Leaked)


class Announcer:
    """Passes events to the log and the listeners."""

    def __init__(self, listeners: Iterable[Listener] = ()) -> None:
        """Passes events to `listeners`, in their order, after the log."""
        self.set_listeners(listeners)
        # Whether the pool lost its last connection, and none has come up since.
        self._down = False

    def set_listeners(self, listeners: Iterable[Listener]) -> None:
        """Passes events to these listeners from now on."""
        self.listeners = tuple(listeners)
        self.emits_releases = any(map(hears_releases, self.listeners))

    def emit(self, event: AnyEvent) -> None:
        """Logs `event` and calls the hook for it on each listener."""
        try:
            self._log(event)
        except Exception as error:
            if may_be_of_handler(error):
                raise
            logger.exception("pool %r: %s could not be logged", event.pool, type(event).__name__)
        hook = HOOKS[type(event)]
        for listener in self.listeners:
            try:
                getattr(listener, hook)(event)
            except BaseException as error:
                if may_be_of_handler(error):
                    raise
                logger.exception("pool %r: listener %r failed in %s", event.pool, type(listener).__name__, hook)

    def _log(self, event: AnyEvent) -> None:
        # Waits, timeouts, rejections, refusals and failures belong to calls: callers see them, and the counters do.
        if isinstance(event, _LOGGED):
            logger.log(level_of(event), "%s", describe(event))
        if isinstance(event, Lost) and not event.up and not self._down:
            self._down = True
            logger.warning("%s", plain(f"pool {event.pool!r} is down: no connection is up"))
        elif isinstance(event, Recovered | Opened) and self._down:
            self._down = False
            logger.info("%s", plain(f"pool {event.pool!r} is up again"))
