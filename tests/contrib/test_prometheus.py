"""Metrics for Prometheus, tested by scraping."""

from __future__ import annotations

import gc
import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

import grpcpool.aio
from grpcpool import PoolConfig, PoolTimeoutError
from grpcpool.contrib.prometheus import DASHBOARD, PoolCollector
from grpcpool.testing import FakeFactory, aio
from support.loops import in_loop
from support.pools import PoolMaker

pytestmark = pytest.mark.timeout(30)

Samples = dict[tuple[str, tuple[str, ...]], float]


@pytest.fixture
def registry() -> CollectorRegistry:
    """An empty registry."""
    return CollectorRegistry()


@pytest.fixture
def url(registry: CollectorRegistry) -> Iterator[str]:
    """The URL at which the registry is served."""
    server, thread = start_http_server(0, "127.0.0.1", registry)
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    server.server_close()
    thread.join()


def _scrape(url: str) -> Samples:
    with urllib.request.urlopen(url) as response:  # noqa: S310 -- our own
        text = response.read().decode()
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_figures_of_a_scrape(make_pool: PoolMaker, registry: CollectorRegistry, url: str) -> None:
    """Each figure of a pool is there, with the pool's name as its only label of unbounded values."""
    pool = make_pool(FakeFactory(), name="orders", max_size=3, max_streams=10)
    registry.register(PoolCollector(pool))
    with pool.acquire(), pool.acquire(streams=2):
        samples = _scrape(url)
    stats = pool.stats()
    assert samples["grpcpool_connections", ("orders", "used")] == 2
    assert samples["grpcpool_connections", ("orders", "idle")] == 0
    assert samples["grpcpool_connections_max", ("orders",)] == 3
    assert samples["grpcpool_in_flight", ("orders",)] == 3
    assert samples["grpcpool_streams_limit", ("orders",)] == 20
    assert samples["grpcpool_acquired_total", ("orders",)] == stats.acquired == 2
    assert samples["grpcpool_opened_total", ("orders",)] == 2
    assert {labels[1] for name, labels in samples if name == "grpcpool_closed_total"} == set(stats.closed)
    assert {labels[0] for _, labels in samples} == {"orders"}


def test_counters_go_on(make_pool: PoolMaker, registry: CollectorRegistry, url: str) -> None:
    """Later scrapes show what has happened since, timeouts included."""
    pool = make_pool(FakeFactory(), name="orders", max_size=1)
    registry.register(PoolCollector(pool))
    with pool.acquire(), pytest.raises(PoolTimeoutError):
        pool.acquire(timeout=0)
    assert _scrape(url)["grpcpool_timeouts_total", ("orders",)] == 1
    pool.refresh()
    pool.close()
    samples = _scrape(url)
    assert samples["grpcpool_connections", ("orders", "idle")] == 0
    assert sum(value for (name, _), value in samples.items() if name == "grpcpool_closed_total") == pool.stats().opened


def test_pools_of_one_name_are_added_up(make_pool: PoolMaker, registry: CollectorRegistry, url: str) -> None:
    """Pools of one name are added up, because Prometheus takes each series once; pools may be added later."""
    collector = PoolCollector()
    registry.register(collector)
    for size in (1, 2):
        pool = make_pool(FakeFactory(), name="orders", min_size=size, max_size=5)
        pool.open()
        collector.watch(pool)
    samples = _scrape(url)
    assert samples["grpcpool_connections", ("orders", "idle")] == 3
    assert samples["grpcpool_connections_max", ("orders",)] == 10


@in_loop
async def test_asyncio_pools_too(registry: CollectorRegistry, url: str) -> None:
    """An asyncio pool is reported like any other, from another thread."""
    async with grpcpool.aio.ChannelPool(aio.FakeFactory(), PoolConfig(max_size=2), name="orders") as pool:
        registry.register(PoolCollector(pool))
        async with pool.acquire():
            assert _scrape(url)["grpcpool_in_flight", ("orders",)] == 1


def test_a_dropped_pool_is_not_reported(registry: CollectorRegistry, url: str) -> None:
    """The collector does not keep a pool alive."""
    pool = grpcpool.ChannelPool(FakeFactory(), name="orders")
    registry.register(PoolCollector(pool))
    del pool
    gc.collect()
    assert _scrape(url) == {}


def test_anything_but_a_pool_is_refused() -> None:
    """Anything but a pool is refused at once, by name."""
    not_a_pool: Any = object()
    with pytest.raises(TypeError, match="ChannelPool"):
        PoolCollector(not_a_pool)


def test_the_dashboard_shows_existing_metrics(make_pool: PoolMaker) -> None:
    """Each metric in it is one of the collector's; each panel has a title and overlaps no other."""
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [variable["query"] for variable in dashboard["templating"]["list"]]
    named = set(re.findall(r"grpcpool_\w+", " ".join(expressions)))
    collected = PoolCollector(make_pool(FakeFactory())).collect()
    names = {metric.name + ("_total" if metric.type == "counter" else "") for metric in collected}
    assert named == names
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    cells = [(place["x"] + x, place["y"]) for place in places for x in range(place["w"])]
    assert len(cells) == len(set(cells))
    assert all(panel["title"] and panel["description"] for panel in dashboard["panels"])
