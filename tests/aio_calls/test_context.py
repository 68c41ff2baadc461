"""The context variables that a call sees are those of the moment when it was made, however late it starts."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from aio_calls.support import Full, world
from aio_calls.support_interceptors import append, of_all_kinds
from aio_calls.support_refusing import refusing
from grpcpool import PoolConfig, isolated
from grpcpool.aio import ChannelPool
from support.aio_pools import at_rest
from support.aio_ways import KINDS, UNARY, WAYS, Way
from support.call_server import CallServer
from support.loops import in_loop

pytestmark = pytest.mark.timeout(60)

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("WHO", default="nobody")


class _Seen:
    """An interceptor that records the variable, and changes it."""

    def __init__(self) -> None:
        self.values: list[str] = []

    async def __call__(self, go_on: Any, details: Any, request: Any) -> Any:
        self.values.append(WHO.get())
        WHO.set("an interceptor")
        return await go_on(details, request)


def _pool(target: str, inside: _Seen, around: _Seen, **config: Any) -> ChannelPool:
    """A pool with room for one call, with interceptors in its channels and around it."""
    settings = PoolConfig(**{"max_size": 1, "max_streams": 1, **config})
    interceptors = of_all_kinds(inside)
    pool = ChannelPool(
        lambda: grpc.aio.insecure_channel(target, isolated(), interceptors=interceptors), settings, name="context"
    )
    if around is not inside:
        append(pool, around)
    return pool


def _in(who: str, way: Way, pool: ChannelPool, **how: Any) -> Any:
    """Makes a call in a context of its own, in which the variable has the value `who`."""

    def begin() -> Any:
        WHO.set(who)
        call = way.begin(pool, **how)
        WHO.set("a later value")
        return call

    return contextvars.copy_context().run(begin)


@pytest.mark.parametrize("wait", [False, True], ids=["at_once", "after_a_wait"])
@pytest.mark.parametrize("way", WAYS, ids=str)
@in_loop
async def test_native_calls_begin_in_the_callers_context(calls: CallServer, way: Way, wait: bool) -> None:
    """Interceptors of the channels, which run where gRPC's call starts, see what the caller saw."""
    seen = _Seen()
    async with world(calls) as at:
        pool = at.enter(_pool(calls.target, seen, seen))
        await pool.open()
        full = await Full.of(pool)
        if not wait:
            full.make_room()
        call = _in("the caller", way, pool)
        WHO.set("the releasing task")
        full.make_room()
        assert await way.use(call)
        assert seen.values == ["the caller"]
        # A change by an interceptor is seen neither by the caller nor by the next one.
        assert await way.whole(pool)
        assert seen.values == ["the caller", "the releasing task"]
        assert WHO.get() == "the releasing task"
        await at_rest(pool)


@pytest.mark.parametrize("wait", [False, True], ids=["at_once", "after_a_wait"])
@pytest.mark.parametrize("way", KINDS, ids=str)
@in_loop
async def test_interceptors_around_the_pool(calls: CallServer, way: Way, wait: bool) -> None:
    """Interceptors around the pool see what the caller saw; inner ones see their changes."""
    inside, around = _Seen(), _Seen()
    async with world(calls) as at:
        pool = at.enter(_pool(calls.target, inside, around))
        await pool.open()
        full = await Full.of(pool)
        if not wait:
            full.make_room()
        using = asyncio.create_task(way.use(_in("the caller", way, pool)))
        await asyncio.sleep(0.01)
        WHO.set("the releasing task")
        full.make_room()
        assert await using
        assert (around.values, inside.values) == (["the caller"], ["an interceptor"])
        await at_rest(pool)


@pytest.mark.parametrize("way", [way for way in WAYS if way.gives == "async iterator"], ids=str)
@in_loop
async def test_requests_are_iterated_in_the_callers_context(calls: CallServer, way: Way) -> None:
    """An iterator of requests sees what the caller saw, also if the call had to wait."""
    values: list[str] = []

    async def requests() -> AsyncIterator[bytes]:
        values.append(WHO.get())
        yield b"ok"

    async with world(calls) as at:
        full = await at.full()
        call = _in("the caller", way, full.pool, requests=requests())
        WHO.set("the releasing task")
        full.make_room()
        assert await way.use(call)
        assert values == ["the caller"]


@pytest.mark.parametrize("way", [way for way in WAYS if not way.streams_in], ids=str)
@in_loop
async def test_each_attempt_is_made_in_the_callers_context(way: Way) -> None:
    """A call that the server refused is sent again in the same context."""
    seen = _Seen()
    async with refusing(2) as peer:
        pool = _pool(peer.target, seen, seen, min_size=3, max_size=3)
        async with pool:
            await pool.open()
            assert await way.use(_in("the caller", way, pool))
            assert seen.values == ["the caller"] * 3
            await at_rest(pool)


@in_loop
async def test_connections_are_opened_in_no_callers_context(calls: CallServer) -> None:
    """Factory and prime do not see the context of the call that causes a connection to be opened."""
    values: list[str] = []

    def factory() -> grpc.aio.Channel:
        values.append(WHO.get())
        return grpc.aio.insecure_channel(calls.target, isolated())

    async def prime(channel: Any) -> None:
        values.append(WHO.get())

    async with world(calls) as at:
        pool = at.enter(ChannelPool(factory, PoolConfig(prime=prime)))
        WHO.set("the caller")
        assert await UNARY.whole(pool) == b"0"
        assert values == ["nobody", "nobody"]
        await at_rest(pool)
