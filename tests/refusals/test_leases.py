"""A lease is one connection: a refused call on it has nowhere else to go, and its caller gets the error.

The pool counts the refusal and emits an event, and lowers the connection's limit to what is held of it by then, until
the limit has recovered. It does not where the lease is a single stream, alone on its connection: then the server sheds
load, and the connection is only avoided.
"""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from grpcpool import ChannelPool
from grpcpool.events import Avoided, RefusedStream
from grpcpool.testing import ManualClock
from refusals.conftest import PoolOpener
from refusals.test_calls import STEP
from refusals.test_limit import FUTURE, hold
from refusals.test_request_iterators import aio_refusal
from support import aio_ways
from support.aio_pools import at_rest, pool_over
from support.loops import in_loop
from support.pools import Recorder, assert_at_rest
from support.refusing_counts import Count
from support.refusing_server import RefusingServer
from support.waiting import eventually
from support.ways import WAYS, Way

pytestmark = pytest.mark.timeout(60)

ASKS = pytest.mark.parametrize("streams", [None, 1, 5], ids=["whole", "one_stream", "five_streams"])


def _assert_learned(pool: Any, recorder: Recorder, number: int, streams: int | None) -> None:
    """Exactly `number` refusals were counted and emitted, with the limit that the connection has; only one is emitted.

    A call that is alone leaves the limit, and the connection is avoided; else the limit is what is leased.
    """
    limit = {None: 90, 1: 90, 5: 5}[streams]
    avoided = int(limit == 90)
    # gRPC's own thread emits some of the events, while the caller already has its error.
    eventually(lambda: (len(recorder.of(RefusedStream)), len(recorder.of(Avoided))) == (number, avoided))
    assert pool.stats().refused_streams == number
    assert [event.limit for event in recorder.of(RefusedStream)] == [limit] * number
    assert sorted(channel.limit for channel in pool.stats().channels) == [limit, 90]
    assert [event.code for event in recorder.of(Avoided)] == ([None] if limit == 90 else [])
    assert pool.stats().avoided == (limit == 90)


def _failure(channel: grpc.Channel, way: Way) -> tuple[Any, ...]:
    with pytest.raises(grpc.RpcError) as caught:
        way.finish(way.begin(channel))
    error: Any = caught.value
    return type(error), error.code(), error.details()


@ASKS
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_the_caller_gets_the_error(
    refusing: RefusingServer, plain: grpc.Channel, open_pool: PoolOpener, way: Way, streams: int | None
) -> None:
    """The caller gets the refusal as gRPC's own error, nothing is sent again, and the place is released."""
    pool = open_pool(min_size=2, max_size=2)
    refusing.begin(open=0)
    expected = _failure(plain, way)
    assert expected[1] is grpc.StatusCode.UNAVAILABLE
    with pool.acquire(streams=streams) as lease:
        refusing.begin(open=0)
        assert _failure(lease, way) == expected
        assert refusing.report().all == Count(begun=1, refused=1)
        # The next call may succeed.
        refusing.begin()
        assert way.finish(way.begin(lease))
    assert_at_rest(pool)
    assert len(pool.stats().channels) == 2


@ASKS
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_it_is_counted(
    refusing: RefusingServer,
    open_pool: PoolOpener,
    recorder: Recorder,
    clock: ManualClock,
    way: Way,
    streams: int | None,
) -> None:
    """Each refusal is counted and emitted; the limit is lowered to what is leased, except by a call that is alone."""
    pool = open_pool(min_size=2, max_size=2)
    refusing.begin(open=0)
    with pool.acquire(streams=streams) as lease:
        _failure(lease, way)
        # A future has its result a moment before it counts as over: the second call would not be alone.
        eventually(lambda: recorder.of(RefusedStream))
        _failure(lease, way)
    assert_at_rest(pool)
    _assert_learned(pool, recorder, 2, streams)


