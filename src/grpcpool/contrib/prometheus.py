"""Metrics for Prometheus: a collector over the snapshots of pools.

It looks at the pools when it is scraped, and costs no call anything::

    from prometheus_client import REGISTRY
    REGISTRY.register(PoolCollector(pool))

Everything is labelled by the pool's name, never by peer or connection; pools of one name are added up. Under a server
with several worker processes each has pools of its own: scrape each worker (``prometheus_client``'s multiprocess mode
knows no collectors).
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from .._shared.pool_base import PoolBase
from .._values.stats import PoolStats
from ._watched import Read, Values, Watched, added_up

DASHBOARD: Final = pathlib.Path(__file__).with_name("grafana.json")
"""A dashboard of these metrics, to be imported into Grafana."""


def connections_by_state(stats: PoolStats) -> Values:
    """How many connections of a pool are in which state; `idle` and `used` are those in service."""
    states: Values = dict.fromkeys(("idle", "used", "opening", "lost", "draining"), 0)
    for channel in stats.channels:
        state = str(channel.state)
        if state == "ready":
            state = "used" if channel.in_flight else "idle"
        states[state] += 1
    return states


_GAUGES: dict[str, tuple[str, str | None, Read]] = {
    "grpcpool_connections": (
        "Connections by state: idle, used (something is in flight), opening, lost, draining.",
        "state",
        connections_by_state,
    ),
    "grpcpool_connections_min": ("Connections kept open.", None, lambda stats: {"": stats.min_size}),
    "grpcpool_connections_max": ("Connections at most.", None, lambda stats: {"": stats.max_size}),
    "grpcpool_in_flight": ("Leases and calls in flight.", None, lambda stats: {"": stats.in_flight}),
    "grpcpool_streams_limit": (
        "Calls that the connections in service may carry.",
        None,
        lambda stats: {"": sum(channel.limit for channel in stats.channels if channel.state == "ready")},
    ),
    "grpcpool_waiting": ("Leases and calls that wait for a place.", None, lambda stats: {"": stats.waiting}),
}
_COUNTERS: dict[str, tuple[str, str | None, Read]] = {
    "grpcpool_acquired": ("Leases and calls that got a place.", None, lambda stats: {"": stats.acquired}),
    "grpcpool_waited": ("Those of them that had to wait.", None, lambda stats: {"": stats.waited}),
    "grpcpool_wait_seconds": ("Seconds that those waited, in sum.", None, lambda stats: {"": stats.wait_seconds}),
    "grpcpool_timeouts": ("Leases and calls that waited in vain.", None, lambda stats: {"": stats.timeouts}),
    "grpcpool_rejected": ("Leases and calls turned away at once.", None, lambda stats: {"": stats.rejected}),
    "grpcpool_refused_streams": (
        "Calls that a server refused for its own limit.",
        None,
        lambda stats: {"": stats.refused_streams},
    ),
    "grpcpool_opened": ("Connections made.", None, lambda stats: {"": stats.opened}),
    "grpcpool_open_failures": ("Attempts to connect that failed.", None, lambda stats: {"": stats.open_failures}),
    "grpcpool_closed": ("Connections closed, by reason.", "reason", lambda stats: dict(stats.closed)),
}


class PoolCollector(Collector):
    """Collects the metrics of pools; holds the pools weakly."""

    def __init__(self, *pools: PoolBase) -> None:
        """Looks at `pools`, sync or asyncio.

        Raises:
            TypeError: One is not a pool.
        """
        self._watched = Watched(*pools)

    def watch(self, pool: PoolBase) -> None:
        """Looks at `pool`, too.

        Raises:
            TypeError: It is not a pool.
        """
        self._watched.add(pool)

    def describe(self) -> Iterable[Metric]:
        """The metrics without values."""
        return self._families([])

    def collect(self) -> Iterable[Metric]:
        """The metrics of this moment; each pool's are of one consistent snapshot."""
        return self._families(list(self._watched.snapshots()))

    def _families(self, snapshots: list[tuple[str, PoolStats]]) -> Iterable[Metric]:
        for make, metrics in ((GaugeMetricFamily, _GAUGES), (CounterMetricFamily, _COUNTERS)):
            for name, (about, label, read) in metrics.items():
                family = make(name, about, labels=["pool", label] if label else ["pool"])
                for labels, value in added_up(snapshots, read).items():
                    family.add_metric(labels if label else labels[:1], value)
                yield family
