"""Metrics for Prometheus, read by scrapes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import pathlib
import re
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families

import grpcpool.aio
from grpcpool import PoolConfig, PoolTimeoutError
from grpcpool.contrib.prometheus import DASHBOARD, PoolCollector
from grpcpool.testing import FakeChannel, FakeFactory, ManualClock, aio
from support.loops import in_loop
from support.pools import PoolMaker
from support.servers import ECHO, FAIL, RECONNECT_SOON, Server, dead_target, unary
from support.waiting import eventually

pytestmark = pytest.mark.timeout(30)

Samples = dict[tuple[str, tuple[str, ...]], float]

OUTAGE = """
sum without (state) (grpcpool_connections{state=~"idle|used"}) == 0
and ignoring (state)
(
  grpcpool_connections{state="lost"} > 0
  or rate(grpcpool_open_failures_total[5m]) > 0
  unless ignoring (reason) increase(grpcpool_closed_total{reason=~"idle|shrink"}[5m]) > 0
)
"""
"""The alert for a total outage, as it is in the guide."""


@pytest.fixture
def registry() -> CollectorRegistry:
    """An empty registry."""
    return CollectorRegistry()


@pytest.fixture
def url(registry: CollectorRegistry) -> Iterator[str]:
    """The address at which the registry is served."""
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


def test_a_scrape_has_the_pools_stats(make_pool: PoolMaker, registry: CollectorRegistry, url: str) -> None:
    """A scrape has each value of a pool, labelled with the pool's name and no unbounded label."""
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


def test_the_limit_of_streams_is_that_of_those_in_flight(
    make_pool: PoolMaker, registry: CollectorRegistry, url: str
) -> None:
    """While connections drain, what is in flight on them counts in both, so that one is never above the other."""
    pool = make_pool(FakeFactory(), name="orders", max_size=1, max_streams=10)
    registry.register(PoolCollector(pool))
    with pool.acquire(streams=8):
        pool.refresh()
        eventually(lambda: pool.stats().draining)
        with pool.acquire(streams=5):
            samples = _scrape(url)
    assert samples["grpcpool_in_flight", ("orders",)] == 13
    assert samples["grpcpool_streams_limit", ("orders",)] == 18


def test_counters_continue(make_pool: PoolMaker, registry: CollectorRegistry, url: str) -> None:
    """Later scrapes include what happened since, timeouts included."""
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


def test_handles_on_a_pool_are_one_pool(registry: CollectorRegistry, url: str, server: Server) -> None:
    """A shared pool counts once, however many of its handles are watched, and as long as one of them is there."""
    with grpcpool.shared_channel(server.target, name="orders") as one:
        other: Any = grpcpool.shared_channel(server.target, name="orders")
        registry.register(PoolCollector(one, other))
        unary(one, ECHO, b"")
        assert _scrape(url)["grpcpool_acquired_total", ("orders",)] == 1
        other.close()
        del other
        gc.collect()
        assert _scrape(url)["grpcpool_acquired_total", ("orders",)] == 1


def test_asyncio_handles_on_a_pool_are_one_pool(registry: CollectorRegistry, url: str, server: Server) -> None:
    """So they are where no loop runs, before and after each finds its pool, and after one of them is dropped."""
    handles: list[Any] = [grpcpool.aio.shared_channel(server.target, name="orders") for _ in range(3)]
    registry.register(PoolCollector(*handles))

    async def live() -> list[tuple[float, float]]:
        seen = [_acquired_and_max(url)]
        for handle in handles[:2]:
            await handle.unary_unary(ECHO)(b"")
            seen.append(_acquired_and_max(url))
        del handle, handles[1:]
        gc.collect()
        seen.append(_acquired_and_max(url))
        await handles[0].close()
        return seen

    assert asyncio.run(live()) == [(0, 10), (1, 10), (2, 10), (2, 10)]


def test_a_handle_that_finds_another_pool_leaves_its_counters_there(
    registry: CollectorRegistry, url: str, server: Server
) -> None:
    """What others did on the pool that it had for the time being no longer counts, also when that is collected."""
    with grpcpool.ChannelPool(FakeFactory(), name="orders") as lasting:
        first, second = (grpcpool.aio.shared_channel(server.target, name="orders") for _ in range(2))
        registry.register(PoolCollector(lasting, second))

        async def use(handle: Any, calls: int) -> float:
            for _ in range(calls):
                await handle.unary_unary(ECHO)(b"")
            return _acquired_and_max(url)[0]

        with asyncio.Runner() as loop:
            assert loop.run(use(first, 2)) == 2
            assert asyncio.run(use(second, 1)) == 1
        del first
        gc.collect()
        assert _acquired_and_max(url)[0] == 1
        del second
        gc.collect()
        assert _acquired_and_max(url)[0] == 1


