"""What callers get when no place is free in time, the server is unreachable, or the pool is closed."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc
import pytest

import grpcpool
from aio_calls.support import begun, world
from grpcpool import (
    PoolClosedError,
    PoolError,
    PoolExhaustedError,
    PoolTimeoutError,
    isolated,
)
from support.aio_pools import at_rest
from support.aio_ways import STREAM, UNARY, WAYS, Way, outcome_of
from support.call_server import CallServer, new_tag
from support.loops import in_loop, settle, until
from support.servers import RECONNECT_SOON
from support.waiting import LONG

pytestmark = pytest.mark.timeout(60)

Code = grpc.StatusCode


# --- refusals -------------------------------------------------------------------------------------------------------


async def _assert_failed(
    call: Any, way: Way, code: grpc.StatusCode, cause: type[PoolError], *, iterated: bool = False
) -> None:
    told: list[Any] = []
    errors: list[Any] = []
    for again in (iterated, True):
        # As gRPC's, the iterator of a call is over once it has raised.
        is_over = again and way.takes == "async for"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (call.wait_for_connection() if is_over else way.take(call))
        errors.append(caught.value)
    if way.takes == "async for":
        assert await way.take(call) == []
    error = errors[0]
    assert error is not errors[1]
    assert error.code() is await call.code() is code
    assert type(error.__cause__) is cause
    assert error.details() == await call.details()
    assert error.debug_error_string() == await call.debug_error_string() == str(error.__cause__)
    assert (call.done(), call.cancelled(), call.cancel()) == (True, code is Code.CANCELLED, False)
    assert not any((await call.initial_metadata(), await call.trailing_metadata()))
    assert not any((error.initial_metadata(), error.trailing_metadata()))
    with pytest.raises(grpc.aio.AioRpcError):
        await call.wait_for_connection()
    if way.writes:
        with pytest.raises(asyncio.InvalidStateError):
            await call.write(b"late")
        await call.done_writing()
    call.add_done_callback(told.append)
    assert told == [call]
    assert f"{code}" in repr(call)


@pytest.mark.parametrize("way", WAYS, ids=str)
@in_loop
async def test_refused_at_the_acquire_timeout(calls: CallServer, way: Way) -> None:
    """A call without a deadline fails `RESOURCE_EXHAUSTED` after the configured time; the message has the figures."""
    async with world(calls) as at:
        full = await at.full(acquire_timeout=0.05)
        call = way.begin(full.pool, timeout=None)
        await _assert_failed(call, way, Code.RESOURCE_EXHAUSTED, PoolTimeoutError)
        assert "1 of 1 connections open, 1 in flight" in await call.details()
        assert full.pool.stats().timeouts == 1


@pytest.mark.parametrize("way", WAYS, ids=str)
@in_loop
async def test_refused_at_its_own_deadline(calls: CallServer, way: Way) -> None:
    """A call with a deadline waits until then, not for the configured time, and fails `DEADLINE_EXCEEDED`."""
    async with world(calls) as at:
        full = await at.full(acquire_timeout=0.001)
        call = way.begin(full.pool, timeout=0.1)
        await _assert_failed(call, way, Code.DEADLINE_EXCEEDED, PoolTimeoutError)


@pytest.mark.parametrize("way", WAYS, ids=str)
@in_loop
async def test_refused_when_too_many_wait(calls: CallServer, way: Way) -> None:
    """Beyond `max_waiters` a call fails `RESOURCE_EXHAUSTED` at once; the waiters are not affected."""
    async with world(calls) as at:
        full = await at.full(max_waiters=2)
        waiting = [way.begin(full.pool) for _ in range(2)]
        refused = way.begin(full.pool)
        await settle(2)
        assert refused.done()
        await _assert_failed(refused, way, Code.RESOURCE_EXHAUSTED, PoolExhaustedError)
        using = [asyncio.create_task(way.use(call)) for call in waiting]
        full.make_room()
        assert all(await asyncio.gather(*using))
        assert full.pool.stats().rejected == 1


@pytest.mark.parametrize("way", WAYS, ids=str)
@in_loop
async def test_closed_while_it_waits(calls: CallServer, way: Way) -> None:
    """`close()` fails a waiting call `CANCELLED`, and runs its callbacks before it returns."""
    async with world(calls) as at:
        full = await at.full()
        told: list[Any] = []
        call = way.begin(full.pool)
        call.add_done_callback(told.append)
        (using,) = await begun(outcome_of(way.take(call)))
        await full.pool.close()
        assert told == [call]
        assert await using == ("error", Code.CANCELLED, "Channel closed!")
        await _assert_failed(call, way, Code.CANCELLED, PoolClosedError, iterated=True)


# --- the server is unreachable --------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=str)
@in_loop
async def test_a_dead_target_is_unavailable(dead: str, way: Way) -> None:
    """A call fails long before its deadline, and as on a channel without a pool: gRPC fails it."""
    async with grpc.aio.insecure_channel(dead, isolated()) as plain:
        expected = await outcome_of(way.take(way.begin(plain)))
    async with grpcpool.aio.insecure_channel(dead) as pool:
        began = time.monotonic()
        call = way.begin(pool)
        assert await call.code() is Code.UNAVAILABLE
        assert time.monotonic() - began < 5
        assert expected[:2] == ("error", Code.UNAVAILABLE)
        assert "Connection refused" in expected[2]
        assert "Connection refused" in await call.details()
        assert dead in await call.details()
        with pytest.raises(grpc.RpcError) as caught:
            await way.take(call)
        assert caught.value.code() is Code.UNAVAILABLE
        assert pool.stats().in_flight == pool.stats().waiting == 0


@in_loop
async def test_a_dead_target_stays_unavailable(dead: str) -> None:
    """Further calls fail at once, although the pool pauses between its attempts to connect."""
    async with grpcpool.aio.insecure_channel(dead) as pool:
        for _ in range(200):
            outcome = await outcome_of(UNARY.whole(pool))
            assert outcome[:2] == ("error", Code.UNAVAILABLE)
        assert pool.stats().open_failures < 50
        assert pool.stats().size <= 10


@pytest.mark.parametrize("way", WAYS, ids=str)
@in_loop
async def test_wait_for_ready_fails_at_the_deadline(dead: str, way: Way) -> None:
    """Without a server the call fails `DEADLINE_EXCEEDED`, as gRPC's does; the cause is the connect error."""
    async with grpcpool.aio.insecure_channel(dead) as pool:
        call = way.begin(pool, wait_for_ready=True, timeout=0.3)
        await _assert_failed(call, way, Code.DEADLINE_EXCEEDED, PoolTimeoutError)
        assert "Connection refused" in await call.debug_error_string()


