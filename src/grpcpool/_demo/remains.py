"""What a pool has left behind after `close()`: should be nothing."""

from __future__ import annotations

import gc
import time

from .tcp import count_connections
from .watch import pauses

# The system may take a moment to note that a connection is closed.
_PATIENCE = 2.0


def connections_left(port: int) -> int:
    """How many connections to `port` there are still, after a moment; 0 where the system does not tell."""
    # Some releases of gRPC close the connections of asyncio's channels only when those are collected.
    gc.collect()
    for pause in pauses(lambda: not count_connections(port), _PATIENCE):
        time.sleep(pause)
    return count_connections(port) or 0


def told(left: dict[str, int]) -> list[str]:
    """In words, what is left of each kind of thing."""
    return [f"{count} {things} left after close()" for things, count in left.items() if count]
