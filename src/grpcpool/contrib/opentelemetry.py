"""Metrics for OpenTelemetry.

The names are those of the semantic conventions for pools of database connections, ``db.client.connection.*``, carried
over to ``rpc.client.connection.*``, with the same units and meanings; where a pool of gRPC connections has more to
tell, the names begin with ``grpcpool.``. The one attribute of all is ``rpc.client.connection.pool.name``; there is none
for peers or connections, of which there may be many. Pools of one name are added up::

    instrument(pool)                      # with the global meter provider
    instrument(pool, meter_provider)      # with one of one's own

What is counted is read from the pool's snapshot when metrics are collected, and costs no call anything. Times are
recorded as events come: connections made, waits that were granted, and leases given back. A place that was free at
once is no event: the histogram of waits has those who waited, and how many did not is the difference to
``grpcpool.acquired``. How long calls take is told by OpenTelemetry's instrumentation of gRPC itself.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Final

from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider, Observation, get_meter

from .._shared.pool_base import PoolBase
from .._values.events import Granted, Opened, Released
from .._values.listener import Listener
from .._values.stats import PoolStats
from ._watched import Read, Values, Watched, added_up

POOL: Final = "rpc.client.connection.pool.name"
STATE: Final = "rpc.client.connection.state"
REASON: Final = "grpcpool.close.reason"

_PREFIX = "rpc.client.connection"

# In seconds, as the conventions advise for durations.
_BOUNDARIES = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]


def _states(stats: PoolStats) -> Values:
    """The two states of the conventions: connections that are not in service are neither."""
    return {"idle": stats.idle, "used": stats.ready - stats.idle}


def _closed(stats: PoolStats) -> Values:
    return {str(reason): count for reason, count in stats.closed.items()}


# Up-down counters: what there is now. Name, unit, meaning, second attribute, value.
_NOW: tuple[tuple[str, str, str, str | None, Read], ...] = (
    (f"{_PREFIX}.count", "{connection}", "Connections in service, by state.", STATE, _states),
    (f"{_PREFIX}.max", "{connection}", "Connections at most.", None, lambda stats: {"": stats.max_size}),
    (f"{_PREFIX}.idle.max", "{connection}", "Idle connections at most.", None, lambda stats: {"": stats.max_size}),
    (
        f"{_PREFIX}.idle.min",
        "{connection}",
        "Connections kept, however idle.",
        None,
        lambda stats: {"": stats.min_size},
    ),
    (f"{_PREFIX}.pending_requests", "{request}", "Who waits for a place.", None, lambda stats: {"": stats.waiting}),
    ("grpcpool.opening", "{connection}", "Connections being made.", None, lambda stats: {"": stats.opening}),
    ("grpcpool.draining", "{connection}", "Connections that drain.", None, lambda stats: {"": stats.draining}),
    ("grpcpool.in_flight", "{call}", "Leases and calls in flight.", None, lambda stats: {"": stats.in_flight}),
)
# Counters: what there was since the start.
_SINCE: tuple[tuple[str, str, str, str | None, Read], ...] = (
    (f"{_PREFIX}.timeouts", "{timeout}", "Who waited in vain.", None, lambda stats: {"": stats.timeouts}),
    ("grpcpool.acquired", "{call}", "Leases and calls that got a place.", None, lambda stats: {"": stats.acquired}),
    ("grpcpool.waited", "{call}", "Those of them that had to wait.", None, lambda stats: {"": stats.waited}),
    ("grpcpool.rejected", "{call}", "Who was turned away at once.", None, lambda stats: {"": stats.rejected}),
    (
        "grpcpool.refused_streams",
        "{call}",
        "Calls that a server refused for its own limit.",
        None,
        lambda stats: {"": stats.refused_streams},
    ),
    ("grpcpool.opened", "{connection}", "Connections made.", None, lambda stats: {"": stats.opened}),
    (
        "grpcpool.open_failures",
        "{attempt}",
        "Attempts to connect that failed.",
        None,
        lambda stats: {"": stats.open_failures},
    ),
    ("grpcpool.closed", "{connection}", "Connections closed, by reason.", REASON, _closed),
)


def instrument(pool: PoolBase, meter_provider: MeterProvider | None = None) -> None:
    """Has the pool's metrics told from now on, until the pool is collected. Later calls for the same pool do nothing.

    Args:
        pool: A pool, sync or asyncio. It is held weakly.
        meter_provider: Whom to tell; the global one if not given.

    Raises:
        TypeError: `pool` is not a pool.
    """
    key = _GLOBAL if meter_provider is None else meter_provider
    with _guard:
        instruments = _instruments.get(key)
        if instruments is None:
            instruments = _instruments[key] = _Instruments(get_meter("grpcpool", meter_provider=meter_provider))
    instruments.watch(pool)


class _Global:
    """Stands for the global meter provider, which may be set later."""


_GLOBAL = _Global()
_guard = threading.Lock()


class _Instruments:
    """The instruments of one meter provider, which has each but once, for all pools."""

    def __init__(self, meter: Meter) -> None:
        self._watched = Watched()
        self._times = _Times(meter)
        self._snapshots: list[tuple[str, PoolStats]] = []
        # The instruments that have been asked since these were taken.
        self._asked: set[str] = set()
        self._taking = threading.Lock()
        for name, unit, about, attribute, read in _NOW:
            meter.create_observable_up_down_counter(name, [self._observing(name, attribute, read)], unit, about)
        for name, unit, about, attribute, read in _SINCE:
            meter.create_observable_counter(name, [self._observing(name, attribute, read)], unit, about)

    def watch(self, pool: PoolBase) -> None:
        """Tells of `pool`, too."""
        if pool not in self._watched:
            self._watched.add(pool)
            pool.add_listener(self._times)

    def _taken_for(self, name: str) -> list[tuple[str, PoolStats]]:
        """The snapshots, which all instruments of one collection share: one that is asked again begins the next."""
        with self._taking:
            if not self._asked or name in self._asked:
                self._snapshots = list(self._watched.snapshots())
                self._asked.clear()
            self._asked.add(name)
            return self._snapshots

    def _observing(
        self, name: str, attribute: str | None, read: Read
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        """What OpenTelemetry calls when it collects."""

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            for (pool, second), value in added_up(self._taken_for(name), read).items():
                yield Observation(value, {POOL: pool} | ({attribute: second} if attribute is not None else {}))

        return observe


_instruments: weakref.WeakKeyDictionary[object, _Instruments] = weakref.WeakKeyDictionary()


class _Times(Listener):
    """Records how long things took."""

    def __init__(self, meter: Meter) -> None:
        self._create = _histogram(meter, "create_time", "The time it took to make a connection, priming included.")
        self._wait = _histogram(meter, "wait_time", "The time that those who had to wait waited for their place.")
        self._use = _histogram(meter, "use_time", "The time between taking a lease and giving it back.")

    def opened(self, event: Opened) -> None:
        self._create.record(event.seconds, {POOL: event.pool})

    def granted(self, event: Granted) -> None:
        self._wait.record(event.waited, {POOL: event.pool})

    def released(self, event: Released) -> None:
        self._use.record(event.held, {POOL: event.pool})


def _histogram(meter: Meter, name: str, about: str) -> Histogram:
    return meter.create_histogram(f"{_PREFIX}.{name}", "s", about, explicit_bucket_boundaries_advisory=_BOUNDARIES)
