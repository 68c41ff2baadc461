"""The inspector's JSON, over real servers."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import json
import os
import re
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable
from typing import Any

import grpc
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

import grpcpool.aio
from grpcpool import ChannelPool, Listener, PoolConfig, PoolStats, PoolTimeoutError, isolated
from grpcpool.contrib.inspector import EventDocument, Inspector, PoolsDocument
from grpcpool.events import Opening
from support.fakes import HangingFactory
from support.pools import PoolMaker
from support.servers import ECHO, FAIL, RECONNECT_SOON, SLOW, Server, unary
from support.waiting import LONG, eventually


def mounted(inspector: Inspector, **how: Any) -> TestClient:
    """Returns a client of a service that mounts the inspector under a prefix."""
    return TestClient(Starlette(routes=[Mount("/inner/pools", inspector)], **how))


def fetch(inspector: Inspector) -> PoolsDocument:
    """Returns the inspector's JSON."""
    response = mounted(inspector).get("/inner/pools/pools")
    assert response.status_code == 200
    document: PoolsDocument = response.json()
    return document


def expected(stats: PoolStats) -> dict[str, Any]:
    """Returns the snapshot as it should be in the JSON."""
    figures: dict[str, Any] = {
        field.name: getattr(stats, field.name)
        for field in dataclasses.fields(PoolStats)
        if field.name not in ("closed", "channels", "taken_at")
    }
    figures["closed"] = {str(reason): number for reason, number in stats.closed.items()}
    figures["channels"] = [
        {
            "id": channel.id,
            "state": str(channel.state),
            "reason": None,
            "address": channel.address,
            "in_flight": channel.in_flight,
            "limit": channel.limit,
            "exclusive": channel.exclusive,
            "avoided": channel.avoided,
            "failures": channel.failures,
            "created_at": channel.created_at.timestamp(),
            "used_at": channel.used_at.timestamp(),
            "calls": channel.calls,
        }
        for channel in stats.channels
    ]
    return figures


def test_the_json_has_the_pools_stats(held: ChannelPool) -> None:
    """The JSON has the values of `stats()`: 7 in flight, 2 waiting, each connection."""
    document = fetch(Inspector(held))
    (pool,) = document["pools"]
    assert pool["stats"] == expected(held.stats())
    assert pool["stats"] is not None
    assert (pool["stats"]["in_flight"], pool["stats"]["waiting"]) == (7, 2)
    assert (pool["name"], pool["kind"], pool["state"]) == ("held", "threads", "open")
    assert (pool["timeline"]["in_flight"], pool["timeline"]["waiting"]) == ([7], [2])
    assert document["process"]["pid"] == os.getpid()


def test_the_json_has_waits_and_troubles(held: ChannelPool) -> None:
    """The JSON has the waits with their percentiles, and the counters of failures, timeouts and rejections."""
    inspector = Inspector(held)
    with pytest.raises(PoolTimeoutError):
        held.acquire(timeout=0.05)
    eventually(lambda: fetch(inspector)["pools"][0]["waits"]["timed_out"])
    (pool,) = fetch(inspector)["pools"]
    timeline, waits = pool["timeline"], pool["waits"]
    assert (timeline["failures"][-1], timeline["timeouts"][-1], timeline["rejected"][-1]) == (0, 1, 0)
    # The fixture's own calls may have waited for the connection.
    assert 1 <= waits["count"] <= 8
    assert waits["timed_out"] == 1
    assert waits["p99"] is not None
    assert 0.05 <= waits["p99"] < 5
    assert 0 < waits["seconds"] < 300
    event = pool["events"][-1]
    assert (event["kind"], event["channel"], event["address"]) == ("timed_out", None, None)


def test_an_asyncio_pool_is_shown(server: Server) -> None:
    """An asyncio pool is shown the same way, when the inspector runs on the pool's own loop."""

    async def live() -> None:
        def factory() -> grpc.aio.Channel:
            return grpc.aio.insecure_channel(server.target, isolated())

        config = PoolConfig(max_size=1, max_streams=2, acquire_timeout=20)
        async with grpcpool.aio.ChannelPool(factory, config, name="twin") as pool:
            await pool.unary_unary(ECHO)(b"1")
            calls = [asyncio.ensure_future(pool.unary_unary(SLOW)(b"2000")) for _ in range(3)]
            while (pool.stats().in_flight, pool.stats().waiting) != (2, 1):  # noqa: ASYNC110 -- a real server
                await asyncio.sleep(0.005)
            transport = httpx2.ASGITransport(Inspector(pool))
            async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
                (shown,) = (await client.get("/pools")).json()["pools"]
            assert shown["stats"] == expected(pool.stats())
            assert (shown["name"], shown["kind"], shown["state"]) == ("twin", "asyncio", "open")
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    asyncio.run(live())


