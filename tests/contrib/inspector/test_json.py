"""The inspector's answers, over real servers."""

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
from grpcpool import ChannelPool, PoolConfig, PoolStats, isolated
from grpcpool.contrib.inspector import Inspector, PoolsDocument
from support.pools import PoolMaker
from support.servers import ECHO, SLOW, Server, unary
from support.waiting import eventually


def mounted(inspector: Inspector, **how: Any) -> TestClient:
    """A client of a service that has the page under a prefix."""
    return TestClient(Starlette(routes=[Mount("/inner/pools", inspector)], **how))


def ask(inspector: Inspector) -> PoolsDocument:
    """The inspector's answer."""
    answer = mounted(inspector).get("/inner/pools/pools")
    assert answer.status_code == 200
    document: PoolsDocument = answer.json()
    return document


def expected(stats: PoolStats) -> dict[str, Any]:
    """The figures as JSON has them."""
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
            "in_flight": channel.in_flight,
            "limit": channel.limit,
            "exclusive": channel.exclusive,
            "created_at": channel.created_at.timestamp(),
            "used_at": channel.used_at.timestamp(),
            "calls": channel.calls,
        }
        for channel in stats.channels
    ]
    return figures


def test_the_figures_are_the_pools(held: ChannelPool) -> None:
    """In a fixed state the answer equals `stats()`: 7 in flight, 2 waiting, each connection."""
    document = ask(Inspector(held))
    (pool,) = document["pools"]
    assert pool["stats"] == expected(held.stats())
    assert pool["stats"] is not None
    assert (pool["stats"]["in_flight"], pool["stats"]["waiting"]) == (7, 2)
    assert (pool["name"], pool["kind"], pool["state"]) == ("held", "threads", "open")
    assert (pool["timeline"]["in_flight"], pool["timeline"]["waiting"]) == ([7], [2])
    assert document["process"]["pid"] == os.getpid()


def test_the_figures_of_an_asyncio_pool(server: Server) -> None:
    """An asyncio pool is shown in the same way, read on its own loop."""

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


def test_several_pools_in_their_order(server: Server, make_pool: PoolMaker) -> None:
    """Pools are shown in the order in which they were added, once each, even if their names are equal."""
    first, second, third = (make_pool(server.channel, name=name) for name in ("same", "same", "later"))
    inspector = Inspector(first, second)
    inspector.watch(third)
    inspector.watch(first)
    assert [(pool["id"], pool["name"]) for pool in ask(inspector)["pools"]] == [(1, "same"), (2, "same"), (3, "later")]


@pytest.mark.parametrize(
    "name", ["", "<b onload=x>&amp;", "caf\u00e9\u202e\U0001f4a5", "\ud800", "a\n\0b", "x" * 10_000], ids=ascii
)
def test_any_name_is_shown_as_it_is(name: str, server: Server, make_pool: PoolMaker) -> None:
    """Whatever a pool is called, JSON has its name, and the other pools are still answered."""
    inspector = Inspector(make_pool(server.channel, name=name), make_pool(server.channel, name="other"))
    assert [pool["name"] for pool in ask(inspector)["pools"]] == [name, "other"]


def test_settings_are_shown(server: Server, make_pool: PoolMaker) -> None:
    """The settings are the pool's; of `prime` only whether it is set."""
    pool = make_pool(server.channel, max_size=3, max_streams=18, prime=lambda channel: None)
    (shown,) = ask(Inspector(pool))["pools"]
    config = shown["config"]
    assert config.keys() == {field.name for field in dataclasses.fields(PoolConfig)}
    assert (config["max_size"], config["target_streams"], config["mode"], config["prime"]) == (3, 10, "strict", True)


def test_events_come_with_reasons(server: Server, make_pool: PoolMaker) -> None:
    """Events of connections are listed from when the pool is watched, with their reasons."""
    pool = make_pool(server.channel)
    inspector = Inspector(pool)
    unary(pool, ECHO, b"1")
    pool.refresh()
    # Counted first, then reported.
    eventually(lambda: len(ask(inspector)["pools"][0]["events"]) == 3)
    (shown,) = ask(inspector)["pools"]
    events = [(event["kind"], event["channel"]) for event in shown["events"]]
    assert events == [("opened", 1), ("opened", 2), ("closed", 1)]
    assert shown["events"][1]["details"]["replaces"] == 1
    assert shown["events"][2]["details"] == {"reason": "refresh", "cancelled": 0}


def test_a_connect_error_is_shown_in_grpcs_own_words(dead_channel: Callable[[], grpc.Channel]) -> None:
    """If the server is unreachable, gRPC's own message is shown."""
    with ChannelPool(dead_channel, PoolConfig(connect_timeout=5)) as pool:
        inspector = Inspector(pool)
        with pytest.raises(grpc.RpcError):
            unary(pool, ECHO, b"1")
        event = eventually(lambda: ask(inspector)["pools"][0]["events"])[0]
    assert event["kind"] == "open_failed"
    assert "onnect" in str(event["details"]["error"])


