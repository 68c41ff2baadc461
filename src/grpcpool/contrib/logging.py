"""A listener that logs a pool's events.

The pool itself logs the lifecycle of its connections, and problems, to the logger ``grpcpool``. This listener logs all
events, waits, timeouts and refused streams included, to a logger of your choice::

    pool.add_listener(LoggingListener(logging.getLogger("orders.pool")))
"""

from __future__ import annotations

import logging

from .._shared.event_text import describe, level_of
from .._values.events import AnyEvent
from .._values.listener import HOOKS, Listener


class LoggingListener(Listener):
    """Logs one line for each event, and below that of a leak the stack that acquired the lease.

    The lifecycle of connections is INFO; problems are WARNING; waits and releases, which happen with calls, are DEBUG.
    A line never contains credentials, metadata or payload.
    """

    def __init__(self, logger: logging.Logger) -> None:
        """Logs to `logger`, which should not be ``grpcpool``: the pool itself logs there."""
        self._logger = logger

    def _log(self, event: AnyEvent) -> None:
        level = level_of(event)
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", describe(event))


for _hook in HOOKS.values():
    setattr(LoggingListener, _hook, LoggingListener._log)
