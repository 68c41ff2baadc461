"""Servers that fail their calls, or answer nothing, beside others that are well: as `tests/real` for threads."""

from __future__ import annotations

import asyncio
import gc
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc
import grpc.aio
import pytest

import grpcpool
from grpcpool.aio import ChannelPool
from support.aio_pools import assert_nothing_left, drop, pool_over, tasks_of_pools
from support.loops import in_loop, until
from support.servers import COUNT, ECHO, FAIL, PID, Server
from support.waiting import LONG

pytestmark = pytest.mark.timeout(60)


async def _failing_call(pool: ChannelPool) -> None:
    await pool.unary_unary(FAIL)(b"INTERNAL", timeout=LONG)


async def _failing_upload(pool: ChannelPool) -> None:
    await pool.stream_unary(FAIL)(iter([b"UNAVAILABLE"]), timeout=LONG)


async def _failing_stream(pool: ChannelPool) -> None:
    await pool.unary_stream(FAIL)(b"RESOURCE_EXHAUSTED", timeout=LONG).read()


async def _failing_lease(pool: ChannelPool) -> None:
    async with pool.acquire(streams=1) as lease:
        await lease.unary_unary(FAIL)(b"UNKNOWN", timeout=LONG)


@pytest.mark.parametrize("picker", ["least_loaded", "round_robin", "fill"])
@pytest.mark.parametrize("fail", [_failing_call, _failing_upload, _failing_stream, _failing_lease])
@in_loop
async def test_a_connection_on_which_a_call_failed_is_avoided(fail: Any, picker: Any) -> None:
    """Of two servers, the one that failed a call, of whatever kind, gets none for a while, and the other all."""
    with Server() as one, Server() as other:
        servers = itertools.cycle([one, other])
        async with pool_over(
            lambda: next(servers).aio_channel(), min_size=2, max_size=2, picker=picker, avoid_after_failure=60.0
        ) as pool:
            await pool.open()
            with pytest.raises(grpc.RpcError):
                await fail(pool)
            await until(lambda: pool.stats().avoided == 1)
            (well,) = [channel.id for channel in pool.stats().channels if not channel.avoided]
            pids = {await pool.unary_unary(PID)(b"", timeout=LONG) for _ in range(20)}
            assert pids == {str((one if well == 1 else other).pid).encode()}
            assert pool.stats().failures == 1


@in_loop
async def test_an_answer_with_another_status_is_no_failure() -> None:
    """Healthy servers answer with `NOT_FOUND` and the like."""
    with Server() as server:
        async with pool_over(server.aio_channel) as pool:
            for code in ("NOT_FOUND", "INVALID_ARGUMENT", "PERMISSION_DENIED", "UNIMPLEMENTED", "ABORTED"):
                with pytest.raises(grpc.RpcError):
                    await pool.unary_unary(FAIL)(code.encode(), timeout=LONG)
            assert (pool.stats().failures, pool.stats().avoided) == (0, 0)


@in_loop
async def test_a_healthy_server_that_ends_uploads_early_is_not_avoided() -> None:
    """A write that comes too late fails, for gRPC, with `INTERNAL` before the server's own status is known."""

    async def requests() -> AsyncIterator[bytes]:
        yield b"data"

    with Server() as server:
        async with pool_over(server.aio_channel) as pool:
            for _ in range(200):
                with pytest.raises(grpc.RpcError) as caught:
                    await pool.stream_unary("/none.Such/Method")(requests(), timeout=LONG)
                assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert (pool.stats().failures, pool.stats().avoided) == (0, 0)