def test_a_draining_connection_shows_its_reason(held: ChannelPool) -> None:
    """A connection that takes no new calls is shown with its reason while it carries any."""
    inspector = Inspector(held)
    held.refresh()
    eventually(lambda: held.stats().draining)
    (shown,) = ask(inspector)["pools"]
    assert shown["stats"] is not None
    assert "refresh" in [channel["reason"] for channel in shown["stats"]["channels"]]


def test_a_closed_pool_is_shown_as_closed(server: Server) -> None:
    """A closed pool that is still referenced is shown as closed, with its last figures."""
    pool = ChannelPool(server.channel)
    unary(pool, ECHO, b"1")
    pool.close()
    (shown,) = ask(Inspector(pool))["pools"]
    assert shown["state"] == "closed"
    assert shown["stats"] is not None
    assert shown["stats"]["closed"]["pool_closed"] == 1


def test_a_dropped_pool_is_gone(server: Server) -> None:
    """The inspector does not keep a pool alive: a dropped one is collected, and nothing of it is left."""
    pool = ChannelPool(server.channel)
    inspector = Inspector(pool)
    unary(pool, ECHO, b"1")
    assert len(ask(inspector)["pools"]) == 1
    gone = weakref.ref(pool)
    del pool
    eventually(lambda: gc.collect() is not None and gone() is None)
    assert ask(inspector)["pools"] == []
    assert inspector._watched == {}


def test_a_dropped_inspector_is_gone(server: Server, make_pool: PoolMaker) -> None:
    """A pool does not keep an inspector alive that has watched it."""
    pool = make_pool(server.channel)
    inspector = Inspector(pool)
    gone = weakref.ref(inspector)
    del inspector
    eventually(lambda: gc.collect() is not None and gone() is None)
    unary(pool, ECHO, b"1")


def test_within_its_lifespan_it_samples_by_itself(server: Server, make_pool: PoolMaker) -> None:
    """Within the application's lifespan it samples even without readers; afterwards nothing goes on."""
    pool = make_pool(server.channel)
    inspector = Inspector(pool, every=0.01, keep=10.0)
    (watched,) = inspector._watched.values()
    with mounted(inspector, lifespan=inspector.lifespan):
        eventually(lambda: len(watched._book.samples()) > 3)
    taken = len(watched._book.samples())
    assert len(ask(inspector)["pools"][0]["timeline"]["at"]) in (taken, taken + 1)
    with TestClient(inspector):
        eventually(lambda: len(watched._book.samples()) > taken + 3)


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("", "text/html"),
        ("page.css", "text/css"),
        ("page.js", "text/javascript"),
        ("icon.svg", "image/svg+xml"),
        ("pools", "application/json"),
    ],
)
def test_it_can_only_be_read(path: str, media_type: str) -> None:
    """Everything is there under a prefix, uses only its own files, is not stored, and cannot be written."""
    client = mounted(Inspector())
    answer = client.get(f"/inner/pools/{path}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(media_type)
    assert answer.headers["content-security-policy"].startswith(
        "default-src 'none'; script-src 'self'; style-src 'self'"
    )
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        refused = client.request(method, f"/inner/pools/{path}")
        assert refused.status_code == 405
        assert refused.headers["content-security-policy"] == answer.headers["content-security-policy"]


def test_the_page_refers_to_nothing_outside() -> None:
    """The page's files refer to nothing outside their own folder."""
    client = mounted(Inspector())
    for name in ("", "page.css", "page.js"):
        text = client.get(f"/inner/pools/{name}").text.replace("http://www.w3.org/2000/svg", "")
        assert re.findall(r"(?:https?:)?//[\w.]+\.\w+|(?:href|src)=\"/", text) == []


def test_invalid_arguments_are_refused() -> None:
    """What cannot be watched, and settings that make no sense, are refused with the reason."""
    with pytest.raises(TypeError, match=r"must be a grpcpool\.ChannelPool or a grpcpool\.aio\.ChannelPool, not 1"):
        Inspector(1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="every = 0: must be seconds, more than 0"):
        Inspector(every=0)
    with pytest.raises(ValueError, match=r"keep = 0\.5: must be seconds, at least every, which is 1\.0"):
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_worker_shows_its_own_pools(server: Server) -> None:
    """A forked worker shows its own process and its own pools' events; asyncio pools are void there."""
    script = textwrap.dedent(_FORKING)
    command = [sys.executable, "-c", script, server.target]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout  # noqa: S603 -- our own
    child, _, document = json.loads(output)
    assert document["process"]["pid"] == child
    threads, twin = document["pools"]
    assert (threads["state"], threads["events"], threads["stats"]["size"]) == ("open", [], 0)
    assert (twin["state"], twin["stats"], twin["events"]) == ("void", None, [])
