"""Finds what is left after a pool's `close()`: it should be nothing."""

from __future__ import annotations

import gc
import time

from .monitor import poll
from .tcp_connections import count_connections

# The operating system may show a closed connection for a moment, and a busy one for longer.
_GRACE = 10.0


def connections_left(port: int) -> int:
    """Returns the connections to `port` that are still open after a moment; 0 if the system does not report them."""
    # Some releases of gRPC close the connections of asyncio channels only when these are garbage collected.
    gc.collect()
    for seconds in poll(lambda: not count_connections(port), _GRACE):
        time.sleep(seconds)
    return count_connections(port) or 0


def describe_leftovers(left: dict[str, int]) -> list[str]:
    """Describes what is left, by kind."""
    return [f"{count} {things} left after close()" for things, count in left.items() if count]