@pytest.mark.parametrize("kind", ["pool", "lease", "whole connection"])
@in_loop
async def test_a_frozen_server_loses_its_connection(kind: str) -> None:
    """A connection that answers nothing is replaced as soon as that can be done; calls on it have their deadlines."""

    async def call(pool: ChannelPool) -> None:
        if kind == "pool":
            await pool.unary_unary(ECHO)(b"", timeout=0.2)
            return
        async with pool.acquire(streams=1 if kind == "lease" else None) as lease:
            await lease.unary_unary(ECHO)(b"", timeout=0.2)

    with Server() as frozen, Server() as other:
        made: list[Server] = []

        def factory() -> grpc.aio.Channel:
            # The first connection goes to the one server, all others to the other.
            made.append(other if made else frozen)
            return made[-1].aio_channel()

        async with pool_over(
            factory, min_size=2, max_size=2, picker="round_robin", unresponsive_after=1.0, avoid_after_failure=None
        ) as pool:
            await pool.open()
            frozen.freeze()
            failed = 0
            while pool.stats().closed["unresponsive"] == 0:
                try:
                    await call(pool)
                except grpc.RpcError:
                    failed += 1
                assert failed < 20
            assert failed >= 3
            assert {await pool.unary_unary(PID)(b"", timeout=LONG) for _ in range(10)} == {str(other.pid).encode()}


@pytest.mark.parametrize("how", ["iterated", "read"])
@in_loop
async def test_a_stream_that_receives_something_shows_that_the_server_is_there(how: str) -> None:
    """Although calls run into their deadlines, a connection is not replaced while it delivers messages."""
    with Server() as slow, Server() as other:
        servers = itertools.cycle([slow, other])
        async with pool_over(
            lambda: next(servers).aio_channel(),
            min_size=2,
            max_size=2,
            picker="fill",
            unresponsive_after=0.5,
            avoid_after_failure=None,
        ) as pool:
            await pool.open()
            stream: Any = pool.unary_stream(COUNT)(b"1000,50", timeout=LONG)
            iterator = aiter(stream) if how == "iterated" else None
            for _ in range(8):
                for _ in range(2):
                    await (anext(iterator) if iterator is not None else stream.read())
                with pytest.raises(grpc.RpcError):
                    await pool.unary_stream(COUNT)(b"1,10000", timeout=0.1).read()
            assert pool.stats().closed["unresponsive"] == 0
            stream.cancel()


def _cancelled_futures() -> int:
    gc.collect()
    return sum(type(each) is asyncio.Future and each.cancelled() for each in gc.get_objects())


async def _give_up_a_dial(target: str) -> None:
    pool = grpcpool.aio.insecure_channel(target)
    acquiring = asyncio.create_task(pool.acquire(timeout=LONG))
    # It takes a moment until the channel connects.
    await asyncio.sleep(0.02)
    acquiring.cancel()
    await asyncio.wait([acquiring])
    await pool.close()
    assert_nothing_left(pool)


async def _drop_while_it_dials(target: str) -> None:
    pools = [grpcpool.aio.insecure_channel(target)]
    pools[0].get_state(try_to_connect=True)
    await asyncio.sleep(0.02)
    assert pools[0].stats().opening
    drop(pools)
    await until(lambda: not tasks_of_pools())


@pytest.mark.parametrize("give_up", [_give_up_a_dial, _drop_while_it_dials])
@in_loop
async def test_nothing_is_left_of_a_dial_that_is_given_up(give_up: Callable[[str], Awaitable[None]]) -> None:
    """GRPC may keep what waits for a change of a channel, and is cancelled, for ever: the channel is closed instead."""
    before = _cancelled_futures()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for _ in range(5):
            await give_up(f"127.0.0.1:{silent.getsockname()[1]}")
    await until(lambda: _cancelled_futures() <= before)


@in_loop
async def test_a_dial_that_is_given_up_ends_although_the_close_of_its_channel_fails() -> None:
    """It is cancelled then: nothing is left that `close()` waits for."""

    async def fail(grace: float | None = None) -> NoReturn:
        raise RuntimeError(f"no close within {grace}")

    def make() -> Any:
        channel: Any = grpc.aio.insecure_channel(target, grpcpool.isolated())
        closes.append(channel.close)
        channel.close = fail
        return channel

    closes: list[Callable[[], Awaitable[None]]] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        pool = ChannelPool(make)
        with pytest.raises(grpcpool.PoolTimeoutError):
            await pool.acquire(timeout=0.02)
        await pool.close()
        assert_nothing_left(pool)
        await closes[0]()