def test_handles_on_a_pool_are_one_pool(server: Server) -> None:
    """A shared pool is shown once, and is followed once, however many of its handles are watched."""
    with grpcpool.shared_channel(server.target, name="orders") as one:
        inspector = Inspector(one)
        for _ in range(3):
            with grpcpool.shared_channel(server.target, name="orders") as other:
                inspector.watch(other)
        assert [pool["name"] for pool in inspector.document()["pools"]] == ["orders"]
        assert len(one._observed._listeners) == 1


def test_asyncio_handles_on_a_pool_are_one_pool(server: Server) -> None:
    """So they are where no loop runs, before and after one of them finds its pool."""
    handles = [grpcpool.aio.shared_channel(server.target, name="orders") for _ in range(2)]
    inspector = Inspector(*handles)

    def acquired() -> list[int]:
        return [pool["stats"]["acquired"] for pool in fetch(inspector)["pools"] if pool["stats"] is not None]

    async def live() -> None:
        await handles[0].unary_unary(ECHO)(b"1")
        for handle in handles:
            await handle.close()

    assert acquired() == [0]
    asyncio.run(live())
    assert acquired() == [1]


def test_several_pools_keep_their_order(server: Server, make_pool: PoolMaker) -> None:
    """Pools are shown in the order in which they were added, once each, even with equal names."""
    first, second, third = (make_pool(server.channel, name=name) for name in ("same", "same", "later"))
    inspector = Inspector(first, second)
    inspector.watch(third)
    inspector.watch(first)
    assert [(pool["id"], pool["name"]) for pool in fetch(inspector)["pools"]] == [
        (1, "same"),
        (2, "same"),
        (3, "later"),
    ]


@pytest.mark.parametrize(
    "name", ["", "<b onload=x>&amp;", "caf\u00e9\u202e\U0001f4a5", "\ud800", "a\n\0b", "x" * 10_000], ids=ascii
)
def test_any_name_is_shown_unchanged(name: str, server: Server, make_pool: PoolMaker) -> None:
    """The JSON has any name unchanged, and still has the other pools."""
    inspector = Inspector(make_pool(server.channel, name=name), make_pool(server.channel, name="other"))
    assert [pool["name"] for pool in fetch(inspector)["pools"]] == [name, "other"]


def test_settings_are_shown(server: Server, make_pool: PoolMaker) -> None:
    """The JSON has the pool's settings; for `prime`, whether there is one."""
    pool = make_pool(server.channel, max_size=3, max_streams=18, prime=lambda channel: None)
    (shown,) = fetch(Inspector(pool))["pools"]
    config = shown["config"]
    assert config.keys() == {field.name for field in dataclasses.fields(PoolConfig)}
    assert (config["max_size"], config["target_streams"], config["mode"], config["prime"]) == (3, 10, "strict", True)


class _RefreshedMeanwhile(ChannelPool):
    """Begins to replace its connections after each snapshot, and before that is returned."""

    meanwhile: Callable[[], object] = staticmethod(lambda: None)

    def stats(self) -> PoolStats:
        """Returns the snapshot."""
        taken = super().stats()
        self.meanwhile()
        return taken


def test_what_happens_after_a_snapshot_is_not_forgotten() -> None:
    """A connection that begins to open while the pool is read is shown with the one that it replaces."""
    factory = HangingFactory()
    factory.go.set()
    with _RefreshedMeanwhile(factory, PoolConfig(min_size=1, max_size=1)) as pool:
        pool.open()
        inspector, begun = Inspector(pool), threading.Event()
        pool.add_listener(_Begun(begun))

        def refresh() -> None:
            pool.refresh()
            assert begun.wait(LONG)

        factory.go.clear()
        pool.meanwhile = refresh
        inspector.document()
        del pool.meanwhile
        factory.go.set()
        event = eventually(lambda: [each for each in _events(inspector) if each["kind"] == "opened"])[0]
        assert event["details"]["replaces"] is not None


class _Begun(Listener):
    def __init__(self, begun: threading.Event) -> None:
        self._begun = begun

    def opening(self, event: Opening) -> None:
        self._begun.set()


def _events(inspector: Inspector) -> list[EventDocument]:
    (pool,) = inspector.document()["pools"]
    return pool["events"]


def test_events_come_with_reasons(server: Server, make_pool: PoolMaker) -> None:
    """Events since the pool was added are shown with their reasons."""
    pool = make_pool(server.channel)
    inspector = Inspector(pool)
    unary(pool, ECHO, b"1")
    pool.refresh()
    # Events are counted before they are emitted.
    eventually(lambda: len(fetch(inspector)["pools"][0]["events"]) == 3)
    (shown,) = fetch(inspector)["pools"]
    events = [(event["kind"], event["channel"]) for event in shown["events"]]
    assert events == [("opened", 1), ("opened", 2), ("closed", 1)]
    assert shown["events"][1]["details"]["replaces"] == 1
    assert shown["events"][2]["details"] == {"reason": "refresh", "cancelled": 0}


