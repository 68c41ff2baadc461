"""What threads and asyncio have in common, so that one `Chaos` and one `Judge` serve both."""

from __future__ import annotations

import abc
import dataclasses
import random
from collections.abc import Callable
from typing import Any

from grpcpool import Listener, PoolConfig, PoolStats
from soak.book import Book, Call
from soak.wishes import Wish, plain

CALLERS = 16
# Average seconds between two calls of a caller.
REST = 0.05
# Seconds in which the pool must have done what it was asked to do.
AT_ONCE = 10.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How the pools of a soak are made."""

    target: str
    config: PoolConfig
    listener: Listener
    seed: int


def dice(seed: int, *of: object) -> random.Random:
    """Random numbers for one purpose; the same for the same seed."""
    return random.Random("/".join(map(str, (seed, *of))))  # noqa: S311 -- no secret


class World(abc.ABC):
    """A pool, and callers that use it."""

    name: str
    pool: Any

    def __init__(self, setting: Setting, book: Book) -> None:
        """The pool is not used yet."""
        self.setting = setting
        self.book = book

    @abc.abstractmethod
    def start_callers(self, round_: int) -> None:
        """Starts the callers, each with its own random numbers."""

    @abc.abstractmethod
    def stop_callers(self, within: float) -> bool:
        """Lets each caller end its call; returns whether all ended in time."""

    @abc.abstractmethod
    def background(self, name: str, wishes: list[Wish]) -> None:
        """Starts all these calls at once."""

    @abc.abstractmethod
    def discard(self, name: str, wish: Wish, streams: int | None) -> None:
        """Acquires and discards a lease, in the background."""

    @abc.abstractmethod
    def cancel(self, call: Call, cancel: Callable[[], object]) -> None:
        """Cancels a call, from where that is allowed."""

    @abc.abstractmethod
    def do(self, work: Callable[[Any], object]) -> None:
        """Does `work(pool)` where the pool lives."""

    @abc.abstractmethod
    def close(self) -> None:
        """Closes the pool, and ends all else except the process."""

    @abc.abstractmethod
    def left(self) -> list[str]:
        """What is left that should not be, if only this world can see it."""

    def stats(self) -> PoolStats:
        """A snapshot of the pool."""
        stats: PoolStats = self.pool.stats()
        return stats

    def dice(self, *of: object) -> random.Random:
        """Random numbers for one purpose; the same for the same seed."""
        return dice(self.setting.seed, *of)

    def burst(self, size: int, rng: random.Random) -> None:
        """Begins many calls at once."""
        self.background("burst", [plain(rng) for _ in range(size)])
