"""Metrics for OpenTelemetry, read with its SDK."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    HistogramDataPoint,
    InMemoryMetricReader,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)

import grpcpool.aio
from grpcpool import PoolConfig, PoolStats, PoolTimeoutError
from grpcpool.contrib.opentelemetry import POOL, STATE, instrument
from grpcpool.testing import FakeFactory, ManualClock, aio
from support.loops import in_loop
from support.pools import PoolMaker
from support.programs import run_python
from support.servers import FAIL, Server, unary
from support.waiting import LONG, background, eventually

pytestmark = pytest.mark.timeout(30)

CONVENTIONAL = {
    "rpc.client.connection.count": "{connection}",
    "rpc.client.connection.idle.max": "{connection}",
    "rpc.client.connection.idle.min": "{connection}",
    "rpc.client.connection.max": "{connection}",
    "rpc.client.connection.pending_requests": "{request}",
    "rpc.client.connection.timeouts": "{timeout}",
    "rpc.client.connection.create_time": "s",
    "rpc.client.connection.wait_time": "s",
    "rpc.client.connection.use_time": "s",
}
"""The metrics of the conventions for connection pools, with their units."""


class Sdk:
    """A meter provider, and a reader for its metrics."""

    def __init__(self) -> None:
        """Collects nothing yet."""
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader])

    def metrics(self) -> dict[str, Metric]:
        """Collects the current metrics, by name."""
        data: Any = self._reader.get_metrics_data()
        if data is None:
            return {}
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def values(self, name: str) -> dict[str, float]:
        """Returns the values of a metric by its second attribute, or by the pool's name if there is none."""
        points: Any = self.metrics()[name].data.data_points
        return {list(point.attributes.values())[-1]: point.value for point in points}

    def times(self, name: str) -> tuple[int, float]:
        """Returns the number of durations in a histogram, and their sum."""
        (point,) = self.metrics()[f"rpc.client.connection.{name}"].data.data_points
        assert isinstance(point, HistogramDataPoint)
        return point.count, point.sum


@pytest.fixture
def sdk() -> Iterator[Sdk]:
    """The real SDK, with an in-memory reader."""
    sdk = Sdk()
    yield sdk
    sdk.provider.shutdown()


def test_the_names_follow_the_conventions(make_pool: PoolMaker, sdk: Sdk) -> None:
    """Every metric of the conventions exists, with its unit and the pool's name as attribute."""
    pool = make_pool(FakeFactory(), name="orders", max_size=1)
    instrument(pool, sdk.provider)
    with pool.acquire():
        waiting = background(pool.acquire)
        eventually(lambda: pool.stats().waiting == 1)
    waiting.result(LONG).release()
    metrics = sdk.metrics()
    assert {name: metrics[name].unit for name in CONVENTIONAL} == CONVENTIONAL
    for metric in metrics.values():
        assert metric.description
        for point in metric.data.data_points:
            assert point.attributes is not None
            assert point.attributes[POOL] == "orders"
            assert set(point.attributes) <= {POOL, STATE, "grpcpool.close.reason"}


def test_current_values(make_pool: PoolMaker, sdk: Sdk) -> None:
    """Values are those of the pool at the time of the collection."""
    pool = make_pool(FakeFactory(), name="orders", min_size=1, max_size=3)
    instrument(pool, sdk.provider)
    with pool.acquire(), pool.acquire():
        assert sdk.values("rpc.client.connection.count") == {"idle": 0, "used": 2}
        assert sdk.values("grpcpool.in_flight") == {"orders": 2}
    assert sdk.values("rpc.client.connection.count") == {"idle": 2, "used": 0}
    assert sdk.values("rpc.client.connection.max") == {"orders": 3}
    assert sdk.values("rpc.client.connection.idle.min") == {"orders": 1}
    with pool.acquire(), pool.acquire(), pool.acquire(), pytest.raises(PoolTimeoutError):
        pool.acquire(timeout=0)
    assert sdk.values("rpc.client.connection.timeouts") == {"orders": 1}
    pool.close()
    assert sdk.values("grpcpool.closed")["pool_closed"] == 3


