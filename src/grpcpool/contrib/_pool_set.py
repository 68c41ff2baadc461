"""The set of pools that an integration observes. It holds them weakly, so that it keeps none of them alive."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator

from .._shared.pool_base import PoolBase
from .._values.errors import PoolForkedError
from .._values.stats import PoolStats

Values = dict[str, float]
"""Values from a snapshot, by the value of a second label; the key is empty if there is no such label."""

Read = Callable[[PoolStats], Values]
"""Reads values from a snapshot."""


class PoolSet:
    """A weak set of pools, sync or asyncio. All handles on a shared pool are that pool."""

    def __init__(self, *pools: PoolBase) -> None:
        """Contains `pools`."""
        self._pools: weakref.WeakSet[PoolBase] = weakref.WeakSet()
        for pool in pools:
            self.add(pool)

    def __contains__(self, pool: object) -> bool:
        """Whether the set contains `pool`."""
        return isinstance(pool, PoolBase) and pool._observed in self._observed()

    def add(self, pool: PoolBase) -> None:
        """Adds `pool`.

        Raises:
            TypeError: `pool` is not a pool.
        """
        if not isinstance(pool, PoolBase):
            raise TypeError(f"must be a ChannelPool, not {pool!r}")
        self._pools.add(pool._observed)

    def _observed(self) -> set[PoolBase]:
        # Only now: an asyncio handle may find its pool when it is first used.
        return {pool._observed for pool in list(self._pools)}

    def snapshots(self) -> Iterator[tuple[str, PoolStats]]:
        """Yields name and snapshot of each pool that is still alive and usable in this process."""
        for pool in self._observed():
            stats = stats_if_usable(pool)
            if stats is not None:
                yield pool.name, stats


def stats_if_usable(pool: PoolBase) -> PoolStats | None:
    """Returns the pool's snapshot; `None` for an asyncio pool in a forked child, which has none."""
    try:
        return pool.stats()
    except PoolForkedError:
        return None


def sum_by_name(snapshots: list[tuple[str, PoolStats]], read: Read) -> dict[tuple[str, str], float]:
    """Returns the values by pool name and second label; values of pools with equal names are added up."""
    sums: dict[tuple[str, str], float] = {}
    for pool, stats in snapshots:
        for second, value in read(stats).items():
            sums[pool, second] = sums.get((pool, second), 0) + value
    return sums
