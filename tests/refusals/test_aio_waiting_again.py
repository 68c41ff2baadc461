"""A refused call on asyncio that waits for a place again is as complete as one that waits for its first place.

The server refuses everything, and the clock stands still: the call pauses until the test continues. It is alone, so
the connection's limit stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from grpcpool import PoolClosedError, PoolTimeoutError
from grpcpool.aio import ChannelPool
from grpcpool.testing import ManualClock
from refusals.test_calls import STEP
from support.aio_pools import at_rest, pool_over
from support.aio_ways import STREAM, UNARY, WAYS, Way, outcome_of, status_of
from support.loops import in_loop, settle, until
from support.refusing_server import RefusingServer

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("pauses")]

ONE_REQUEST = tuple(way for way in WAYS if not way.streams_in)
SOON = 10.0
"""Seconds for what is to happen at once."""
EACH_WAY = pytest.mark.parametrize("way", ONE_REQUEST, ids=str)


@contextlib.asynccontextmanager
async def refused_pool(refusing: RefusingServer, **config: Any) -> AsyncIterator[ChannelPool]:
    """A pool of one connection, to a server that refuses everything; afterwards it is at rest."""
    async with pool_over(refusing.aio_channel, **{"max_size": 1, **config}) as pool:
        await pool.open()
        refusing.begin(open=0)
        yield pool
        await at_rest(pool)


async def _until_it_waits(pool: ChannelPool) -> None:
    await until(lambda: pool.stats().waiting == 1)
    assert [(channel.in_flight, channel.limit) for channel in pool.stats().channels] == [(0, 90)]


async def _assert_never_handled(refusing: RefusingServer, pool: ChannelPool, clock: ManualClock) -> None:
    """Nothing of the call is left: the server, which refuses nothing any more, gets nothing more of it."""
    await at_rest(pool)
    refusing.begin()
    clock.advance(STEP)
    await settle(10)
    await at_rest(pool)
    assert refusing.report().all.begun == 0


@EACH_WAY
@in_loop
async def test_it_answers_like_a_running_call(refusing: RefusingServer, clock: ManualClock, way: Way) -> None:
    """The call is not done, and its time runs."""
    async with refused_pool(refusing) as pool:
        call = way.begin(pool, timeout=20)
        await _until_it_waits(pool)
        clock.advance(2.0)
        assert (call.done(), call.cancelled()) == (False, False)
        assert 17 < call.time_remaining() <= 18
        assert repr(call)
        call.cancel()


@EACH_WAY
@in_loop
async def test_cancelled(refusing: RefusingServer, clock: ManualClock, way: Way) -> None:
    """A cancelled call is over at once, its callbacks are called once, and it is not sent again."""
    async with refused_pool(refusing) as pool:
        call = way.begin(pool)
        told: list[Any] = []
        call.add_done_callback(lambda call: told.append((call.done(), call.cancelled())))
        await _until_it_waits(pool)
        assert call.cancel()
        assert not call.cancel()
        assert await outcome_of(way.take(call)) == ("cancelled",)
        assert (await status_of(call))[:3] == (True, True, grpc.StatusCode.CANCELLED)
        await _assert_never_handled(refusing, pool, clock)
        assert told == [(True, True)]


@EACH_WAY
@in_loop
async def test_cancelling_an_awaiting_task(refusing: RefusingServer, clock: ManualClock, way: Way) -> None:
    """As in gRPC, cancelling the task that awaits the answer cancels the call."""
    async with refused_pool(refusing) as pool:
        call = way.begin(pool)
        task = asyncio.create_task(way.take(call))
        await _until_it_waits(pool)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert call.cancelled()
        await _assert_never_handled(refusing, pool, clock)


@EACH_WAY
@in_loop
async def test_cancelling_an_asking_task(refusing: RefusingServer, clock: ManualClock, way: Way) -> None:
    """Cancelling a task that asks for the call's code does not affect the call."""
    async with refused_pool(refusing) as pool:
        call = way.begin(pool)
        task = asyncio.create_task(call.code())
        await _until_it_waits(pool)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not call.done()
        refusing.begin()
        clock.advance(STEP)
        assert await way.take(call)
        assert await call.code() is grpc.StatusCode.OK


