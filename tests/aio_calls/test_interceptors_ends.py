"""Intercepted calls that are cancelled, dropped, written to or closed."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import grpc
import pytest

from aio_calls.support import Full, World, world
from aio_calls.support_interceptors import (
    POOLS,
    Intercept,
    Place,
    append,
    intercepted,
    native,
    passes,
    raises,
    wraps_responses,
)
from grpcpool._grpc.version import GRPC_RELEASE
from support.aio_pools import at_rest
from support.aio_ways import KINDS, UNARY, WAYS, Way, outcome_of
from support.call_server import CallServer, new_tag
from support.loops import in_loop, settle, until

pytestmark = pytest.mark.timeout(60)

inside_and_around = pytest.mark.parametrize("place", ["argument", "channels"])


def since(major: int, minor: int, fault: str) -> pytest.MarkDecorator:
    """Skips the test on releases of gRPC whose own intercepted calls have this fault."""
    return pytest.mark.skipif((major, minor) > GRPC_RELEASE, reason=f"gRPC's own intercepted calls {fault}")


each_way = pytest.mark.parametrize("way", WAYS, ids=str)
STREAMS = tuple(way for way in WAYS if way.streams_out)


# --- cancelling, callbacks, dropping --------------------------------------------------------------------------------


@inside_and_around
@each_way
@in_loop
async def test_cancel_passes_through(calls: CallServer, place: Place, way: Way) -> None:
    """Cancelling a call through interceptors ends it on the server, or removes it from the queue."""
    async with world(calls) as at:
        pool = await intercepted(at, place, passes)
        tag = new_tag()
        call = way.begin(pool, f"hold:{tag}")
        await way.send(call, f"hold:{tag}")
        await at.until_held(tag)
        queued = way.begin(pool)
        await until(lambda: pool.stats().waiting == 1)
        assert queued.cancel()
        await until(lambda: pool.stats().waiting == 0)
        assert await queued.code() is grpc.StatusCode.CANCELLED
        assert call.cancel()
        await at.until_let_go(tag)
        await at_rest(pool)


@inside_and_around
@each_way
@in_loop
async def test_a_cancelled_task_passes_through(calls: CallServer, place: Place, way: Way) -> None:
    """Cancelling a task that uses an intercepted call, running or waiting, ends the call."""
    async with world(calls) as at:
        pool = await intercepted(at, place, passes)
        tag = new_tag()
        running = asyncio.create_task(way.whole(pool, f"hold:{tag}"))
        await at.until_held(tag)
        tasks = [running]
        if not way.writes:
            tasks.append(asyncio.create_task(way.whole(pool)))
            await until(lambda: pool.stats().waiting == 1)
        del running
        while tasks:
            tasks[-1].cancel()
            assert await outcome_of(tasks.pop()) == ("cancelled",)
        await at.until_let_go(tag)
        await at_rest(pool)


@since(1, 85, "leave the task that a cancelled write was waiting for")
@inside_and_around
@pytest.mark.parametrize("way", [way for way in WAYS if way.writes], ids=str)
@in_loop
async def test_a_task_cancelled_while_it_writes(calls: CallServer, place: Place, way: Way) -> None:
    """A task cancelled while it writes to an intercepted waiting call leaves nothing."""
    async with world(calls) as at:
        pool = await intercepted(at, place, passes)
        full = await Full.of(pool)
        using = asyncio.create_task(way.whole(pool))
        await until(lambda: pool.stats().waiting == 1)
        # A task that is cancelled before the interceptors are done gets an error of gRPC's.
        await settle(10)
        using.cancel()
        assert await outcome_of(using) == ("cancelled",)
        del using
        full.make_room()
        await at_rest(pool)


@inside_and_around
@pytest.mark.parametrize("way", KINDS, ids=str)
@in_loop
async def test_callbacks_pass_through(calls: CallServer, place: Place, way: Way) -> None:
    """Callbacks of the caller and of the interceptor are called once, at once and after a wait."""
    inner: list[Any] = []

    async def adds_callback(go_on: Any, details: Any, request: Any) -> Any:
        call = await go_on(details, request)
        call.add_done_callback(inner.append)
        return call

    async with world(calls) as at:
        pool = await intercepted(at, place, adds_callback)
        full = await Full.of(pool)
        for number in (1, 2):
            outer: list[Any] = []
            call = way.begin(pool)
            call.add_done_callback(outer.append)
            using = asyncio.create_task(way.use(call))
            await settle(10)
            full.make_room()
            assert await using
            await settle(10)
            assert outer == [call]
            assert len(inner) == number
            del call
        await at_rest(pool)


@pytest.mark.parametrize("read", [0, 1])
@pytest.mark.parametrize("intercept", [passes, wraps_responses], ids=lambda intercept: intercept.__name__)
@inside_and_around
@pytest.mark.parametrize("way", [way for way in STREAMS if not way.writes], ids=str)
@in_loop
async def test_streams_that_are_dropped(
    calls: CallServer, place: Place, way: Way, intercept: Intercept, read: int
) -> None:
    """An intercepted stream, unread or half read, releases its place when it is collected."""
    async with world(calls) as at:
        pool = await intercepted(at, place, intercept)
        tag = new_tag()
        call = way.begin(pool, f"hold:{tag}")
        for _ in range(read):
            assert await way.first(call) == b"0"
        await at.until_held(tag)
        del call
        gc.collect()
        await at_rest(pool)
        await at.until_let_go(tag)


@inside_and_around
@pytest.mark.parametrize("way", [way for way in KINDS if not way.streams_out], ids=str)
@in_loop
async def test_calls_that_are_dropped(calls: CallServer, place: Place, way: Way) -> None:
    """An intercepted call with one response that is dropped, running or waiting, goes on and releases its place."""
    async with world(calls) as at:
        pool = await intercepted(at, place, passes)
        tag = new_tag()
        call, queued = way.begin(pool, f"hold:{tag}"), way.begin(pool)
        await at.until_held(tag)
        await until(lambda: pool.stats().waiting == 1)
        del call, queued
        gc.collect()
        await settle(10)
        assert (pool.stats().in_flight, pool.stats().waiting) == (1, 1)
        await at.let_go(tag)
        await until(lambda: pool.stats().waiting == 0)
        await at_rest(pool)
        await at.until_let_go(tag)


@inside_and_around
@pytest.mark.parametrize("way", [way for way in KINDS if not way.streams_out], ids=str)
@in_loop
async def test_calls_that_are_dropped_end_at_their_deadline(calls: CallServer, place: Place, way: Way) -> None:
    """The same two calls release their places when their deadlines pass."""
    async with world(calls) as at:
        pool = await intercepted(at, place, passes)
        tag = new_tag()
        call, queued = (way.begin(pool, f"hold:{tag}", timeout=0.5) for _ in range(2))
        await settle(10)
        assert (pool.stats().in_flight, pool.stats().waiting) == (1, 1)
        del call, queued
        await until(lambda: pool.stats().waiting == 0)
        await at_rest(pool)
        await at.until_let_go(tag)


# --- writing --------------------------------------------------------------------------------------------------------


@inside_and_around
@pytest.mark.parametrize("way", [way for way in WAYS if way.writes], ids=str)
@in_loop
async def test_writing_passes_through(calls: CallServer, place: Place, way: Way) -> None:
    """Requests can be written to an intercepted call as to any other, at once and after a wait."""
    async with world(calls) as at:
        pool = await intercepted(at, place, passes)
        for wait in (False, True):
            full = await Full.of(pool) if wait else None
            call = way.begin(pool)
            sending = asyncio.create_task(way.send(call))
            await settle(10)
            if full is not None:
                full.make_room()
            await sending
            assert await way.take(call)
            with pytest.raises(asyncio.InvalidStateError):
                await call.write(b"late")
            del call
        await at_rest(pool)


# --- closing --------------------------------------------------------------------------------------------------------


@since(1, 83, "raise in their finalizer")
@inside_and_around
@in_loop
async def test_after_the_close(calls: CallServer, place: Place) -> None:
    """An intercepted call on a closed pool fails as on a closed channel of gRPC's."""
    async with world(calls) as at:
        pool, plain = await intercepted(at, place, passes), native(at, passes)
        outcomes = []
        for channel in (plain, pool):
            await channel.close()

            async def whole(channel: Any = channel) -> Any:
                return await UNARY.whole(channel)

            outcomes.append(await outcome_of(whole()))
        assert outcomes[0] == outcomes[1]
        assert outcomes[0][0] is grpc.aio.UsageError


