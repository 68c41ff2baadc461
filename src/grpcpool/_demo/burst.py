"""A burst of asks for whole connections: who asks, how each ask ended, and what was seen of the pool meanwhile."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Final

from grpcpool import PoolConfig, PoolStats, PoolTimeoutError
from grpcpool._shared.pool_base import PoolBase

from .screen import Screen, bar
from .tcp import count_connections
from .watch import pauses, watching

CONFIG: Final = PoolConfig(min_size=2, max_size=8, idle_timeout=1.0, max_age=2.5, age_jitter=0.2)
ASKS: Final = 200
PATIENCE: Final = 10.0

# Every fifth has not enough patience for its turn: eight at a time take 50 ms, so the last has to wait for 1.25 s.
HURRY: Final = 0.25
_HURRIED = 5

PATIENCES: Final = [HURRY if number % _HURRIED == 0 else PATIENCE for number in range(1, ASKS + 1)]
"""Of each who asks, how long he would wait."""

DONE, TIMED_OUT = "done", "timed out"

_QUIET = 6.0


class Burst:
    """What those who ask share, and what is found out."""

    def __init__(self, port: int, screen: Screen) -> None:
        """The server listens on `port`."""
        self.target = f"127.0.0.1:{port}"
        self.outcomes: Counter[str] = Counter()
        # What was seen at last, from within and from outside.
        self.stats: PoolStats
        self.at_end: int | None = None
        self.peak: int | None = None
        self._port = port
        self._screen = screen
        self._guard = threading.Lock()

    @contextlib.contextmanager
    def ask(self) -> Iterator[None]:
        """One ask, and what is done with the lease, is what is in the ``with`` block; how that ends is noted."""
        outcome = DONE
        try:
            yield
        except PoolTimeoutError:
            outcome = TIMED_OUT
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is told
            outcome = f"{type(error).__name__}: {error}"
        with self._guard:
            self.outcomes[outcome] += 1

    @contextlib.contextmanager
    def watch(self, pool: PoolBase) -> Iterator[None]:
        """Shows the pool while what is in the ``with`` block goes on."""
        with watching(self._port, self._screen, lambda: _told(pool.stats())) as watch:
            yield
        self.stats, self.at_end, self.peak = pool.stats(), count_connections(self._port), watch.peak

    def rests(self, pool: PoolBase) -> Iterator[float]:
        """Yields how long to sleep, time and again, until the pool has come to rest."""
        return pauses(lambda: self._is_at_rest(pool.stats()), _QUIET)

    def _is_at_rest(self, stats: PoolStats) -> bool:
        """Whether what idles has been closed, what is left has been replaced at least once, and the server knows."""
        rested = stats.size == CONFIG.min_size == stats.ready
        closed = stats.closed["idle"] > 0 and stats.closed["age"] >= CONFIG.min_size
        return rested and closed and count_connections(self._port) in (None, stats.size)


def _told(stats: PoolStats) -> str:
    drawing = bar(used=stats.in_flight, idle=stats.idle, size=CONFIG.max_size)
    return f"{drawing}  in use {stats.in_flight}  waiting {stats.waiting:3}"