def _acquired_and_max(url: str) -> tuple[float, float]:
    samples = _scrape(url)
    return samples["grpcpool_acquired_total", ("orders",)], samples["grpcpool_connections_max", ("orders",)]


def test_pools_of_one_name_are_added_up(make_pool: PoolMaker, registry: CollectorRegistry, url: str) -> None:
    """Pools with equal names are one series; pools can be added later."""
    collector = PoolCollector()
    registry.register(collector)
    for size in (1, 2):
        pool = make_pool(FakeFactory(), name="orders", min_size=size, max_size=5)
        pool.open()
        collector.watch(pool)
    samples = _scrape(url)
    assert samples["grpcpool_connections", ("orders", "idle")] == 3
    assert samples["grpcpool_connections_max", ("orders",)] == 10


def test_counters_do_not_go_back(registry: CollectorRegistry, url: str) -> None:
    """What a pool had counted stays in the sum when it is collected, while another pool has its name."""
    collector = PoolCollector()
    registry.register(collector)
    with grpcpool.ChannelPool(FakeFactory(), name="orders") as lasting:
        collector.watch(lasting)
        for count in (1, 2):
            with grpcpool.ChannelPool(FakeFactory(), name="orders") as pool:
                collector.watch(pool)
                with pool.acquire():
                    assert _scrape(url)["grpcpool_acquired_total", ("orders",)] == count
            _scrape(url)
            del pool
            gc.collect()
            samples = _scrape(url)
            assert samples["grpcpool_acquired_total", ("orders",)] == count
            assert samples["grpcpool_closed_total", ("orders", "pool_closed")] == count
            assert samples["grpcpool_connections_max", ("orders",)] == lasting.stats().max_size
    del lasting
    gc.collect()
    assert not _scrape(url)


def test_what_is_taken_back_shows_no_counter_that_goes_back(
    make_pool: PoolMaker, registry: CollectorRegistry, url: str
) -> None:
    """A lease whose connection is found to be down is taken back: for a moment the pool has counted less."""
    pool = make_pool(FakeFactory(), name="orders")
    registry.register(PoolCollector(pool))
    lease = pool.acquire()
    assert _scrape(url)["grpcpool_acquired_total", ("orders",)] == 1
    pool._driver.machine.grants.uncount(lease._slot, None)
    assert pool.stats().acquired == 0
    assert _scrape(url)["grpcpool_acquired_total", ("orders",)] == 1
    lease.release()


def test_a_closed_pool_has_no_bounds(make_pool: PoolMaker, registry: CollectorRegistry, url: str) -> None:
    """A closed pool that is still referenced has its counters, but adds nothing to the bounds of its name."""
    closed, other = (make_pool(FakeFactory(), name="orders", min_size=1, max_size=3) for _ in range(2))
    registry.register(PoolCollector(closed, other))
    closed.open()
    closed.close()
    samples = _scrape(url)
    assert samples["grpcpool_connections_max", ("orders",)] == 3
    assert samples["grpcpool_connections_min", ("orders",)] == 1
    assert samples["grpcpool_opened_total", ("orders",)] == 1


def test_any_name_is_a_label(make_pool: PoolMaker, registry: CollectorRegistry, url: str) -> None:
    """What UTF-8 cannot encode in a name is escaped; other characters stay."""
    registry.register(PoolCollector(make_pool(FakeFactory(), name="caf\u00e9 \ud800")))
    assert ("grpcpool_connections_max", ("caf\u00e9 \\ud800",)) in _scrape(url)


@in_loop
async def test_asyncio_pools_too(registry: CollectorRegistry, url: str) -> None:
    """An asyncio pool is collected like any other, from another thread."""
    async with grpcpool.aio.ChannelPool(aio.FakeFactory(), PoolConfig(max_size=2), name="orders") as pool:
        registry.register(PoolCollector(pool))
        async with pool.acquire():
            assert _scrape(url)["grpcpool_in_flight", ("orders",)] == 1


def _is_out(first: Samples, last: Samples, pool: str) -> bool:
    """Whether `OUTAGE` holds for a pool at the last of some scrapes within five minutes."""
    connections = {labels[1]: value for (name, labels), value in last.items() if name == "grpcpool_connections"}

    def increase(name: str, *labels: str) -> float:
        return last[name, (pool, *labels)] - first[name, (pool, *labels)]

    failed = increase("grpcpool_open_failures_total") > 0
    rests = any(increase("grpcpool_closed_total", reason) > 0 for reason in ("idle", "shrink"))
    return connections["idle"] + connections["used"] == 0 and (connections["lost"] > 0 or (failed and not rests))


