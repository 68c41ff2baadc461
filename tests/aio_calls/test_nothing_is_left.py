"""Nothing of a finished call is left, without help of the garbage collector."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import pytest

import grpcpool
from aio_calls.leftovers import Left
from aio_calls.support import Full, World, begun, world
from aio_calls.support_refusing import refusing
from aio_calls.test_abandoned import _released
from grpcpool import PoolConfig, isolated
from grpcpool._aio.call_stages import Waiting
from grpcpool._grpc.cancel_messages import keeping_message
from grpcpool._grpc.version import GRPC_RELEASE
from support.aio_pools import at_rest
from support.aio_ways import STREAM, UNARY, WAYS, Way, outcome_of
from support.call_server import CallServer, new_tag
from support.loops import in_loop, until
from support.waiting import eventually

pytestmark = pytest.mark.timeout(60)


Use = Callable[[World, Any, Way], Coroutine[Any, Any, None]]


async def _used(at: World, pool: Any, way: Way) -> None:
    await way.whole(pool)


async def _used_with_callback(at: World, pool: Any, way: Way) -> None:
    call = way.begin(pool)
    call.add_done_callback(lambda call: None)
    await way.use(call)


async def _asked(at: World, pool: Any, way: Way) -> None:
    call = way.begin(pool)
    asking = [asyncio.create_task(ask()) for ask in (call.code, call.details, call.initial_metadata)]
    await way.use(call)
    await asyncio.gather(*asking)


async def _failed(at: World, pool: Any, way: Way) -> None:
    await outcome_of(way.whole(pool, "fail"))


async def _failed_and_caught(at: World, pool: Any, way: Way) -> None:
    with contextlib.suppress(grpc.RpcError):
        await way.whole(pool, "fail")


async def _cancelled(at: World, pool: Any, way: Way) -> None:
    call = way.begin(pool)
    call.cancel()
    await outcome_of(way.take(call))


async def _cancelled_with_callback(at: World, pool: Any, way: Way) -> None:
    call = way.begin(pool)
    call.add_done_callback(lambda call: None)
    call.cancel()


async def _too_late(at: World, pool: Any, way: Way) -> None:
    await outcome_of(way.take(way.begin(pool, timeout=0)))


async def _several(at: World, pool: Any, way: Way) -> None:
    if way.streams_out:
        return
    call = way.begin(pool)
    tasks = [asyncio.create_task(way.take(call)) for _ in range(3)]
    await way.use(call)
    await asyncio.gather(*tasks)


_USES: tuple[Use, ...] = (
    _used,
    _used_with_callback,
    _asked,
    _failed,
    _failed_and_caught,
    _cancelled,
    _cancelled_with_callback,
    _too_late,
    _several,
)


@pytest.mark.usefixtures("_not_collecting")
@pytest.mark.parametrize("use", _USES, ids=lambda use: use.__name__.strip("_"))
@pytest.mark.parametrize("wait", [False, True], ids=["at_once", "after_a_wait"])
@in_loop
async def test_nothing_is_left_of_a_call(calls: CallServer, use: Use, wait: bool) -> None:
    """No cycle of the pool's objects holds a finished call, its waiter or its end, however it ended."""
    left = Left()
    async with world(calls) as at:
        pool = await at.pool()
        for way in WAYS:
            full = await Full.of(pool)
            if not wait:
                full.make_room()
            using = asyncio.create_task(use(at, pool, way))
            await asyncio.sleep(0)
            full.make_room()
            await using
            del using
            await _released(pool)
        # Its waiter stays in the queue's heap until there are many.
        assert left(Waiting) == []


