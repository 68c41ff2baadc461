"""The set of pools that an integration observes. It holds them weakly, so that it keeps none of them alive.

What a pool had counted does not vanish with it while another pool of the set has its name: the sum of their counters,
which is one series of a monitoring system, never decreases.
"""

from __future__ import annotations

import dataclasses
import threading
import weakref
from collections.abc import Callable
from typing import Final

from .._shared.fork import watch_for_fork
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
        # The name and the last snapshot of each pool.
        self._last: dict[weakref.ref[PoolBase], tuple[str, PoolStats]] = {}
        # By name, what pools that have been collected had counted.
        self._past: dict[str, PoolStats] = {}
        self._lock = threading.Lock()
        watch_for_fork(self)
        for pool in pools:
            self.add(pool)

    def __contains__(self, pool: object) -> bool:
        """Whether the set contains `pool`."""
        return isinstance(pool, PoolBase) and pool._observed in {each._observed for each in list(self._pools)}

    def add(self, pool: PoolBase) -> None:
        """Adds `pool`.

        Raises:
            TypeError: `pool` is not a pool.
        """
        self._pools.add(checked(pool)._observed)

    def _counted(self) -> set[PoolBase]:
        """Returns the pools, each once: an asyncio handle may find its pool when it is first used."""
        for pool in list(self._pools):
            if (found := pool._observed) is not pool:
                # Which may outlive the handle.
                self._pools.add(found)
        return {pool._counted for pool in list(self._pools)}

    def snapshots(self) -> list[tuple[str, PoolStats]]:
        """Returns name and snapshot of each pool that is still alive and usable in this process.

        For pools that are not any more, one more snapshot of each name has their counters, as last seen.
        """
        alive = []
        with self._lock:
            counted = self._counted()
            for pool in counted:
                stats = stats_if_usable(pool)
                if stats is not None:
                    if pool.closed:
                        # It has no bounds any more.
                        stats = dataclasses.replace(stats, min_size=0, max_size=0)
                    reference = weakref.ref(pool)
                    _, last = self._last.get(reference, ("", _NOTHING))
                    named = label_of(pool.name), _no_less(stats, last)
                    self._last[reference] = named
                    alive.append(named)
            for reference in list(self._last):
                pool_or_none = reference()
                if pool_or_none in counted:
                    continue
                name, stats = self._last.pop(reference)
                # The counters of one that is alive go on elsewhere: its handle has found another pool, or was dropped.
                if pool_or_none is None:
                    self._past[name] = _counters_of(stats, self._past.get(name, _NOTHING))
            names = {name for name, _ in alive}
            self._past = {name: past for name, past in self._past.items() if name in names}
            return [*alive, *self._past.items()]

    def _after_fork_in_child(self) -> object:
        """In a forked child, whose pools start at zero: forgets all counts. Returns what must be kept untouched."""
        old, self._lock = self._lock, threading.Lock()  # Another thread may have held it.
        self._last.clear()
        self._past.clear()
        return old


_NOTHING: Final = PoolStats(
    size=0,
    ready=0,
    opening=0,
    draining=0,
    idle=0,
    in_flight=0,
    waiting=0,
    min_size=0,
    max_size=0,
    acquired=0,
    waited=0,
    wait_seconds=0.0,
    timeouts=0,
    rejected=0,
    refused_streams=0,
    opened=0,
    open_failures=0,
    closed={},
    channels=(),
)


def _no_less(stats: PoolStats, last: PoolStats) -> PoolStats:
    """Returns the snapshot with no counter less than in the last one.

    What has been acquired on a connection that is found to be down at that moment is taken back.
    """
    return dataclasses.replace(
        stats,
        acquired=max(stats.acquired, last.acquired),
        waited=max(stats.waited, last.waited),
        wait_seconds=max(stats.wait_seconds, last.wait_seconds),
    )


def _counters_of(stats: PoolStats, more: PoolStats) -> PoolStats:
    """Returns a snapshot of nothing but the counters of both."""
    return dataclasses.replace(
        _NOTHING,
        acquired=stats.acquired + more.acquired,
        waited=stats.waited + more.waited,
        wait_seconds=stats.wait_seconds + more.wait_seconds,
        timeouts=stats.timeouts + more.timeouts,
        rejected=stats.rejected + more.rejected,
        refused_streams=stats.refused_streams + more.refused_streams,
        failures=stats.failures + more.failures,
        losses=stats.losses + more.losses,
        opened=stats.opened + more.opened,
        open_failures=stats.open_failures + more.open_failures,
        closed={reason: count + more.closed.get(reason, 0) for reason, count in stats.closed.items()},
    )


def label_of(name: str) -> str:
    """Returns a pool's name as a label, which is sent as UTF-8: what UTF-8 cannot encode is escaped."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def checked(pool: object) -> PoolBase:
    """Returns `pool`.

    Raises:
        TypeError: It is not a pool.
    """
    if not isinstance(pool, PoolBase):
        raise TypeError(f"pool must be a grpcpool.ChannelPool or a grpcpool.aio.ChannelPool, not {pool!r}")
    return pool


def stats_if_usable(pool: PoolBase) -> PoolStats | None:
    """Returns the pool's snapshot; `None` for an asyncio pool in a forked child, which has none."""
    try:
        return pool.stats()
    except PoolForkedError:
        return None


IN_FLIGHT: Final = (
    "Streams in flight: one for each call, and as many as it has for each lease; a lease of a whole connection counts "
    "as one."
)
REFUSED_STREAMS: Final = "Refusals by servers, at their stream limit or to shed load; each attempt of a call counts."


def streams_limit(stats: PoolStats) -> int:
    """Returns what the number in flight is at most: connections not in service only carry what they have."""
    ready = [channel for channel in stats.channels if channel.state == "ready"]
    carried = sum(channel.in_flight for channel in stats.channels if channel.state != "ready")
    return carried + sum(max(channel.limit, channel.in_flight) for channel in ready)


def sum_by_name(snapshots: list[tuple[str, PoolStats]], read: Read) -> dict[tuple[str, str], float]:
    """Returns the values by pool name and second label; values of pools with equal names are added up."""
    sums: dict[tuple[str, str], float] = {}
    for pool, stats in snapshots:
        for second, value in read(stats).items():
            sums[pool, second] = sums.get((pool, second), 0) + value
    return sums
