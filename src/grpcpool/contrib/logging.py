"""A listener that tells a pool's story in plain lines.

The pool itself logs the life of its connections, and its trouble, to the logger ``grpcpool``. This listener tells all
there is to tell, waits, timeouts and refusals included, to a logger of one's choice::

    pool.add_listener(LoggingListener(logging.getLogger("orders.pool")))
"""

from __future__ import annotations

import logging

from .._shared.event_text import level_of, told
from .._values.events import AnyEvent
from .._values.listener import HOOKS, Listener


class LoggingListener(Listener):
    """Logs one line for each event.

    The life of connections is INFO; what is wrong is WARNING; waits and releases, which come with calls, are DEBUG.
    There are never credentials, metadata or payload in a line.
    """

    def __init__(self, logger: logging.Logger) -> None:
        """Tells `logger`, which should not be ``grpcpool``: the pool tells that one itself."""
        self._logger = logger

    def _tell(self, event: AnyEvent) -> None:
        level = level_of(event)
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", told(event))


for _hook in HOOKS.values():
    setattr(LoggingListener, _hook, LoggingListener._tell)
