"""A dropped call ends as gRPC's, and nothing of a finished call is left, without help of the garbage collector."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import grpc
import pytest

import grpcpool
from aio_calls.support import Full, World, begun, failing, world
from aio_calls.support_interceptors import of_all_kinds, passes
from aio_calls.support_refusing import refusing
from grpcpool import PoolConfig, isolated
from grpcpool._aio.call import CallProxy
from grpcpool._aio.call_stages import Waiting
from grpcpool._aio.failed_call import Failed
from grpcpool._aio.interceptors import add_interceptors
from grpcpool._grpc.cancel_messages import keeping_message
from grpcpool._grpc.release import GRPC_RELEASE
from grpcpool.aio import ChannelPool
from support.aio_pools import at_rest
from support.aio_ways import END_DROPPED, END_UNREAD, KINDS, STREAM, UNARY, WAYS, Way, outcome_of
from support.call_server import CallServer, new_tag
from support.loops import in_loop, until
from support.waiting import LONG, eventually

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
    left = _Left()
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
    left = _Left()
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
        assert not [each for each in gc.get_objects() if isinstance(each, _NATIVE) and not each.done()]


# --- finished -------------------------------------------------------------------------------------------------------

_GRPC: Any = grpc.aio
_NATIVE = (
    _GRPC._call.UnaryUnaryCall,
    _GRPC._call.UnaryStreamCall,
    _GRPC._call.StreamUnaryCall,
    _GRPC._call.StreamStreamCall,
)
# Without `Running`, which gRPC's own call holds in a cycle of its own.
_OURS = (CallProxy, Failed, Waiting)


class _Left:
    """The pool's own objects for calls that did not exist before."""

    def __init__(self) -> None:
        gc.collect()
        self._before = {id(each): each for each in self._all()}

    @staticmethod
    def _all() -> list[Any]:
        return [each for each in gc.get_objects() if isinstance(each, _OURS)]

    def __call__(self, *but: type) -> list[str]:
        """All of them, except those of the types `but`."""
        return [repr(each) for each in self._all() if id(each) not in self._before and not isinstance(each, but)]


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
    left = _Left()
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
    left = _Left()
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
    left = _Left()
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