@in_loop
async def test_wait_for_ready_waits_for_the_server() -> None:
    """Calls with `wait_for_ready` do not fail while the server is unreachable; they run once the server is up."""
    server = CallServer()
    with server:
        pass
    async with grpcpool.aio.insecure_channel(server.target, RECONNECT_SOON) as pool:
        waiting = [asyncio.create_task(way.whole(pool, wait_for_ready=True)) for way in WAYS]
        await until(lambda: pool.stats().open_failures >= 1)
        assert not any(task.done() for task in waiting)
        with server:
            assert all(await asyncio.gather(*waiting))
            await at_rest(pool)
            await pool.close()


@in_loop
async def test_a_name_that_does_not_resolve() -> None:
    """The call fails `UNAVAILABLE` with gRPC's words for it."""
    async with grpcpool.aio.insecure_channel("nobody.invalid:1") as pool:
        outcome = await outcome_of(UNARY.whole(pool))
        assert outcome[:2] == ("error", Code.UNAVAILABLE)
        assert "nobody.invalid" in outcome[2] or "resol" in outcome[2]


@in_loop
async def test_closing_while_calls_wait_for_the_first_connection(dead: str) -> None:
    """A call waiting for a connection when the pool closes fails `CANCELLED`; its cause is the pool's error."""
    pool = grpcpool.aio.insecure_channel(dead)
    call = UNARY.begin(pool, wait_for_ready=True)
    await until(lambda: pool.stats().waiting == 1)
    await pool.close()
    await _assert_failed(call, UNARY, Code.CANCELLED, PoolClosedError)


# --- after the close ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("used", [True, False], ids=["used", "unused"])
@pytest.mark.parametrize("way", WAYS, ids=str)
@in_loop
async def test_after_the_close(calls: CallServer, way: Way, used: bool) -> None:
    """A call on a closed pool raises at once what a closed channel raises: the same type, the same text."""
    raised = []
    plain = grpc.aio.insecure_channel(calls.target, isolated())
    for channel in (plain, grpcpool.aio.insecure_channel(calls.target)):
        before: Any = getattr(channel, way.maker)(way.method)
        if used:
            await way.whole(channel)
        await channel.close()
        after: Any = getattr(channel, way.maker)(way.method)
        for multicallable in (before, after):
            with pytest.raises(grpc.aio.UsageError, match="closed") as caught:
                multicallable(b"ok" if way.gives == "request" else None)
            raised.append((type(caught.value), str(caught.value)))
    assert len(set(raised)) == 1


@in_loop
async def test_a_call_during_the_grace_is_refused(calls: CallServer) -> None:
    """While `close(grace)` waits for the calls in flight, a new call is refused as after the close."""
    async with world(calls) as at:
        pool = await at.pool()
        running = STREAM.begin(pool, f"hold:{new_tag()}")
        closing = asyncio.create_task(pool.close(grace=LONG))
        await until(lambda: pool.closed)
        for way in WAYS:
            with pytest.raises(grpc.aio.UsageError, match="closed"):
                way.begin(pool)
        assert not running.done()
        running.cancel()
        await asyncio.wait_for(closing, 5)
