"""The pools that an integration looks at: held weakly, so that it keeps none of them alive."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator

from .._shared.pool_base import PoolBase
from .._values.errors import PoolForkedError
from .._values.stats import PoolStats

Values = dict[str, float]
"""Values from a snapshot by the value of a second label; by the empty text where there is no such label."""

Read = Callable[[PoolStats], Values]
"""Takes values from a snapshot."""


class Watched:
    """Some pools, of either world."""

    def __init__(self, *pools: PoolBase) -> None:
        """Looks at `pools`."""
        self._pools: weakref.WeakSet[PoolBase] = weakref.WeakSet()
        for pool in pools:
            self.add(pool)

    def __contains__(self, pool: PoolBase) -> bool:
        """Whether `pool` is one of them."""
        return pool in self._pools

    def add(self, pool: PoolBase) -> None:
        """Looks at `pool`, too.

        Raises:
            TypeError: It is not a pool.
        """
        if not isinstance(pool, PoolBase):
            raise TypeError(f"must be a ChannelPool, not {pool!r}")
        self._pools.add(pool)

    def snapshots(self) -> Iterator[tuple[str, PoolStats]]:
        """The name and the figures of each pool that is still there and usable in this process."""
        for pool in list(self._pools):
            stats = figures_of(pool)
            if stats is not None:
                yield pool.name, stats


def figures_of(pool: PoolBase) -> PoolStats | None:
    """The pool's figures; `None` if it is an asyncio pool in a forked child, which has none."""
    try:
        return pool.stats()
    except PoolForkedError:
        return None


def added_up(snapshots: list[tuple[str, PoolStats]], read: Read) -> dict[tuple[str, str], float]:
    """The values by the name of the pool and the second label; those of pools of one name are added up."""
    added: dict[tuple[str, str], float] = {}
    for pool, stats in snapshots:
        for second, value in read(stats).items():
            added[pool, second] = added.get((pool, second), 0) + value
    return added