@EACH_WAY
@in_loop
async def test_its_deadline_passes(refusing: RefusingServer, clock: ManualClock, way: Way) -> None:
    """The call fails `DEADLINE_EXCEEDED`, not `UNAVAILABLE`, because its caller set that deadline."""
    async with refused_pool(refusing) as pool:
        call = way.begin(pool, timeout=60)
        task = asyncio.create_task(way.take(call))
        await _until_it_waits(pool)
        clock.advance(30)
        await _until_it_waits(pool)
        assert not task.done()
        clock.advance(30)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await task
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        assert isinstance(caught.value.__cause__, PoolTimeoutError)
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert pool.stats().timeouts == 1
        await _assert_never_handled(refusing, pool, clock)


@EACH_WAY
@in_loop
async def test_without_a_deadline_the_pools_own_counts_from_the_beginning(
    refusing: RefusingServer, clock: ManualClock, way: Way
) -> None:
    """A call without a deadline fails `RESOURCE_EXHAUSTED` after `acquire_timeout`, its attempts included."""
    async with refused_pool(refusing) as pool:
        task = asyncio.create_task(way.take(way.begin(pool, timeout=None)))
        await _until_it_waits(pool)
        for _ in range(2):
            clock.advance(14.0)
            await _until_it_waits(pool)
        clock.advance(2.0)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(task, SOON)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert isinstance(caught.value.__cause__, PoolTimeoutError)
        await _assert_never_handled(refusing, pool, clock)


@EACH_WAY
@in_loop
async def test_its_deadline_passes_while_it_is_tried_again_and_again(refusing: RefusingServer, way: Way) -> None:
    """With the system's clock, too, a call that is refused repeatedly fails `DEADLINE_EXCEEDED` in time."""
    async with refused_pool(refusing, min_size=2, max_size=2, max_resends=1000) as pool:
        began = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await way.take(way.begin(pool, timeout=1.2))
        assert 1.1 < time.monotonic() - began < 10
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert pool.stats().refused_streams >= 2
        assert refusing.report().handled == {}


@pytest.mark.parametrize("most", [0, 1, 3])
@EACH_WAY
@in_loop
async def test_it_is_sent_again_a_bounded_number_of_times(refusing: RefusingServer, way: Way, most: int) -> None:
    """A call that is refused each time fails after `max_resends` with the server's own status, after growing pauses."""
    async with refused_pool(refusing, min_size=4, max_size=4, max_resends=most) as pool:
        began = time.monotonic()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await way.take(way.begin(pool))
        assert time.monotonic() - began > 0.005 * (2**most - 1)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "RST_STREAM" in str(caught.value.details())
        assert refusing.report().all.begun == refusing.report().all.refused == 1 + most


@EACH_WAY
@in_loop
async def test_the_pool_is_closed(refusing: RefusingServer, clock: ManualClock, way: Way) -> None:
    """The call fails `CANCELLED`; its cause says that it waited."""
    async with refused_pool(refusing) as pool:
        call = way.begin(pool)
        task = asyncio.create_task(way.take(call))
        await _until_it_waits(pool)
        await pool.close()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await task
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.CANCELLED, "Channel closed!")
        assert isinstance(caught.value.__cause__, PoolClosedError)


@EACH_WAY
@in_loop
async def test_abandoned(refusing: RefusingServer, clock: ManualClock, way: Way) -> None:
    """A dropped stream leaves the queue, and is not sent again. A call with one response is."""
    async with refused_pool(refusing) as pool:
        call = way.begin(pool)
        await _until_it_waits(pool)
        del call
        gc.collect()
        if way.streams_out:
            await until(lambda: pool.stats().waiting == 0)
            await _assert_never_handled(refusing, pool, clock)
        else:
            refusing.begin()
            clock.advance(STEP)
            await until(lambda: refusing.report().all.begun == 1)
            await at_rest(pool)