@in_loop
async def test_closed_meanwhile(calls: CallServer) -> None:
    """Intercepted calls that run or wait when the pool closes are over when `close()` returns."""
    async with world(calls) as at:
        for place in POOLS:
            pool = await intercepted(at, place, passes)
            if place == "lists later":
                append(pool, passes)
            await _close_with_two(at, pool)


async def _close_with_two(at: World, pool: Any) -> None:
    tag = new_tag()
    running = asyncio.create_task(outcome_of(UNARY.whole(pool, f"hold:{tag}")))
    await at.until_held(tag)
    waiting = asyncio.create_task(outcome_of(UNARY.whole(pool)))
    await until(lambda: pool.stats().waiting == 1)
    await pool.close()
    assert await running == ("cancelled",)
    assert await waiting == ("error", grpc.StatusCode.CANCELLED, "Channel closed!")
    assert (pool.stats().in_flight, pool.stats().waiting) == (0, 0)


@pytest.mark.skipif(GRPC_RELEASE < (1, 83), reason="gRPC itself reports what interceptors raise")
@pytest.mark.parametrize("place", ["argument", "native"])
@pytest.mark.parametrize("way", KINDS, ids=str)
@in_loop
async def test_what_interceptors_raise_is_not_reported_as_unseen(calls: CallServer, place: Any, way: Way) -> None:
    """A call that is dropped leaves no "Task exception was never retrieved", however its interceptors end."""
    reported: list[Any] = []
    async with world(calls) as at:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["message"]))
        channel: Any = native(at, raises) if place == "native" else await intercepted(at, place, raises)
        call = way.begin(channel)
        await until(call.done)
        del call
        way.begin(channel)
        await settle(10)
        gc.collect()
        await settle(10)
    assert "Task exception was never retrieved" not in reported