def test_outages_and_failures_are_exported(sdk: Sdk) -> None:
    """A failed call is counted, and its connection avoided; a connection that is down is counted, too."""
    with Server() as server, grpcpool.insecure_channel(server.target, name="orders") as pool:
        instrument(pool, sdk.provider)
        with pytest.raises(grpc.RpcError):
            unary(pool, FAIL, b"INTERNAL")
        eventually(lambda: sdk.values("grpcpool.failures") == {"orders": 1})
        assert sdk.values("grpcpool.avoided") == {"orders": 1}
        assert (sdk.values("grpcpool.lost"), sdk.values("grpcpool.losses")) == ({"orders": 0}, {"orders": 0})
        server.kill()
        eventually(lambda: sdk.values("grpcpool.lost") == {"orders": 1})
        assert sdk.values("grpcpool.losses") == {"orders": 1}
        assert sdk.values("grpcpool.avoided") == {"orders": 0}
        assert sdk.values("rpc.client.connection.count") == {"idle": 0, "used": 0}


def test_one_collection_uses_one_snapshot(make_pool: PoolMaker, sdk: Sdk) -> None:
    """All values of a pool in one collection are from one snapshot; the next collection takes a new one."""
    pool = make_pool(FakeFactory(), name="orders", max_size=3)
    instrument(pool, sdk.provider)
    taken: list[int] = []
    stats = pool.stats

    def counted() -> PoolStats:
        taken.append(1)
        return stats()

    pool.stats = counted  # type: ignore[method-assign]
    for number in (1, 2, 3):
        sdk.metrics()
        assert len(taken) == number


_DURATIONS = {f"rpc.client.connection.{name}" for name in ("create_time", "wait_time", "use_time")}


def test_durations(make_pool: PoolMaker, sdk: Sdk, clock: ManualClock) -> None:
    """Durations are seconds: to open a connection, to wait for a place, and to hold a lease."""
    pool = make_pool(FakeFactory(), name="orders", max_size=1)
    instrument(pool, sdk.provider)
    pool.open()
    held = pool.acquire()
    waiting = background(pool.acquire)
    eventually(lambda: pool.stats().waiting == 1)
    clock.advance(2.0)
    held.release()
    waiting.result(LONG).release()
    # Another thread may still be emitting the first of them.
    eventually(lambda: sdk.metrics().keys() >= _DURATIONS and sdk.times("use_time") == (2, 2.0))
    assert sdk.times("create_time") == (1, 0.0)
    assert sdk.times("wait_time") == (1, 2.0)


def test_instrumenting_twice_does_nothing(make_pool: PoolMaker, sdk: Sdk) -> None:
    """A pool that is instrumented again is counted once, and several pools share the instruments."""
    first, second = (make_pool(FakeFactory(), name=name) for name in ("first", "second"))
    for pool in (first, first, second):
        instrument(pool, sdk.provider)
        pool.open()
    assert sdk.values("rpc.client.connection.max") == {"first": 10, "second": 10}
    points: Any = sdk.metrics()["rpc.client.connection.create_time"].data.data_points
    assert [point.count for point in points] == [1, 1]


def test_handles_on_a_pool_are_one_pool(sdk: Sdk, server: Server) -> None:
    """What happens in a shared pool is recorded once, however many of its handles are instrumented."""
    with grpcpool.shared_channel(server.target, name="orders") as one:
        for _ in range(3):
            with grpcpool.shared_channel(server.target, name="orders") as other:
                instrument(other, sdk.provider)
        instrument(one, sdk.provider)
        one.acquire(timeout=LONG).release()
        eventually(
            lambda: sdk.metrics().keys() >= {f"rpc.client.connection.{each}" for each in ("create_time", "use_time")}
        )
        assert sdk.times("use_time")[0] == 1
        assert sdk.times("create_time")[0] == 1
        assert len(one._observed._listeners) == 1


def test_asyncio_handles_on_a_pool_are_one_pool(sdk: Sdk, server: Server) -> None:
    """So they are where no loop runs, before and after each finds its pool."""
    handles = [grpcpool.aio.shared_channel(server.target, name="orders") for _ in range(2)]
    for handle in handles:
        instrument(handle, sdk.provider)
    assert sdk.values("rpc.client.connection.max") == {"orders": 10}

    async def live() -> None:
        for handle in handles:
            async with handle.acquire():
                assert sdk.values("rpc.client.connection.count") == {"idle": 0, "used": 1}
        assert sdk.values("grpcpool.acquired") == {"orders": 2}
        for handle in handles:
            await handle.close()

    asyncio.run(live())
    assert sdk.times("use_time")[0] == 2


