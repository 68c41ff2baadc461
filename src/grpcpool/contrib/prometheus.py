"""Metrics for Prometheus: a collector over the snapshots of pools.

It reads the pools at each scrape, and adds no cost to calls::

    from prometheus_client import REGISTRY
    REGISTRY.register(PoolCollector(pool))

All metrics are labelled with the pool's name, never with peers or connections; values of pools with equal names are
added up. Each worker process of a server has its own pools: scrape every worker (the multiprocess mode of
``prometheus_client`` does not support collectors).
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from typing import Final

from .._shared.pool_base import PoolBase
from .._values.stats import PoolStats
from ._extra import without_extra
from ._pool_set import IN_FLIGHT, REFUSED_STREAMS, PoolSet, Read, Values, streams_limit, sum_by_name

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector
except ModuleNotFoundError as error:
    raise without_extra("prometheus", error) from error

DASHBOARD: Final = pathlib.Path(__file__).with_name("grafana.json")
"""A Grafana dashboard for these metrics."""


def connections_by_state(stats: PoolStats) -> Values:
    """Returns the number of connections in each state; `idle` and `used` are in service."""
    states: Values = dict.fromkeys(("idle", "used", "opening", "lost", "draining"), 0)
    for channel in stats.channels:
        state = str(channel.state)
        if state == "ready":
            state = "used" if channel.in_flight else "idle"
        states[state] += 1
    return states


_GAUGES: dict[str, tuple[str, str | None, Read]] = {
    "grpcpool_connections": (
        "Connections by state: idle, used (with calls or leases in flight), opening, lost, draining.",
        "state",
        connections_by_state,
    ),
    "grpcpool_connections_min": ("Minimum number of connections kept open.", None, lambda stats: {"": stats.min_size}),
    "grpcpool_connections_max": ("Maximum number of connections.", None, lambda stats: {"": stats.max_size}),
    "grpcpool_in_flight": (IN_FLIGHT, None, lambda stats: {"": stats.in_flight}),
    "grpcpool_streams_limit": (
        "Streams that the connections in service can carry, and those in flight on others.",
        None,
        lambda stats: {"": streams_limit(stats)},
    ),
    "grpcpool_avoided": (
        "Connections in service that rank behind others because calls on them failed.",
        None,
        lambda stats: {"": stats.avoided},
    ),
    "grpcpool_waiting": ("Leases and calls that wait for a place.", None, lambda stats: {"": stats.waiting}),
}
_COUNTERS: dict[str, tuple[str, str | None, Read]] = {
    "grpcpool_acquired": ("Leases and calls that got a place.", None, lambda stats: {"": stats.acquired}),
    "grpcpool_waited": ("Acquired leases and calls that had to wait.", None, lambda stats: {"": stats.waited}),
    "grpcpool_wait_seconds": (
        "Total seconds that acquired leases and calls waited.",
        None,
        lambda stats: {"": stats.wait_seconds},
    ),
    "grpcpool_timeouts": (
        "Leases and calls that timed out while they waited.",
        None,
        lambda stats: {"": stats.timeouts},
    ),
    "grpcpool_rejected": (
        "Leases and calls rejected because the queue was full.",
        None,
        lambda stats: {"": stats.rejected},
    ),
    "grpcpool_refused_streams": (
        REFUSED_STREAMS,
        None,
        lambda stats: {"": stats.refused_streams},
    ),
    "grpcpool_failures": (
        "Calls that failed as calls do on a sick server.",
        None,
        lambda stats: {"": stats.failures},
    ),
    "grpcpool_losses": ("Connections in service that went down.", None, lambda stats: {"": stats.losses}),
    "grpcpool_opened": ("Connections opened.", None, lambda stats: {"": stats.opened}),
    "grpcpool_open_failures": ("Failed attempts to open a connection.", None, lambda stats: {"": stats.open_failures}),
    "grpcpool_closed": ("Connections closed, by reason.", "reason", lambda stats: dict(stats.closed)),
}


class PoolCollector(Collector):
    """Collects the metrics of pools; holds the pools weakly."""

    def __init__(self, *pools: PoolBase) -> None:
        """Collects from `pools`, sync or asyncio.

        Raises:
            TypeError: One of `pools` is not a pool.
        """
        self._pools = PoolSet(*pools)

    def watch(self, pool: PoolBase) -> None:
        """Collects from `pool`, too.

        Raises:
            TypeError: `pool` is not a pool.
        """
        self._pools.add(pool)

    def describe(self) -> Iterable[Metric]:
        """Returns the metrics without values."""
        return self._families([])

    def collect(self) -> Iterable[Metric]:
        """Returns the current metrics; each pool's are from one consistent snapshot."""
        return self._families(self._pools.snapshots())

    def _families(self, snapshots: list[tuple[str, PoolStats]]) -> Iterable[Metric]:
        for create, metrics in ((GaugeMetricFamily, _GAUGES), (CounterMetricFamily, _COUNTERS)):
            for name, (description, label, read) in metrics.items():
                family = create(name, description, labels=["pool", label] if label else ["pool"])
                for labels, value in sum_by_name(snapshots, read).items():
                    family.add_metric(labels if label else labels[:1], value)
                yield family