@pytest.mark.parametrize("calls", [True, False], ids=["calls", "idle"])
def test_the_alert_for_an_outage_fires(*, calls: bool, registry: CollectorRegistry, url: str) -> None:
    """When the server is gone it holds within seconds, with calls or without; when it is back, it ends."""
    guide = pathlib.Path(__file__).parents[2] / "docs" / "howto" / "metrics.md"
    assert " ".join(OUTAGE.split()) in " ".join(guide.read_text(encoding="utf-8").split())
    with Server() as server, grpcpool.insecure_channel(server.target, RECONNECT_SOON, name="orders") as pool:
        registry.register(PoolCollector(pool))
        unary(pool, ECHO, b"1")
        first = _scrape(url)
        assert not _is_out(first, first, "orders")

        def is_out() -> bool:
            if calls:
                with contextlib.suppress(grpc.RpcError):
                    unary(pool, ECHO, b"1")
            return _is_out(first, _scrape(url), "orders")

        server.kill()
        eventually(is_out, 3.0, pause=0.1)
        assert _scrape(url)["grpcpool_losses_total", ("orders",)] >= 1
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            assert is_out(), _scrape(url)
            time.sleep(0.1)
        server.restart()
        eventually(lambda: not is_out(), 5.0, pause=0.1)


def test_the_alert_for_an_outage_fires_if_nothing_was_ever_up(registry: CollectorRegistry, url: str) -> None:
    """A pool with a `prime`, which keeps no channel that does not connect, shows the outage, too."""
    with dead_target() as target:
        config = PoolConfig(prime=lambda channel: None)
        with grpcpool.insecure_channel(target, RECONNECT_SOON, config=config, name="orders") as pool:
            registry.register(PoolCollector(pool))
            first = _scrape(url)
            with pytest.raises(grpc.RpcError):
                unary(pool, ECHO, b"1")
            assert _is_out(first, _scrape(url), "orders")


def test_the_alert_for_an_outage_spares_a_pool_at_rest(
    make_pool: PoolMaker, clock: ManualClock, registry: CollectorRegistry, url: str
) -> None:
    """A pool whose growth failed once, and which later closed its last connection as idle, is not in an outage."""
    made: list[FakeChannel] = []

    def factory() -> FakeChannel:
        if made:
            raise OSError("refused")
        made.append(FakeChannel())
        return made[0]

    sizes: dict[str, Any] = {"min_size": 0, "max_size": 2, "max_streams": 2, "target_streams": 1, "idle_timeout": 10.0}
    pool = make_pool(factory, name="orders", **sizes)
    registry.register(PoolCollector(pool))
    first = _scrape(url)
    with pool.acquire(streams=1), pool.acquire(streams=1):
        eventually(lambda: pool.stats().open_failures)
    clock.advance(1000.0)
    eventually(lambda: pool.stats().closed["idle"])
    last = _scrape(url)
    assert last["grpcpool_open_failures_total", ("orders",)] > 0
    assert last["grpcpool_connections", ("orders", "idle")] == 0
    assert not _is_out(first, last, "orders")


def test_failures_and_avoided_connections_are_exported(
    registry: CollectorRegistry, url: str, server: Server, make_pool: PoolMaker
) -> None:
    """A call that fails as on a sick server is counted, and its connection is avoided for a while."""
    pool = make_pool(server.channel, name="orders")
    registry.register(PoolCollector(pool))
    with pytest.raises(grpc.RpcError):
        unary(pool, FAIL, b"INTERNAL")
    eventually(lambda: pool.stats().failures)
    samples = _scrape(url)
    assert samples["grpcpool_failures_total", ("orders",)] == 1
    assert samples["grpcpool_avoided", ("orders",)] == 1
    assert samples["grpcpool_losses_total", ("orders",)] == 0


def test_a_dropped_pool_is_not_collected(registry: CollectorRegistry, url: str) -> None:
    """The collector does not keep a pool alive."""
    pool = grpcpool.ChannelPool(FakeFactory(), name="orders")
    registry.register(PoolCollector(pool))
    del pool
    gc.collect()
    assert _scrape(url) == {}


def test_an_object_that_is_not_a_pool_is_rejected() -> None:
    """The error names the expected type."""
    not_a_pool: Any = object()
    with pytest.raises(TypeError, match=r"^pool must be a grpcpool\.ChannelPool or a grpcpool\.aio\.ChannelPool"):
        PoolCollector(not_a_pool)


def test_the_dashboard_shows_all_metrics(make_pool: PoolMaker) -> None:
    """It uses all of the collector's metrics; its panels have titles and descriptions and do not overlap."""
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [variable["query"] for variable in dashboard["templating"]["list"]]
    named = set(re.findall(r"grpcpool_\w+", " ".join(expressions)))
    collected = PoolCollector(make_pool(FakeFactory())).collect()
    exported = {metric.name + ("_total" if metric.type == "counter" else "") for metric in collected}
    assert named == exported
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    cells = [(place["x"] + x, place["y"]) for place in places for x in range(place["w"])]
    assert len(cells) == len(set(cells))
    assert all(panel["title"] and panel["description"] for panel in dashboard["panels"])