@pytest.mark.usefixtures("_not_collecting")
@in_loop
async def test_nothing_is_left_of_a_failed_wait() -> None:
    """No cycle through an error's traceback holds the future with which gRPC reports the failure of a batch."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def receive(future: asyncio.Future[None]) -> None:
        try:
            await future
        finally:
            # The traceback holds no variable of gRPC's compiled functions.
            del future

    async def wait(work: Coroutine[Any, Any, None]) -> None:
        await keeping_message(work)

    waiting = asyncio.create_task(wait(receive(future)))
    await asyncio.sleep(0)
    future.set_exception(ArithmeticError)
    gone = weakref.ref(future)
    del future
    with pytest.raises(ArithmeticError):
        await waiting
    del waiting
    assert gone() is None


@pytest.mark.usefixtures("_not_collecting")
@in_loop
async def test_nothing_is_left_of_refused_calls(calls: CallServer) -> None:
    """Nothing is left of calls that the pool refused: too many waiters, timed out, or closed."""
    left = Left()
    async with world(calls) as at:
        pool = await at.pool(max_waiters=1, acquire_timeout=0.05)
        full = await Full.of(pool)
        for way in WAYS:
            made = [way.begin(pool, timeout=None) for _ in range(2)]
            for call in made:
                assert (await outcome_of(way.take(call)))[0] == "error"
            del call, made
        waiting = UNARY.begin(pool)
        await pool.close()
        assert (await outcome_of(waiting))[0] == "error"
        full.make_room()
        del waiting
        assert left(Waiting) == []


class _Request:
    """A request that can be referred to weakly."""


def _unserializable(request: _Request) -> bytes:
    raise ValueError("as the test wants")


@pytest.mark.skipif(GRPC_RELEASE < (1, 83), reason="gRPC itself keeps it")
@pytest.mark.usefixtures("_not_collecting")
@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("way", [UNARY, STREAM], ids=str)
@in_loop
async def test_nothing_is_left_of_a_request_without_a_serialization(calls: CallServer, way: Way, waits: bool) -> None:
    """The error of the serializer holds nothing that holds the error."""
    async with world(calls) as at:
        full = await at.full()
        if not waits:
            full.make_room()
        request = _Request()
        gone = weakref.ref(request)
        make: Any = getattr(full.pool, way.maker)
        call = make(way.method, _unserializable)(request)
        full.make_room()
        with contextlib.suppress(ValueError, grpc.RpcError):
            await way.take(call)
        del call, request, make
        await until(lambda: gone() is None)


@in_loop
async def test_a_channel_closes_while_a_task_reads_a_call_of_a_pool(calls: CallServer) -> None:
    """Before 1.83 a channel looks for its calls in all tasks: one of a pool is none of them."""
    async with world(calls) as at:
        pool = await at.pool()
        other: Any = grpc.aio.insecure_channel(calls.target, isolated())
        for way in WAYS:
            tag = new_tag()
            call = way.begin(pool, f"hold:{tag}")
            (asking,) = await begun(call.code())
            await other.close()
            call.cancel()
            assert await asking is grpc.StatusCode.CANCELLED


@pytest.mark.usefixtures("_not_collecting")
@in_loop
async def test_nothing_is_left_of_repeated_calls() -> None:
    """Nothing is left of calls that a server refused and that were sent again."""
    left = Left()
    async with refusing(6) as peer:
        config = PoolConfig(min_size=10, max_size=10, max_resends=6)
        async with grpcpool.aio.insecure_channel(peer.target, config=config) as pool:
            await pool.open()
            for way in (UNARY, STREAM):
                for _ in range(3):
                    assert await way.whole(pool)
            assert peer.refused == 6
            await _released(pool)
            assert left(Waiting) == []


@in_loop
async def test_a_call_keeps_its_pool(calls: CallServer) -> None:
    """A call keeps its pool alive, as gRPC's calls keep their channel alive."""
    async with world(calls):
        pool = grpcpool.aio.insecure_channel(calls.target)
        await pool.open()
        call = UNARY.begin(pool)
        gone = weakref.ref(pool)
        del pool
        gc.collect()
        assert await call == b"0"
        del call
        await until(lambda: gc.collect() >= 0 and gone() is None, timeout=5)


@in_loop
async def test_at_the_end_of_the_loop(calls: CallServer) -> None:
    """Calls dropped after the close of their pool do no harm."""
    async with world(calls) as at:
        pool = await at.pool()
        made = [way.begin(pool) for way in WAYS]
        await pool.close()
        del made
        gc.collect()
        await at_rest(pool)


@pytest.mark.parametrize("runs", [True, False])
def test_what_nothing_holds_ends_with_the_loop(calls: CallServer, runs: bool) -> None:
    """Calls that nothing holds, running or waiting for a place, keep neither their pool nor its driver."""
    left: list[weakref.ref[Any]] = []

    async def use() -> None:
        pool = grpcpool.aio.insecure_channel(calls.target, config=PoolConfig(max_size=1, max_streams=1))
        await pool.open()
        left.extend([weakref.ref(pool), weakref.ref(pool._driver)])
        blocker = None if runs else UNARY.begin(pool, f"hold:{new_tag()}")
        UNARY.begin(pool, f"hold:{new_tag()}", timeout=3600)
        await asyncio.sleep(0.01)
        del pool, blocker

    loop = asyncio.new_event_loop()
    loop.run_until_complete(use())
    loop.close()
    eventually(lambda: gc.collect() >= 0 and [each() for each in left] == [None, None])


@pytest.mark.usefixtures("_not_collecting")
@pytest.mark.parametrize("end", ["closed", "closed while a call runs", "dropped"])
@in_loop
async def test_the_loop_holds_nothing_of_a_pool_that_is_over(calls: CallServer, end: str) -> None:
    """The loop lets go of the timer of a pool that holds calls which nothing else does."""
    async with world(calls) as at:
        pool = grpcpool.aio.insecure_channel(calls.target)
        tag = new_tag()
        UNARY.begin(pool, f"hold:{tag}")
        await at.until_held(tag)
        held = pool._driver._kept
        assert held()
        if end != "closed while a call runs":
            await at.let_go(tag)
            await _released(pool)
            assert held() is not None
        if end == "dropped":
            del pool
        else:
            await pool.close()
        await until(lambda: held() is None)
