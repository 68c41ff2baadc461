"""What else may happen to a connection, or to the pool, while a call is refused and sent again."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest

from grpcpool import Listener, Mode, PoolClosedError
from grpcpool.events import RefusedStream
from refusals.conftest import PoolOpener
from refusals.test_limit import FUTURE, hold, loads
from refusals.test_waiting_again import ONE_REQUEST
from support import aio_ways
from support.aio_pools import at_rest, pool_over
from support.loops import in_loop, until
from support.pools import PoolMaker, assert_at_rest
from support.refusing_server import RefusingServer
from support.waiting import LONG, background, eventually
from support.ways import Way

pytestmark = pytest.mark.timeout(60)

AIO_ONE_REQUEST = tuple(way for way in aio_ways.WAYS if not way.streams_in)
BUSY = pytest.mark.parametrize("busy", [False, True], ids=["alone", "busy"])
SOON = 10.0
"""Seconds within which a call fails that need not wait for anything but a step of a limit."""


@pytest.mark.parametrize("way", ONE_REQUEST, ids=str)
def test_its_connection_is_replaced(refusing: RefusingServer, open_pool: PoolOpener, way: Way) -> None:
    """A call refused on a draining connection goes to its successor; the old connection is closed."""
    pool = open_pool(max_size=1)
    refusing.begin(open=0, held=True)
    outcome = background(lambda: way.finish(way.begin(pool)))
    eventually(lambda: refusing.report().all.begun == 1)
    pool.refresh()
    eventually(lambda: pool.stats().draining == 1)
    refusing.refuse(held=True)
    refusing.let_go("refusals")
    assert outcome.result(LONG)
    assert_at_rest(pool)
    stats = pool.stats()
    assert (stats.refused_streams, stats.closed["refresh"], stats.size) == (1, 1, 1)
    assert refusing.report().handled == {"ok": 1}


@pytest.mark.parametrize("way", AIO_ONE_REQUEST, ids=str)
@in_loop
async def test_its_connection_is_replaced_on_asyncio(refusing: RefusingServer, way: aio_ways.Way) -> None:
    """Same as `test_its_connection_is_replaced`, on asyncio."""
    async with pool_over(refusing.aio_channel, max_size=1) as pool:
        await pool.open()
        refusing.begin(open=0, held=True)
        task = asyncio.create_task(way.whole(pool))
        await until(lambda: refusing.report().all.begun == 1)
        pool.refresh()
        await until(lambda: pool.stats().draining == 1)
        refusing.refuse(held=True)
        refusing.let_go("refusals")
        assert await task
        await at_rest(pool)
        stats = pool.stats()
        assert (stats.refused_streams, stats.closed["refresh"], stats.size) == (1, 1, 1)
        assert refusing.report().handled == {"ok": 1}


@pytest.mark.parametrize("way", ONE_REQUEST, ids=str)
def test_the_pool_is_being_closed(refusing: RefusingServer, open_pool: PoolOpener, way: Way) -> None:
    """A call refused while `close(grace)` waits for it gets no other place: it fails `CANCELLED`."""
    pool = open_pool(max_size=1)
    refusing.begin(open=0, held=True)
    failure = background(lambda: way.finish(way.begin(pool)))
    eventually(lambda: refusing.report().all.begun == 1)
    closing = background(lambda: pool.close(LONG))
    eventually(lambda: pool.closed)
    refusing.let_go("refusals")
    error: Any = failure.exception(LONG)
    assert isinstance(error, grpc.RpcError)
    assert (error.code(), error.details()) == (grpc.StatusCode.CANCELLED, "Channel closed!")
    assert isinstance(error.__cause__, PoolClosedError)
    closing.result(SOON)
    assert pool.stats().refused_streams == 1


@BUSY
@pytest.mark.parametrize("way", ONE_REQUEST, ids=str)
def test_the_server_dies(make_pool: PoolMaker, way: Way, *, busy: bool) -> None:
    """A call that waits, or pauses, for a connection that goes down fails `UNAVAILABLE` soon, like any call."""
    with RefusingServer("--open=0") as mortal:
        pool = make_pool(mortal.channel, max_size=1, max_resends=1000)
        pool.open()
        leases = [pool.acquire(streams=1) for _ in range(busy)]
        failure = background(lambda: way.finish(way.begin(pool)))
        eventually(lambda: pool.stats().refused_streams)
        mortal.kill()
        began = time.monotonic()
        error: Any = failure.exception(LONG)
        assert isinstance(error, grpc.RpcError)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert time.monotonic() - began < SOON
        for lease in leases:
            lease.release()
        assert_at_rest(pool)


@BUSY
@pytest.mark.parametrize("way", AIO_ONE_REQUEST, ids=str)
@in_loop
async def test_the_server_dies_on_asyncio(way: aio_ways.Way, *, busy: bool) -> None:
    """Same as `test_the_server_dies`, on asyncio."""
    with RefusingServer("--open=0") as mortal:
        async with pool_over(mortal.aio_channel, max_size=1, max_resends=1000) as pool:
            await pool.open()
            leases = [await pool.acquire(streams=1) for _ in range(busy)]
            task = asyncio.create_task(way.whole(pool))
            await until(lambda: pool.stats().refused_streams)
            mortal.kill()
            began = time.monotonic()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await task
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert time.monotonic() - began < SOON
            for lease in leases:
                lease.release()
            await at_rest(pool)


def test_a_loose_pool_opens_an_extra_connection(refusing: RefusingServer, open_pool: PoolOpener) -> None:
    """At `max_size`, a loose pool opens an extra connection for a refused call, and closes it afterwards."""
    pool = open_pool(max_size=1, max_overflow=1, mode=Mode.LOOSE)
    refusing.begin(open=1)
    held = hold(refusing, pool, "a")
    assert FUTURE.begin(pool).result(LONG) == b"0"
    eventually(lambda: pool.stats().closed["overflow"] == 1)
    assert loads(pool) == [1]
    refusing.let_go("a")
    assert held[0].result(LONG) == b"1"
    assert_at_rest(pool)
    assert pool.stats().refused_streams == 1


class _Broken(Listener):
    """Raises when it gets a refusal."""

    def refused_stream(self, event: RefusedStream) -> None:
        raise ArithmeticError("a listener failed, as the test wants")


@pytest.mark.parametrize("way", ONE_REQUEST, ids=str)
def test_a_listener_fails(refusing: RefusingServer, make_pool: PoolMaker, way: Way) -> None:
    """An exception in a listener does not stop the call from being sent again."""
    pool = make_pool(refusing.channel, listeners=[_Broken()], min_size=2, max_size=2)
    pool.open()
    refusing.begin(next=1)
    assert way.finish(way.begin(pool))
    assert_at_rest(pool)
    assert pool.stats().refused_streams == 1
