"""A dropped call ends as gRPC's, without help of the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

import grpcpool
from aio_calls.leftovers import NATIVE, Left
from aio_calls.support import Full, World, begun, failing, world
from aio_calls.support_interceptors import of_all_kinds, passes
from aio_calls.support_refusing import refusing
from grpcpool import PoolConfig
from grpcpool._aio.call_stages import Waiting
from grpcpool._aio.interceptors import add_interceptors
from grpcpool._grpc.version import GRPC_RELEASE
from grpcpool.aio import ChannelPool
from support.aio_ways import END_DROPPED, END_UNREAD, KINDS, UNARY, WAYS, Way
from support.call_server import CallServer, new_tag
from support.loops import in_loop, until
from support.waiting import LONG

pytestmark = pytest.mark.timeout(60)


STREAMS = tuple(way for way in WAYS if way.streams_out)


@pytest.fixture(params=[True, False], ids=["collecting", "not_collecting"])
def collecting(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether Python's garbage collector is on; without it only objects outside cycles are freed."""
    gc.collect()
    if not request.param:
        gc.disable()
    yield request.param
    gc.enable()


async def _released(pool: ChannelPool) -> None:
    await until(lambda: pool.stats().in_flight == 0, timeout=5)
    assert pool.stats().waiting == 0


# --- dropped --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [False, True], ids=["at_once", "after_a_wait"])
@pytest.mark.parametrize("read", [0, 1], ids=["unread", "half_read"])
@pytest.mark.parametrize("way", END_DROPPED, ids=str)
@in_loop
async def test_a_running_call(calls: CallServer, collecting: bool, way: Way, read: int, wait: bool) -> None:
    """A stream dropped while it runs is cancelled on the server, and its place is released."""
    if read and not way.streams_out:
        pytest.skip("there is one response, or none")
    async with world(calls) as at:
        pool = await at.pool()
        full = await Full.of(pool)
        if not wait:
            full.make_room()
        tag = new_tag()
        call = way.begin(pool, f"hold:{tag}")
        full.make_room()
        await way.send(call, f"hold:{tag}")
        for _ in range(read):
            assert await way.first(call) == b"0"
        await at.until_held(tag)
        assert pool.stats().in_flight == 1
        gone = weakref.ref(call)
        del call
        assert gone() is None
        await _released(pool)
        await at.until_let_go(tag)


@pytest.mark.parametrize("over", ["bare", "pool", "after a wait", "lease", "handle", "interceptor"])
@pytest.mark.parametrize("way", END_UNREAD, ids=str)
@in_loop
async def test_a_call_for_what_it_does(calls: CallServer, collecting: bool, way: Way, over: str) -> None:
    """A call with one response that nothing holds is made and ends by itself, as on a channel of gRPC's."""
    async with world(calls) as at:
        pool = await at.pool()
        full = await Full.of(pool)
        channel = await _channel(at, pool, over)
        if over != "after a wait":
            full.make_room()
        tag = new_tag()
        way.begin(channel, f"note:{tag}")
        full.make_room()
        while tag not in await at.tell("notes"):  # noqa: ASYNC110 -- the server is asked
            await asyncio.sleep(0.002)
        if over == "lease":
            channel.release()
        await _released(pool)


async def _channel(at: World, pool: ChannelPool, over: str) -> Any:
    match over:
        case "bare":
            return at.plain
        case "lease":
            return at.enter(await (await at.pool()).acquire())
        case "handle":
            return at.enter(grpcpool.aio.shared_channel(at.server.target))
        case "interceptor":
            add_interceptors(pool, of_all_kinds(passes))
    return pool


@pytest.mark.usefixtures("_not_collecting")
@pytest.mark.parametrize("wait", [False, True], ids=["at_once", "after_a_wait"])
@pytest.mark.parametrize("way", END_UNREAD, ids=str)
@in_loop
async def test_nothing_is_left_of_a_call_for_what_it_does(calls: CallServer, way: Way, wait: bool) -> None:
    """Neither of one that succeeds, nor of one that fails, nor of one that gRPC cannot send."""
    left = Left()
    async with world(calls) as at:
        pool = await at.pool(max_streams=4)
        holds = None if not wait else await pool.acquire()
        way.begin(pool)
        way.begin(pool, "fail")
        way.begin(pool, serializer=failing)
        if way is UNARY or GRPC_RELEASE >= (1, 83):
            # Before, gRPC itself never ends a stream of requests whose metadata it refuses.
            way.begin(pool, metadata=(("no such name", "x"),))
        if holds is not None:
            holds.release()
        await _released(pool)
        assert left(Waiting) == []