def test_after_a_whole_lease_the_limit_holds(
    refusing: RefusingServer, open_pool: PoolOpener, clock: ManualClock
) -> None:
    """After a lease with refused calls, the connection gets no more calls than its lowered limit."""
    pool = open_pool(max_size=1, max_streams=10)
    refusing.begin(open=2)
    with pool.acquire() as lease:
        running = [FUTURE.begin(lease, f"hold:{tag}") for tag in "ab"]
        eventually(lambda: set(refusing.report().held) == set("ab"))
        _failure(lease, WAYS[0])
        for tag in "ab":
            refusing.let_go(tag)
        assert [call.result(20) for call in running] == [b"1"] * 2
    refusing.begin(open=10)
    calls = [FUTURE.begin(pool, f"hold:{tag}") for tag in "cdef"]
    eventually(lambda: pool.stats().waiting == 2)
    assert [(channel.in_flight, channel.limit) for channel in pool.stats().channels] == [(2, 2)]
    clock.advance(STEP)
    clock.advance(STEP)
    eventually(lambda: set(refusing.report().held) == set("cdef"))
    for tag in "cdef":
        refusing.let_go(tag)
    assert [call.result(20) for call in calls] == [b"1"] * 4
    assert_at_rest(pool)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_lone_stream_beside_calls(
    refusing: RefusingServer, open_pool: PoolOpener, recorder: Recorder, clock: ManualClock, way: Way
) -> None:
    """Beside other calls, a refused call on a single stream lowers the limit to what is in flight."""
    pool = open_pool(max_size=1)
    held = hold(refusing, pool, "a", "b")
    refusing.refuse(open=2)
    with pool.acquire(streams=1) as lease:
        _failure(lease, way)
        # gRPC's own thread emits the event for some calls, while the caller already has its error.
        eventually(lambda: recorder.of(RefusedStream))
        assert [event.limit for event in recorder.of(RefusedStream)] == [3]
        assert [(channel.in_flight, channel.limit) for channel in pool.stats().channels] == [(3, 3)]
    assert recorder.of(Avoided) == []
    for tag in "ab":
        refusing.let_go(tag)
    assert [call.result(20) for call in held] == [b"1"] * 2
    assert_at_rest(pool)


@pytest.mark.parametrize("give_back", ["release", "discard"])
def test_a_call_that_outlives_its_lease(refusing: RefusingServer, open_pool: PoolOpener, give_back: str) -> None:
    """A call refused after the release of its lease releases its place, once."""
    pool: ChannelPool = open_pool(max_size=1)
    refusing.begin(open=0, held=True)
    lease = pool.acquire(streams=2)
    multicallable: Any = lease.unary_unary("/refusals.Test/Uu")
    call = multicallable.future(b"ok", timeout=20)
    getattr(lease, give_back)()
    refusing.let_go("refusals")
    with pytest.raises(grpc.RpcError):
        call.result(20)
    assert_at_rest(pool)


# --- on asyncio -----------------------------------------------------------------------------------------------------


AIO_WAYS = pytest.mark.parametrize("way", [way for way in aio_ways.WAYS if not way.writes], ids=str)


@ASKS
@AIO_WAYS
@in_loop
async def test_the_caller_gets_the_error_on_asyncio(
    refusing: RefusingServer, way: aio_ways.Way, streams: int | None
) -> None:
    """The caller gets the refusal as gRPC's own error, nothing is sent again, and the place is released."""
    refusing.begin(open=0)
    async with refusing.aio_channel() as plain:
        expected = await aio_refusal(plain, way)
    async with pool_over(refusing.aio_channel, min_size=2, max_size=2) as pool:
        await pool.open()
        async with pool.acquire(streams=streams) as lease:
            refusing.begin(open=0)
            assert await aio_refusal(lease, way) == expected
            assert refusing.report().all == Count(begun=1, refused=1)
            refusing.begin()
            assert await way.whole(lease)
        await at_rest(pool)


@ASKS
@AIO_WAYS
@in_loop
async def test_it_is_counted_on_asyncio(
    refusing: RefusingServer, recorder: Recorder, clock: ManualClock, way: aio_ways.Way, streams: int | None
) -> None:
    """Each refusal is counted and emitted; the limit is lowered to what is leased, except by a call that is alone."""
    async with pool_over(refusing.aio_channel, listeners=[recorder], min_size=2, max_size=2) as pool:
        await pool.open()
        refusing.begin(open=0)
        async with pool.acquire(streams=streams) as lease:
            await aio_refusal(lease, way)
            await aio_refusal(lease, way)
        await at_rest(pool)
        _assert_learned(pool, recorder, 2, streams)
