"""What a pool has left behind after `close()`: should be nothing."""

from __future__ import annotations

import threading
import time

from .tcp import count_connections

# The system may take a moment to note that a connection is closed.
_PATIENCE = 2.0


def threads_left(pool: str) -> int:
    """How many threads of the pool of that name run."""
    return sum(thread.name.startswith(f"grpcpool-{pool}") for thread in threading.enumerate())


def connections_left(port: int) -> int:
    """How many connections to `port` there are still, after a moment; 0 where the system does not tell."""
    deadline = time.monotonic() + _PATIENCE
    while (left := count_connections(port)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return left or 0
