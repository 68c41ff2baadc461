"""Metrics for OpenTelemetry.

The names follow the semantic conventions for database connection pools, ``db.client.connection.*``, with
``rpc.client.connection.*`` as the prefix and with the same units and meanings. Metrics without a counterpart there
begin with ``grpcpool.``. All metrics have the attribute ``rpc.client.connection.pool.name``; there is no attribute for
peers or connections, whose number is not bounded. Values of pools with equal names are added up::

    instrument(pool)                      # with the global meter provider
    instrument(pool, meter_provider)      # with your own

Counts are read from the pool's snapshot when metrics are collected, and add no cost to calls. Durations are recorded
from events: opened connections, granted waits, and released leases. An acquire without a wait is not an event: the
histogram of waits contains only callers that waited; the number that did not wait is the difference to
``grpcpool.acquired``. For the duration of calls, use OpenTelemetry's instrumentation of gRPC.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Final

from .._shared.fork import watch_for_fork
from .._shared.pool_base import PoolBase
from .._values.events import Granted, Opened, Released
from .._values.listener import Listener
from .._values.stats import PoolStats
from ._extra import without_extra
from ._pool_set import IN_FLIGHT, REFUSED_STREAMS, PoolSet, Read, Values, label_of, sum_by_name

try:
    from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider, Observation, get_meter
except ModuleNotFoundError as error:
    raise without_extra("opentelemetry", error) from error

POOL: Final = "rpc.client.connection.pool.name"
STATE: Final = "rpc.client.connection.state"
REASON: Final = "grpcpool.close.reason"

_PREFIX = "rpc.client.connection"

# In seconds, as the conventions advise for durations.
_BOUNDARIES = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]


def _states(stats: PoolStats) -> Values:
    """Returns the two states of the conventions; connections that are not in service have neither."""
    return {"idle": stats.idle, "used": stats.ready - stats.idle}


def _closed(stats: PoolStats) -> Values:
    return {str(reason): count for reason, count in stats.closed.items()}


# Current values: name, unit, description, second attribute, value.
_UP_DOWN_COUNTERS: tuple[tuple[str, str, str, str | None, Read], ...] = (
    (f"{_PREFIX}.count", "{connection}", "Connections in service, by state.", STATE, _states),
    (f"{_PREFIX}.max", "{connection}", "Maximum number of connections.", None, lambda stats: {"": stats.max_size}),
    (
        f"{_PREFIX}.idle.max",
        "{connection}",
        "Maximum number of idle connections.",
        None,
        lambda stats: {"": stats.max_size},
    ),
    (
        f"{_PREFIX}.idle.min",
        "{connection}",
        "Minimum number of connections kept open.",
        None,
        lambda stats: {"": stats.min_size},
    ),
    (
        f"{_PREFIX}.pending_requests",
        "{request}",
        "Leases and calls that wait for a place.",
        None,
        lambda stats: {"": stats.waiting},
    ),
    ("grpcpool.opening", "{connection}", "Connections being opened.", None, lambda stats: {"": stats.opening}),
    ("grpcpool.lost", "{connection}", "Connections that are down.", None, lambda stats: {"": stats.lost}),
    (
        "grpcpool.avoided",
        "{connection}",
        "Connections in service that rank behind others because calls on them failed.",
        None,
        lambda stats: {"": stats.avoided},
    ),
    ("grpcpool.draining", "{connection}", "Connections being drained.", None, lambda stats: {"": stats.draining}),
    ("grpcpool.in_flight", "{call}", IN_FLIGHT, None, lambda stats: {"": stats.in_flight}),
)
# Totals since the start, in the same order.
_COUNTERS: tuple[tuple[str, str, str, str | None, Read], ...] = (
    (
        f"{_PREFIX}.timeouts",
        "{timeout}",
        "Leases and calls that timed out while they waited.",
        None,
        lambda stats: {"": stats.timeouts},
    ),
    ("grpcpool.acquired", "{call}", "Leases and calls that got a place.", None, lambda stats: {"": stats.acquired}),
    (
        "grpcpool.waited",
        "{call}",
        "Acquired leases and calls that had to wait.",
        None,
        lambda stats: {"": stats.waited},
    ),
    (
        "grpcpool.rejected",
        "{call}",
        "Leases and calls rejected because the queue was full.",
        None,
        lambda stats: {"": stats.rejected},
    ),
    (
        "grpcpool.refused_streams",
        "{call}",
        REFUSED_STREAMS,
        None,
        lambda stats: {"": stats.refused_streams},
    ),
    (
        "grpcpool.failures",
        "{call}",
        "Calls that failed as calls do on a sick server.",
        None,
        lambda stats: {"": stats.failures},
    ),
    (
        "grpcpool.losses",
        "{connection}",
        "Connections in service that went down.",
        None,
        lambda stats: {"": stats.losses},
    ),
    ("grpcpool.opened", "{connection}", "Connections opened.", None, lambda stats: {"": stats.opened}),
    (
        "grpcpool.open_failures",
        "{attempt}",
        "Failed attempts to open a connection.",
        None,
        lambda stats: {"": stats.open_failures},
    ),
    ("grpcpool.closed", "{connection}", "Connections closed, by reason.", REASON, _closed),
)


def instrument(pool: PoolBase, meter_provider: MeterProvider | None = None) -> None:
    """Exports the pool's metrics until the pool is garbage collected. Further calls for the same pool do nothing.

    Args:
        pool: A pool, sync or asyncio. It is held weakly.
        meter_provider: The meter provider to use; the global one if not given.

    Raises:
        TypeError: `pool` is not a pool.
    """
    _providers.instruments(meter_provider).watch(pool)


class _Global:
    """Represents the global meter provider, which may be set later."""


class _Providers:
    """The instruments of each meter provider."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._global = _Global()
        self._instruments: weakref.WeakKeyDictionary[object, _Instruments] = weakref.WeakKeyDictionary()
        watch_for_fork(self)

    def _after_fork_in_child(self) -> object:
        """In a forked child: another thread may have held the lock. Returns what must be kept untouched."""
        old, self._lock = self._lock, threading.Lock()
        return old

    def instruments(self, meter_provider: MeterProvider | None) -> _Instruments:
        """Returns the instruments of a meter provider, the global one if not given."""
        key = self._global if meter_provider is None else meter_provider
        with self._lock:
            instruments = self._instruments.get(key)
            if instruments is None:
                meter = get_meter("grpcpool", meter_provider=meter_provider)
                instruments = self._instruments[key] = _Instruments(meter)
            return instruments