def test_a_connect_error_has_grpcs_message(dead_channel: Callable[[], grpc.Channel]) -> None:
    """A failure to connect is shown with gRPC's message."""
    with ChannelPool(dead_channel, PoolConfig(connect_timeout=5)) as pool:
        inspector = Inspector(pool)
        with pytest.raises(grpc.RpcError):
            unary(pool, ECHO, b"1")
        event = eventually(lambda: fetch(inspector)["pools"][0]["events"])[0]
    assert event["kind"] == "open_failed"
    assert "onnect" in str(event["details"]["error"])


def test_an_outage_is_shown() -> None:
    """When the server is gone, the pool is down, each connection is lost, and the events say so."""
    with Server() as server, grpcpool.insecure_channel(server.target, RECONNECT_SOON, name="orders") as pool:
        inspector = Inspector(pool)
        unary(pool, ECHO, b"1")
        (shown,) = fetch(inspector)["pools"]
        assert shown["stats"] is not None
        assert (shown["down"], shown["stats"]["target"]) == (False, server.target)
        assert [channel["address"] for channel in shown["stats"]["channels"]] == [server.target]
        server.kill()
        eventually(lambda: fetch(inspector)["pools"][0]["down"])
        (shown,) = fetch(inspector)["pools"]
        assert shown["stats"] == expected(pool.stats())
        assert shown["stats"] is not None
        assert [channel["state"] for channel in shown["stats"]["channels"]] == ["lost"]
        eventually(lambda: fetch(inspector)["pools"][0]["events"][-1]["kind"] == "lost")
        assert fetch(inspector)["pools"][0]["events"][-1]["details"]["up"] == 0
        server.restart()
        eventually(lambda: fetch(inspector)["pools"][0]["events"][-1]["kind"] in ("recovered", "opened", "closed"))
        eventually(lambda: not fetch(inspector)["pools"][0]["down"])


def test_a_pool_that_was_never_up_is_down(dead_channel: Callable[[], grpc.Channel]) -> None:
    """A pool with a `prime`, which keeps no channel that does not connect, is down when an attempt has failed."""
    with ChannelPool(dead_channel, PoolConfig(prime=lambda channel: None)) as pool:
        inspector = Inspector(pool)
        assert not fetch(inspector)["pools"][0]["down"]
        with pytest.raises(grpc.RpcError):
            unary(pool, ECHO, b"1")
        eventually(lambda: fetch(inspector)["pools"][0]["down"])
    assert not fetch(inspector)["pools"][0]["down"]


def test_an_avoided_connection_is_shown(server: Server, make_pool: PoolMaker) -> None:
    """A connection on which a call failed as on a sick server is marked, with its failures."""
    pool = make_pool(server.channel)
    inspector = Inspector(pool)
    with pytest.raises(grpc.RpcError):
        unary(pool, FAIL, b"INTERNAL")
    eventually(lambda: fetch(inspector)["pools"][0]["events"][-1]["kind"] == "avoided")
    (shown,) = fetch(inspector)["pools"]
    assert shown["stats"] is not None
    assert [(each["avoided"], each["failures"]) for each in shown["stats"]["channels"]] == [(True, 1)]
    assert (shown["stats"]["avoided"], shown["stats"]["failures"], shown["down"]) == (1, 1, False)
    assert shown["events"][-1]["details"] == {"code": "INTERNAL"}


def test_a_draining_connection_has_its_reason(held: ChannelPool) -> None:
    """A draining connection is shown with the reason while it carries calls."""
    inspector = Inspector(held)
    held.refresh()

    def reasons() -> list[str | None]:
        (shown,) = fetch(inspector)["pools"]
        assert shown["stats"] is not None
        return [channel["reason"] for channel in shown["stats"]["channels"]]

    # A connection is counted as draining before its event is emitted.
    eventually(lambda: "refresh" in reasons())


def test_a_closed_pool_is_shown_as_closed(server: Server) -> None:
    """A closed pool that is still referenced is shown as closed, with its last stats."""
    pool = ChannelPool(server.channel)
    unary(pool, ECHO, b"1")
    pool.close()
    (shown,) = fetch(Inspector(pool))["pools"]
    assert shown["state"] == "closed"
    assert shown["stats"] is not None
    assert shown["stats"]["closed"]["pool_closed"] == 1


