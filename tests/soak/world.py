"""What threads and asyncio have in common, so that one chaos and one judge serve both."""

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
# Seconds that a caller rests between two calls, on average.
REST = 0.05
# Seconds within which what the pool is told to do must have been done.
AT_ONCE = 10.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What the pools of a soak are made with."""

    target: str
    config: PoolConfig
    listener: Listener
    seed: int


def dice(seed: int, *of: object) -> random.Random:
    """Dice for something; the same for the same seed."""
    return random.Random("/".join(map(str, (seed, *of))))  # noqa: S311 -- no secret


class World(abc.ABC):
    """A pool, and callers that use it."""

    name: str
    pool: Any

    def __init__(self, setting: Setting, book: Book) -> None:
        """Has a pool that was not used yet."""
        self.setting = setting
        self.book = book

    @abc.abstractmethod
    def start_callers(self, round_: int) -> None:
        """Has the callers begin, each with dice of its own."""

    @abc.abstractmethod
    def stop_callers(self, within: float) -> bool:
        """Has each end with the call that it makes; says whether all did in time."""

    @abc.abstractmethod
    def background(self, name: str, wishes: list[Wish]) -> None:
        """Has all these calls begun at once."""

    @abc.abstractmethod
    def discard(self, name: str, wish: Wish, streams: int | None) -> None:
        """Has a lease taken and discarded, in the background."""

    @abc.abstractmethod
    def cancel(self, call: Call, cancel: Callable[[], object]) -> None:
        """Cancels a call where that may be done."""

    @abc.abstractmethod
    def do(self, work: Callable[[Any], object]) -> None:
        """Does `work(pool)` where the pool lives."""

    @abc.abstractmethod
    def close(self) -> None:
        """Closes the pool, and ends what else there is but the process."""

    @abc.abstractmethod
    def left(self) -> list[str]:
        """What is left that should not be, and only this world knows of."""

    def stats(self) -> PoolStats:
        """A snapshot of the pool."""
        stats: PoolStats = self.pool.stats()
        return stats

    def dice(self, *of: object) -> random.Random:
        """Dice for someone; the same for the same seed."""
        return dice(self.setting.seed, *of)

    def burst(self, size: int, rng: random.Random) -> None:
        """Has many calls begun at once."""
        self.background("burst", [plain(rng) for _ in range(size)])
