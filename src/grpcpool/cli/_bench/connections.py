"""Counts the TCP connections of a measurement from outside, as the operating system sees them."""

from __future__ import annotations

import gc
import time

from ..._demo.monitor import poll
from ..._demo.tcp_connections import count_connections

_GRACE = 2.0


class Connections:
    """Counts how many more connections to a port there are than at the beginning."""

    def __init__(self, port: int | None) -> None:
        """Counts those that there are now; without a port, none."""
        self._port = port
        self._before = self._peak = self._count()

    @property
    def opened(self) -> int | None:
        """The highest number at once; `None` if the system does not report connections."""
        return None if self._before is None or self._peak is None else self._peak - self._before

    def update_peak(self) -> None:
        """Counts again."""
        now = self._count()
        if now is not None and self._peak is not None:
            self._peak = max(self._peak, now)

    def wait_until_closed(self) -> None:
        """Waits a moment for the connections to close, so that the next measurement starts without them."""
        # Some releases of gRPC close connections only when their channels are garbage collected.
        gc.collect()
        for seconds in poll(lambda: self._before is None or (self._count() or 0) <= self._before, _GRACE):
            time.sleep(seconds)

    def _count(self) -> int | None:
        return None if self._port is None else count_connections(self._port)