_providers = _Providers()


class _Instruments:
    """The instruments of one meter provider, created once for all pools."""

    def __init__(self, meter: Meter) -> None:
        self._pools = PoolSet()
        self._durations = _DurationListener(meter)
        self._snapshots: list[tuple[str, PoolStats]] = []
        # The instruments that have read these snapshots.
        self._collected: set[str] = set()
        self._lock = threading.Lock()
        watch_for_fork(self)
        for name, unit, description, attribute, read in _UP_DOWN_COUNTERS:
            meter.create_observable_up_down_counter(name, [self._callback(name, attribute, read)], unit, description)
        for name, unit, description, attribute, read in _COUNTERS:
            meter.create_observable_counter(name, [self._callback(name, attribute, read)], unit, description)

    def _after_fork_in_child(self) -> object:
        """In a forked child: another thread may have held the lock. Returns what must be kept untouched."""
        old, self._lock = self._lock, threading.Lock()
        return old

    def watch(self, pool: PoolBase) -> None:
        """Exports the metrics of `pool`, too."""
        if pool not in self._pools:
            self._pools.add(pool)
            pool.add_listener(self._durations)

    def _snapshots_for(self, name: str) -> list[tuple[str, PoolStats]]:
        """Returns the snapshots of this collection; when an instrument reads them again, the next collection starts."""
        with self._lock:
            if not self._collected or name in self._collected:
                self._snapshots = self._pools.snapshots()
                self._collected.clear()
            self._collected.add(name)
            return self._snapshots

    def _callback(
        self, name: str, attribute: str | None, read: Read
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        """Returns the function that OpenTelemetry calls at each collection."""

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            for (pool, second), value in sum_by_name(self._snapshots_for(name), read).items():
                yield Observation(value, {POOL: pool} | ({attribute: second} if attribute is not None else {}))

        return observe


# The most durations that are kept until the next event: there may be none for long.
_MAX_NOTED = 1000


class _DurationListener(Listener):
    """Records durations from events.

    Hooks may run in a finalizer, which may interrupt the SDK where it holds a lock: recording would be a deadlock. Then
    a duration is noted, and recorded at the next event.
    """

    def __init__(self, meter: Meter) -> None:
        self._create = _histogram(meter, "create_time", "Time to open a connection, including prime.")
        self._wait = _histogram(meter, "wait_time", "Time that callers waited for a place, if they had to wait.")
        self._use = _histogram(meter, "use_time", "Time between acquiring and releasing a lease.")
        self._noted: deque[tuple[Histogram, float, str]] = deque(maxlen=_MAX_NOTED)

    def opened(self, event: Opened) -> None:
        self._record(self._create, event.seconds, event.pool)

    def granted(self, event: Granted) -> None:
        self._record(self._wait, event.waited, event.pool)

    def released(self, event: Released) -> None:
        self._record(self._use, event.held, event.pool)

    def _record(self, histogram: Histogram, seconds: float, pool: str) -> None:
        self._noted.append((histogram, seconds, pool))
        if _interrupts_sdk():
            return
        # Other threads take from it, too: only `popleft` says whether there is one.
        with contextlib.suppress(IndexError):
            while True:
                histogram, seconds, pool = self._noted.popleft()
                histogram.record(seconds, {POOL: label_of(pool)})


def _interrupts_sdk() -> bool:
    """Whether this runs within the metrics of the SDK, on the same thread, where it may hold locks."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith("opentelemetry.sdk.metrics"):
            # What a reader does with metrics, as to export them over a pool, is outside the locks that recording takes.
            return frame.f_code.co_name != "_receive_metrics"
        frame = frame.f_back
    return False


def _histogram(meter: Meter, name: str, description: str) -> Histogram:
    return meter.create_histogram(
        f"{_PREFIX}.{name}", "s", description, explicit_bucket_boundaries_advisory=_BOUNDARIES
    )