def test_a_dropped_pool_disappears(server: Server) -> None:
    """The inspector does not keep a pool alive, and forgets a collected pool completely."""
    pool = ChannelPool(server.channel)
    inspector = Inspector(pool)
    unary(pool, ECHO, b"1")
    assert len(fetch(inspector)["pools"]) == 1
    gone = weakref.ref(pool)
    del pool
    eventually(lambda: gc.collect() is not None and gone() is None)
    assert fetch(inspector)["pools"] == []
    assert inspector._inspected == {}


def test_a_dropped_inspector_is_collected(server: Server, make_pool: PoolMaker) -> None:
    """A pool does not keep an inspector alive."""
    pool = make_pool(server.channel)
    inspector = Inspector(pool)
    gone = weakref.ref(inspector)
    del inspector
    eventually(lambda: gc.collect() is not None and gone() is None)
    unary(pool, ECHO, b"1")


def test_the_lifespan_takes_samples(server: Server, make_pool: PoolMaker) -> None:
    """With the lifespan, samples are taken without requests; after it, no more are taken."""
    pool = make_pool(server.channel)
    inspector = Inspector(pool, every=0.01, keep=10.0)
    (inspected,) = inspector._inspected.values()
    with mounted(inspector, lifespan=inspector.lifespan):
        eventually(lambda: len(inspected._history.samples()) > 3)
    taken = len(inspected._history.samples())
    assert len(fetch(inspector)["pools"][0]["timeline"]["at"]) in (taken, taken + 1)
    with TestClient(inspector):
        eventually(lambda: len(inspected._history.samples()) > taken + 3)


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("", "text/html"),
        ("page.css", "text/css"),
        ("page.js", "text/javascript"),
        ("connections.js", "text/javascript"),
        ("icon.svg", "image/svg+xml"),
        ("pools", "application/json"),
    ],
)
def test_it_is_read_only(path: str, media_type: str) -> None:
    """Under a prefix, every file is served with restrictive headers, is not cached, and rejects other methods."""
    client = mounted(Inspector())
    response = client.get(f"/inner/pools/{path}")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith(media_type)
    assert response.headers["content-security-policy"].startswith(
        "default-src 'none'; script-src 'self'; style-src 'self'"
    )
    assert "unsafe" not in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-store"
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        refused = client.request(method, f"/inner/pools/{path}")
        assert refused.status_code == 405
        assert refused.headers["content-security-policy"] == response.headers["content-security-policy"]


def test_the_page_refers_only_to_its_own_files() -> None:
    """The page's files contain no absolute addresses."""
    client = mounted(Inspector())
    modules = ("card.js", "charts.js", "connections.js", "elements.js", "events.js", "page.js", "text.js")
    for name in ("", "page.css", *modules):
        text = client.get(f"/inner/pools/{name}").text.replace("http://www.w3.org/2000/svg", "")
        assert re.findall(r"(?:https?:)?//[\w.]+\.\w+|(?:href|src)=\"/", text) == []


def test_invalid_arguments_are_rejected() -> None:
    """Objects that are not pools, and invalid settings, raise an error with the reason."""
    with pytest.raises(TypeError, match=r"must be a grpcpool\.ChannelPool or a grpcpool\.aio\.ChannelPool, not 1"):
        Inspector(1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="every = 0: must be seconds, greater than 0"):
        Inspector(every=0)
    with pytest.raises(ValueError, match=r"keep = 0\.5: must be seconds, at least every \(1\.0\)"):
        Inspector(keep=0.5)


_FORKING = """
    import asyncio, json, os, sys
    import grpc, grpcpool.aio
    from grpcpool.contrib.inspector import Inspector

    pool = grpcpool.insecure_channel(sys.argv[1], name="threads")
    twin = grpcpool.aio.insecure_channel(sys.argv[1], name="asyncio")
    inspector = Inspector(pool, twin)
    pool.unary_unary("/test.Test/Echo")(b"1", timeout=20)

    async def use_twin():
        await twin.unary_unary("/test.Test/Echo")(b"1", timeout=20)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(use_twin())
    assert inspector.document()["pools"][0]["events"]
    child = os.fork()
    if child == 0:
        document = inspector.document()
        sys.stdout.write(json.dumps([os.getpid(), os.getppid(), document]))
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    pool.close()
    loop.run_until_complete(twin.close())
    loop.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_worker_shows_its_own_pools(server: Server) -> None:
    """A forked worker names its own process and shows its own pools; asyncio pools are void there."""
    script = textwrap.dedent(_FORKING)
    command = [sys.executable, "-c", script, server.target]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout  # noqa: S603 -- our own
    child, _, document = json.loads(output)
    assert document["process"]["pid"] == child
    threads, twin = document["pools"]
    assert (threads["state"], threads["events"], threads["stats"]["size"]) == ("open", [], 0)
    assert (twin["state"], twin["stats"], twin["events"]) == ("void", None, [])
