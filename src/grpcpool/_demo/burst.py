"""A burst of requests for whole connections: the requests, how each ended, and the pool's state meanwhile."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Final

from grpcpool import PoolConfig, PoolStats, PoolTimeoutError
from grpcpool._shared.pool_base import PoolBase

from .monitor import monitoring, poll
from .screen import Screen, bar
from .tcp_connections import count_connections

CONFIG: Final = PoolConfig(min_size=2, max_size=8, idle_timeout=0.5, max_age=1.2, age_jitter=0.2)
REQUESTS: Final = 120
TIMEOUT: Final = 30.0

# Every fifth request times out before its turn: eight at a time take 50 ms, so the last one waits for 0.75 s.
SHORT_TIMEOUT: Final = 0.2
_SHORT_EVERY = 5

TIMEOUTS: Final = [SHORT_TIMEOUT if number % _SHORT_EVERY == 0 else TIMEOUT for number in range(1, REQUESTS + 1)]
"""The timeout of each request."""

DONE, TIMED_OUT = "done", "timed out"

# On a calm machine it takes two seconds.
_IDLE_WITHIN = 15.0


class Burst:
    """The state that all requests share, and the results."""

    def __init__(self, port: int, screen: Screen) -> None:
        """The requests go to the server on `port`."""
        self.target = f"127.0.0.1:{port}"
        self.outcomes: Counter[str] = Counter()
        # The last state: the pool's own stats, and the connections that the operating system counted.
        self.stats: PoolStats
        self.at_end: int | None = None
        self.peak: int | None = None
        # That in which the pool was idle: a moment later it may be replacing connections again.
        self._idle_state: tuple[PoolStats, int | None] | None = None
        self._port = port
        self._screen = screen
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Counts how the ``with`` block ends, which is one request and the use of its lease."""
        outcome = DONE
        try:
            yield
        except PoolTimeoutError:
            outcome = TIMED_OUT
        except Exception as error:  # noqa: BLE001 -- every failure is reported
            outcome = f"{type(error).__name__}: {error}"
        with self._lock:
            self.outcomes[outcome] += 1

    @contextlib.contextmanager
    def watch(self, pool: PoolBase) -> Iterator[None]:
        """Shows the pool on the screen during the ``with`` block."""
        self.stats = pool.stats()
        with monitoring(self._port, self._screen, lambda: self._describe(pool)) as monitor:
            yield
        self.peak = monitor.peak
        self.stats, self.at_end = self._idle_state or self._state(pool)

    @property
    def idle(self) -> bool:
        """Whether the pool has been idle after the requests."""
        return self._idle_state is not None

    def until_idle(self, pool: PoolBase) -> Iterator[float]:
        """Yields how long to sleep, repeatedly, until the pool is idle."""
        return poll(lambda: self._is_idle(pool), _IDLE_WITHIN)

    def _is_idle(self, pool: PoolBase) -> bool:
        """Whether idle connections are closed, the others were replaced once, and the operating system agrees."""
        stats, connections = state = self._state(pool)
        shrunk = stats.size == CONFIG.min_size == stats.ready
        closed = stats.closed["idle"] > 0 and stats.closed["age"] >= CONFIG.min_size
        if not (shrunk and closed and connections in (None, stats.size)):
            return False
        self._idle_state = state
        return True

    def _state(self, pool: PoolBase) -> tuple[PoolStats, int | None]:
        return pool.stats(), count_connections(self._port)

    def _describe(self, pool: PoolBase) -> str:
        self.stats = stats = pool.stats()
        drawing = bar(used=stats.in_flight, idle=stats.idle, size=CONFIG.max_size)
        return f"{drawing}  in use {stats.in_flight}  waiting {stats.waiting:3}"
