"""A call whose requests are an iterator is sent once: its caller gets the refusal as gRPC's own error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from grpcpool.events import Avoided, RefusedStream
from grpcpool.testing import ManualClock
from refusals.conftest import PoolOpener
from refusals.test_limit import loads
from support import aio_ways
from support.aio_pools import at_rest, pool_over
from support.loops import in_loop, until
from support.pools import Recorder, assert_at_rest
from support.refusing_counts import Count
from support.refusing_server import RefusingServer
from support.waiting import LONG, eventually
from support.ways import WAYS, Way

pytestmark = pytest.mark.timeout(60)

BUSY = pytest.mark.parametrize("busy", [False, True], ids=["alone", "busy"])
STREAMS_IN = tuple(way for way in WAYS if way.streams_in)
AIO_STREAMS_IN = tuple(way for way in aio_ways.WAYS if way.streams_in)


class _Requests:
    """Requests that count how many were taken."""

    def __init__(self, number: int) -> None:
        self.taken = 0
        self._number = number

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self.taken == self._number:
            raise StopIteration
        self.taken += 1
        return b"ok"


def _assert_learned(pool: Any, recorder: Recorder, *, busy: bool) -> None:
    """A busy connection that refused a call has a lower limit; one that carried nothing else is only avoided."""
    (event,) = recorder.of(RefusedStream)
    (channel,) = (channel for channel in pool.stats().channels if channel.id == event.channel)
    assert channel.limit == event.limit
    assert (event.limit < 90) == busy
    assert channel.avoided == (not busy)
    assert [event.channel for event in recorder.of(Avoided)] == ([] if busy else [channel.id])


def _told(error: Any) -> tuple[Any, ...]:
    # Now and then gRPC adds that it was sending just then.
    return type(error), error.code(), error.details().split(" (Error in HTTP transport")[0]


def _refusal(channel: grpc.Channel, way: Way, requests: Iterator[bytes] | None = None) -> tuple[Any, ...]:
    with pytest.raises(grpc.RpcError) as caught:
        way.finish(way.begin(channel, requests=requests))
    return _told(caught.value)


@BUSY
@pytest.mark.parametrize("way", STREAMS_IN, ids=str)
def test_its_refusal_is_grpcs_own_error(
    refusing: RefusingServer,
    plain: grpc.Channel,
    open_pool: PoolOpener,
    recorder: Recorder,
    clock: ManualClock,
    way: Way,
    *,
    busy: bool,
) -> None:
    """The error is that of gRPC's own channel; nothing is sent again; the pool still learns from the refusal."""
    pool = open_pool(min_size=2, max_size=2)
    leases = [pool.acquire(streams=1) for _ in range(2 * busy)]
    refusing.begin(open=0)
    expected = _refusal(plain, way)
    assert expected[1] is grpc.StatusCode.UNAVAILABLE
    refusing.begin(open=0)
    assert _refusal(pool, way) == expected
    eventually(lambda: pool.stats().in_flight == len(leases))
    assert loads(pool) == [busy, busy]
    for lease in leases:
        lease.release()
    assert_at_rest(pool)
    told = refusing.report()
    assert told.all == Count(begun=1, refused=1)
    assert told.handled == {}
    assert pool.stats().refused_streams == 1
    _assert_learned(pool, recorder, busy=busy)


@pytest.mark.parametrize("way", STREAMS_IN, ids=str)
def test_its_requests_are_read_once(refusing: RefusingServer, open_pool: PoolOpener, way: Way) -> None:
    """No second attempt takes requests that the first has left."""
    pool = open_pool(min_size=2, max_size=2)
    refusing.begin(open=0)
    requests = _Requests(1000)
    _refusal(pool, way, requests)
    assert_at_rest(pool)
    taken = requests.taken
    assert refusing.report().all.begun == 1
    refusing.begin()
    assert way.finish(way.begin(pool))
    assert requests.taken <= taken + 1


@pytest.mark.parametrize("way", STREAMS_IN, ids=str)
def test_a_limit_is_lowered_to_the_running_calls(
    refusing: RefusingServer, open_pool: PoolOpener, clock: ManualClock, way: Way
) -> None:
    """The limit is lowered to the calls that run, so that the next calls are not refused."""
    pool = open_pool(max_size=1, max_streams=10)
    refusing.begin(open=2)
    held = [STREAMS_IN[-1].begin(pool, f"hold:{tag}") for tag in "ab"]
    assert [next(call) for call in held] == [b"0", b"0"]
    _refusal(pool, way)
    eventually(lambda: pool.stats().in_flight == 2)
    assert [channel.limit for channel in pool.stats().channels] == [2]
    for tag in "ab":
        refusing.let_go(tag)
    assert [list(call) for call in held] == [[b"1"], [b"1"]]
    assert_at_rest(pool)


# --- on asyncio -----------------------------------------------------------------------------------------------------


async def aio_refusal(channel: Any, way: aio_ways.Way) -> tuple[Any, ...]:
    """How a call with no requests except those that it must have ends for its caller when it is refused.

    If a request is being sent when the refusal arrives, asyncio's gRPC sometimes reports an internal error instead,
    from which the cause cannot be seen.
    """
    requests = {"iterator": iter(()), "async iterator": aio_ways.each()}.get(way.gives)
    call = way.begin(channel, requests=requests)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await way.take(call)
    return (*_told(caught.value), await call.code(), call.done())


@BUSY
@pytest.mark.parametrize("way", AIO_STREAMS_IN, ids=str)
@in_loop
async def test_its_refusal_is_grpcs_own_error_on_asyncio(
    refusing: RefusingServer, recorder: Recorder, clock: ManualClock, way: aio_ways.Way, *, busy: bool
) -> None:
    """The error is that of gRPC's own channel; nothing is sent again; the pool still learns from the refusal."""
    refusing.begin(open=0)
    async with refusing.aio_channel() as plain:
        expected = await aio_refusal(plain, way)
    async with pool_over(refusing.aio_channel, listeners=[recorder], min_size=2, max_size=2) as pool:
        await pool.open()
        leases = [await pool.acquire(streams=1) for _ in range(2 * busy)]
        refusing.begin(open=0)
        assert await aio_refusal(pool, way) == expected
        await until(lambda: pool.stats().in_flight == len(leases))
        for lease in leases:
            lease.release()
        await at_rest(pool)
        told = refusing.report()
        assert told.all == Count(begun=1, refused=1)
        assert pool.stats().refused_streams == 1
        _assert_learned(pool, recorder, busy=busy)


@in_loop
async def test_a_limit_is_lowered_to_the_running_calls_on_asyncio(refusing: RefusingServer, clock: ManualClock) -> None:
    """The limit is lowered to the calls that run, so that the next calls are not refused."""
    async with pool_over(refusing.aio_channel, max_size=1, max_streams=10) as pool:
        await pool.open()
        refusing.begin(open=2)
        way = aio_ways.WAYS[-1]
        held = [way.begin(pool, f"hold:{tag}") for tag in "ab"]
        for call, tag in zip(held, "ab", strict=True):
            await way.send(call, f"hold:{tag}")
            assert await way.first(call) == b"0"
        await aio_refusal(pool, AIO_STREAMS_IN[0])
        await until(lambda: pool.stats().in_flight == 2, LONG)
        assert [channel.limit for channel in pool.stats().channels] == [2]
        for tag in "ab":
            refusing.let_go(tag)
        for call in held:
            await call.done_writing()
            assert [message async for message in call] == [b"1"]
        await at_rest(pool)