@in_loop
async def test_a_stream_that_is_abandoned_with_a_callback(refusing: RefusingServer, clock: ManualClock) -> None:
    """A stream that is dropped is over, and its done-callback is called once."""
    async with refused_pool(refusing) as pool:
        told: list[bool] = []
        call = STREAM.begin(pool)
        call.add_done_callback(lambda call: told.append(call.cancelled()))
        await _until_it_waits(pool)
        del call
        gc.collect()
        await until(lambda: told)
        await _assert_never_handled(refusing, pool, clock)
        assert told == [True]


@in_loop
async def test_a_call_held_only_by_its_done_callback(refusing: RefusingServer, clock: ManualClock) -> None:
    """A call held only by its done-callback is sent again, and the callback gets the outcome, once."""
    async with refused_pool(refusing) as pool:
        told: list[Any] = []
        call = UNARY.begin(pool)
        call.add_done_callback(told.append)
        await _until_it_waits(pool)
        del call
        gc.collect()
        assert pool.stats().waiting == 1
        refusing.begin()
        clock.advance(STEP)
        await until(lambda: told)
        (call,) = told
        assert await call == b"0"
        assert await call.code() is grpc.StatusCode.OK
        assert refusing.report().handled == {"ok": 1}


@EACH_WAY
@in_loop
async def test_callbacks_are_called_when_it_is_over_for_good(
    refusing: RefusingServer, clock: ManualClock, way: Way
) -> None:
    """Callbacks are not called for refusals; each is called once, with the final outcome, whenever it was added."""
    async with refused_pool(refusing) as pool:
        told: list[Any] = []

        def tell(ended: Any) -> None:
            told.append((ended is call, ended.done(), ended.cancelled()))

        call = way.begin(pool)
        for _ in range(3):
            await _until_it_waits(pool)
            call.add_done_callback(tell)
            assert told == []
            clock.advance(STEP)
        await _until_it_waits(pool)
        refusing.begin()
        clock.advance(STEP)
        assert await way.take(call)
        assert told == [(True, True, False)] * 3
        call.add_done_callback(tell)
        assert told == [(True, True, False)] * 4


@in_loop
async def test_several_tasks_wait_for_one_call(refusing: RefusingServer, clock: ManualClock) -> None:
    """Each of several tasks that wait for a call, in whatever way, gets the final outcome."""
    async with refused_pool(refusing) as pool:
        call = UNARY.begin(pool)

        async def wait() -> Any:
            return await call

        asks = (wait, call.code, call.details, call.wait_for_connection)
        tasks = [asyncio.create_task(ask()) for ask in asks * 3]
        await _until_it_waits(pool)
        refusing.begin()
        clock.advance(STEP)
        assert await asyncio.gather(*tasks) == [b"0", grpc.StatusCode.OK, "", None] * 3


@pytest.mark.parametrize("busy", [False, True], ids=["alone", "busy"])
@EACH_WAY
@in_loop
async def test_a_call_that_is_refused_many_times(
    refusing: RefusingServer, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, way: Way, *, busy: bool
) -> None:
    """However often a call is refused, it is sent again until its deadline, if `max_resends` allows that."""
    # Each pause is twice as long as the one before.
    monkeypatch.setattr("grpcpool._shared.driver._FIRST_PAUSE", 0.0)
    async with refused_pool(refusing, acquire_timeout=None, max_resends=1000) as pool:
        leases = [await pool.acquire(streams=1) for _ in range(busy)]
        refusing.begin(next=300)
        task = asyncio.create_task(way.take(way.begin(pool, timeout=None)))
        while not task.done():
            if pool.stats().waiting:
                clock.advance(STEP)
            await asyncio.sleep(0)
        assert task.result()
        assert refusing.report().all.refused == 300
        for lease in leases:
            lease.release()


@EACH_WAY
@in_loop
async def test_a_call_refused_after_its_cancel(refusing: RefusingServer, clock: ManualClock, way: Way) -> None:
    """A late refusal does not bring a cancelled call back."""
    async with refused_pool(refusing) as pool:
        refusing.begin(open=0, held=True)
        call = way.begin(pool)
        await until(lambda: refusing.report().all.begun == 1)
        call.cancel()
        refusing.let_go("refusals")
        assert await outcome_of(way.take(call)) == ("cancelled",)
        await _assert_never_handled(refusing, pool, clock)