@in_loop
async def test_a_refused_call_that_nothing_holds() -> None:
    """It is sent again, at most `max_resends` times."""
    async with refusing(6) as peer:
        config = PoolConfig(min_size=10, max_size=10, max_resends=6)
        async with grpcpool.aio.insecure_channel(peer.target, config=config) as pool:
            await pool.open()
            UNARY.begin(pool)
            await until(lambda: pool.stats().acquired == 7)
            assert peer.refused == 6
            await _released(pool)
    async with refusing(6) as peer:
        config = PoolConfig(min_size=10, max_size=10, max_resends=2)
        async with grpcpool.aio.insecure_channel(peer.target, config=config) as pool:
            await pool.open()
            UNARY.begin(pool)
            await until(lambda: peer.refused == 3)
            await _released(pool)
            assert pool.stats().acquired == 3


@pytest.mark.parametrize("handle", [False, True])
@pytest.mark.parametrize("way", END_UNREAD, ids=str)
@in_loop
async def test_closing_ends_calls_that_nothing_holds(calls: CallServer, way: Way, handle: bool) -> None:
    """`close()` of their pool, or of their handle, cancels them, as that of a channel does."""
    async with world(calls) as at:
        pool: Any = grpcpool.aio.shared_channel(calls.target) if handle else await at.pool()
        tag = new_tag()
        way.begin(pool, f"hold:{tag}")
        await at.until_held(tag)
        closing = asyncio.create_task(pool.close(LONG))
        await until(lambda: pool.closed)
        assert tag in await at.tell("held")
        await pool.close(0.0)
        await closing
        await at.until_let_go(tag)
        await _released(pool)


@pytest.mark.parametrize("way", WAYS, ids=str)
@in_loop
async def test_a_call_that_was_just_made(calls: CallServer, collecting: bool, way: Way) -> None:
    """A call dropped at once does not keep its place for ever, nor its position in the queue."""
    async with world(calls) as at:
        pool = await at.pool()
        for _ in range(3):
            way.begin(pool)
        assert pool.stats().acquired >= 1
        await _released(pool)


@pytest.mark.parametrize("way", STREAMS, ids=str)
@in_loop
async def test_a_loop_left_by_an_exception(calls: CallServer, collecting: bool, way: Way) -> None:
    """A loop over a call, or over `read`, that is left by an exception releases the place."""
    async with world(calls) as at:
        pool = await at.pool()

        async def break_off(tag: str) -> None:
            call = way.begin(pool, f"hold:{tag}")
            await way.send(call, f"hold:{tag}")
            if way.takes == "read":
                assert await call.read() == b"0"
                raise ArithmeticError
            async for response in call:
                assert response == b"0"
                raise ArithmeticError

        tag = new_tag()
        with pytest.raises(ArithmeticError):
            await break_off(tag)
        await _released(pool)
        await at.until_let_go(tag)


@pytest.mark.parametrize("way", STREAMS, ids=str)
@in_loop
async def test_an_iterator_holds_the_call(calls: CallServer, collecting: bool, way: Way) -> None:
    """The iterator holds the call, which continues until the iterator is dropped."""
    if way.takes == "read":
        pytest.skip("there is no iterator")
    async with world(calls) as at:
        pool = await at.pool()
        tag = new_tag()
        call = way.begin(pool, f"hold:{tag}")
        await way.send(call, f"hold:{tag}")
        responses = aiter(call)
        del call
        assert await anext(responses) == b"0"
        await at.until_held(tag)
        assert pool.stats().in_flight == 1
        del responses
        await _released(pool)
        await at.until_let_go(tag)


@pytest.mark.parametrize("way", WAYS, ids=str)
@in_loop
async def test_a_cancelled_task(calls: CallServer, collecting: bool, way: Way) -> None:
    """A task cancelled while it uses a call, running or waiting, leaves nothing."""
    async with world(calls) as at:
        pool = await at.pool()
        tag = new_tag()
        running = asyncio.create_task(way.whole(pool, f"hold:{tag}"))
        await at.until_held(tag)
        (waiting,) = await begun(way.whole(pool))
        assert pool.stats().waiting == 1
        for task in (waiting, running):
            task.cancel()
            await asyncio.wait([task])
        # A cancelled task holds the frame in which it was.
        del task, running, waiting
        await _released(pool)
        await at.until_let_go(tag)


@pytest.mark.usefixtures("_not_collecting")
@in_loop
async def test_abandoned_by_the_thousand(calls: CallServer) -> None:
    """Two thousand calls made and dropped, running and waiting, leave neither places nor objects."""
    left = Left()
    async with world(calls) as at:
        pool = await at.pool(max_size=2, max_streams=20, max_waiters=None)
        for _ in range(50):
            made = [way.begin(pool, "ok" if way.ends_unread else "hold:nobody") for way in KINDS * 10]
            await asyncio.sleep(0)
            del made
        await _released(pool)
        # A waiter that got its place stays in the queue's heap until there are many.
        assert left(Waiting) == []
        gc.collect()
        # gRPC's own are in cycles, but none of them is impossible to free.
        assert not [each for each in gc.get_objects() if isinstance(each, NATIVE) and not each.done()]