@in_loop
async def test_asyncio_pools_too(sdk: Sdk) -> None:
    """An asyncio pool is instrumented like any other."""
    async with grpcpool.aio.ChannelPool(aio.FakeFactory(), PoolConfig(max_size=2), name="orders") as pool:
        instrument(pool, sdk.provider)
        async with pool.acquire():
            assert sdk.values("rpc.client.connection.count") == {"idle": 0, "used": 1}
        assert sdk.times("use_time")[0] == 1


def test_a_dropped_pool_is_not_exported(sdk: Sdk) -> None:
    """The instruments do not keep a pool alive."""
    pool = grpcpool.ChannelPool(FakeFactory(), name="orders")
    instrument(pool, sdk.provider)
    assert "grpcpool.in_flight" in sdk.metrics()
    del pool
    gc.collect()
    assert "grpcpool.in_flight" not in sdk.metrics()


def test_an_object_that_is_not_a_pool_is_rejected(sdk: Sdk) -> None:
    """The error names the expected type."""
    not_a_pool: Any = object()
    with pytest.raises(TypeError, match=r"^pool must be a grpcpool\.ChannelPool or a grpcpool\.aio\.ChannelPool"):
        instrument(not_a_pool, sdk.provider)


def test_a_finalizer_may_interrupt_the_sdk(make_pool: PoolMaker, sdk: Sdk) -> None:
    """A lease that a finalizer releases while the SDK collects does not wait for the lock that its thread holds."""
    pool = make_pool(FakeFactory(), name="orders")
    instrument(pool, sdk.provider)
    lines: set[tuple[int, int]] = set()

    def trace(frame: FrameType, _event: str, _argument: Any) -> Any:
        if frame.f_globals["__name__"] != "opentelemetry.sdk.metrics._internal.aggregation":
            return None
        # Each object has a lock of its own.
        line = (id(frame.f_locals.get("self")), frame.f_lineno)
        if line not in lines:
            lines.add(line)
            pool.acquire().release()
        return trace

    def collect() -> None:
        sys.settrace(trace)
        try:
            sdk.metrics()
        finally:
            sys.settrace(None)

    pool.acquire().release()
    # Until then another thread may emit the events.
    eventually(lambda: {f"rpc.client.connection.{name}_time" for name in ("create", "use")} <= sdk.metrics().keys())
    background(collect).result(LONG)
    pool.acquire().release()
    assert len(lines) > 50
    assert sdk.times("use_time")[0] == len(lines) + 2


class _OverPool(MetricExporter):
    """Exports over a pool; keeps how many uses of it have been recorded."""

    def __init__(self, pool: grpcpool.ChannelPool) -> None:
        super().__init__()
        self._pool = pool
        self.uses = 0

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **_: object) -> MetricExportResult:
        scopes = [scope for resource in metrics_data.resource_metrics for scope in resource.scope_metrics]
        for metric in (metric for scope in scopes for metric in scope.metrics):
            if metric.name == "rpc.client.connection.use_time":
                self.uses = sum(
                    point.count for point in metric.data.data_points if isinstance(point, HistogramDataPoint)
                )
        self._pool.acquire().release()
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_: object) -> None:
        """Nothing needs to be closed."""


def test_durations_of_the_exporters_own_pool(make_pool: PoolMaker) -> None:
    """A pool that nothing but the exporter uses has its durations recorded."""
    pool = make_pool(FakeFactory(), name="telemetry")
    pool.open()
    exporter = _OverPool(pool)
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, export_interval_millis=math.inf)])
    instrument(pool, provider)
    # Another thread may still be emitting the first events.
    eventually(lambda: provider.force_flush() and exporter.uses >= 4)
    provider.shutdown()


_FORKED = """
import os, threading
import grpcpool
from grpcpool.contrib.opentelemetry import instrument
from opentelemetry.metrics import NoOpMeterProvider

entered, go = threading.Event(), threading.Event()


class Slow(NoOpMeterProvider):
    def get_meter(self, *args, **kwargs):
        entered.set()
        go.wait(60)
        return super().get_meter(*args, **kwargs)


pool, slow = grpcpool.insecure_channel("localhost:1"), Slow()
thread = threading.Thread(target=instrument, args=(pool, slow))
thread.start()
entered.wait(60)
child = os.fork()
if not child:
    work = threading.Thread(target=instrument, args=(pool, NoOpMeterProvider()), daemon=True)
    work.start()
    work.join(20)
    os._exit(work.is_alive())
go.set()
thread.join()
assert os.waitpid(child, 0)[1] == 0
pool.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_forked_meanwhile_can_be_instrumented() -> None:
    """A child that is forked while another thread creates instruments can create its own."""
    run_python(_FORKED)
