"""The refusal of a lone call does not show a limit: the server sheds load, and a lower limit would not help.

The connection keeps its limit, and is avoided for a while. The call is sent again after a pause, up to `max_resends`
times.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from grpcpool import ChannelPool, PoolStats
from grpcpool.events import Avoided, RefusedStream
from grpcpool.testing import ManualClock
from refusals import aio_uses, uses
from refusals.conftest import FIRST_PAUSE, PoolOpener
from refusals.test_calls import assert_refused
from refusals.test_limit import FUTURE, limits
from refusals.test_waiting_again import ONE_REQUEST
from refusals.uses import US, UU
from support import aio_ways
from support.aio_pools import at_rest, pool_over
from support.loops import in_loop, until
from support.pools import Recorder, assert_at_rest
from support.refusing_counts import Count
from support.refusing_server import RefusingServer, Report
from support.waiting import background, eventually, together
from support.ways import Way, outcome_of

pytestmark = pytest.mark.timeout(60)

AIO_ONE_REQUEST = tuple(way for way in aio_ways.WAYS if not way.streams_in)
APART = 0.025
"""Seconds after which a refusal does not belong to those before it (20 ms), and a little more."""
SHEDS_FOR = 30.0
"""Seconds for which no limit is lowered once the server has shown that it sheds load."""


def _assert_only_avoided(pool: Any, recorder: Recorder) -> None:
    """All connections have their limits; those that refused calls are avoided, which was emitted once for each."""
    assert {channel.limit for channel in pool.stats().channels} == {90}
    refused = {event.channel for event in recorder.of(RefusedStream)}
    assert {channel.id for channel in pool.stats().channels if channel.avoided} == refused
    assert sorted((event.channel, event.code) for event in recorder.of(Avoided)) == [(id_, None) for id_ in refused]


# --- when a call is sent again --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("pauses")
@pytest.mark.parametrize("use", uses.USES, ids=str)
def test_a_lone_call_pauses(
    refusing: RefusingServer,
    plain: grpc.Channel,
    open_pool: PoolOpener,
    recorder: Recorder,
    clock: ManualClock,
    use: uses.Use,
) -> None:
    """A lone call that is refused again and again is sent again after pauses, each about twice as long."""
    pool = open_pool(single_threaded=use.single_threaded, max_size=1)
    expected = use.whole(plain)
    refusing.begin(next=3)
    outcome = background(lambda: use.whole(pool))
    for number in range(3):
        eventually(lambda: pool.stats().waiting == 1)
        _assert_only_avoided(pool, recorder)
        pause = FIRST_PAUSE * 2**number
        clock.advance(0.49 * pause)
        assert pool.stats().waiting == 1
        assert refusing.report().all.begun == number + 1
        clock.advance(0.52 * pause)
    assert outcome.result(20) == expected
    assert_at_rest(pool)
    assert_refused(pool, recorder, 3)
    _assert_only_avoided(pool, recorder)
    assert refusing.report().all == Count(begun=4, refused=3, completed=1, most=1)


@pytest.mark.usefixtures("pauses")
@pytest.mark.parametrize("use", aio_uses.USES, ids=str)
@in_loop
async def test_a_lone_call_pauses_on_asyncio(
    refusing: RefusingServer, recorder: Recorder, clock: ManualClock, use: aio_uses.Use
) -> None:
    """Same as `test_a_lone_call_pauses`, on asyncio."""
    async with refusing.aio_channel() as plain:
        expected = await use.whole(plain)
    async with pool_over(refusing.aio_channel, listeners=[recorder], max_size=1) as pool:
        await pool.open()
        refusing.begin(next=3)
        outcome = asyncio.create_task(use.whole(pool))
        for number in range(3):
            await until(lambda: pool.stats().waiting == 1)
            _assert_only_avoided(pool, recorder)
            pause = FIRST_PAUSE * 2**number
            clock.advance(0.49 * pause)
            assert pool.stats().waiting == 1
            assert refusing.report().all.begun == number + 1
            clock.advance(0.52 * pause)
        assert await outcome == expected
        await at_rest(pool)
        assert_refused(pool, recorder, 3)
        _assert_only_avoided(pool, recorder)
        assert refusing.report().all == Count(begun=4, refused=3, completed=1, most=1)


@pytest.mark.usefixtures("pauses")
@pytest.mark.parametrize("use", uses.USES, ids=str)
def test_the_first_time_it_is_sent_again_at_once(
    refusing: RefusingServer,
    plain: grpc.Channel,
    open_pool: PoolOpener,
    recorder: Recorder,
    clock: ManualClock,
    use: uses.Use,
) -> None:
    """There is no pause before the first time if the server has answered since it last refused; later there is one."""
    pool = open_pool(single_threaded=use.single_threaded, max_size=1)
    expected = use.whole(plain)
    for refused in (1, 2):
        clock.advance(1.0)
        assert use.whole(pool) == expected
        assert_at_rest(pool)
        refusing.refuse(next=1)
        # The clock stands still.
        assert use.whole(pool) == expected
        assert_at_rest(pool)
        assert_refused(pool, recorder, refused)
    refusing.refuse(next=1)
    outcome = background(lambda: use.whole(pool))
    eventually(lambda: pool.stats().waiting == 1)
    clock.advance(FIRST_PAUSE)
    assert outcome.result(20) == expected
    assert_at_rest(pool)
    _assert_only_avoided(pool, recorder)


@pytest.mark.usefixtures("pauses")
@pytest.mark.parametrize("use", aio_uses.USES, ids=str)
@in_loop
async def test_the_first_time_it_is_sent_again_at_once_on_asyncio(
    refusing: RefusingServer, recorder: Recorder, clock: ManualClock, use: aio_uses.Use
) -> None:
    """Same as `test_the_first_time_it_is_sent_again_at_once`, on asyncio."""
    async with refusing.aio_channel() as plain:
        expected = await use.whole(plain)
    async with pool_over(refusing.aio_channel, listeners=[recorder], max_size=1) as pool:
        await pool.open()
        for refused in (1, 2):
            clock.advance(1.0)
            assert await use.whole(pool) == expected
            await at_rest(pool)
            refusing.refuse(next=1)
            # The clock stands still.
            assert await use.whole(pool) == expected
            await at_rest(pool)
            assert_refused(pool, recorder, refused)
        refusing.refuse(next=1)
        outcome = asyncio.create_task(use.whole(pool))
        await until(lambda: pool.stats().waiting == 1)
        clock.advance(FIRST_PAUSE)
        assert await outcome == expected
        await at_rest(pool)
        _assert_only_avoided(pool, recorder)


@pytest.mark.parametrize("way", ONE_REQUEST, ids=str)
def test_a_lone_call_is_sent_six_times(
    refusing: RefusingServer,
    plain: grpc.Channel,
    open_pool: PoolOpener,
    recorder: Recorder,
    clock: ManualClock,
    way: Way,
) -> None:
    """Where the server refuses everything, a lone call fails with its words after five more attempts."""
    pool = open_pool(max_size=3)
    refusing.begin(open=0)
    expected = outcome_of(lambda: way.finish(way.begin(plain)))
    refusing.begin(open=0)
    assert outcome_of(lambda: way.finish(way.begin(pool))) == expected
    assert expected[:2] == ("error", grpc.StatusCode.UNAVAILABLE)
    assert_at_rest(pool)
    assert_refused(pool, recorder, 6)
    assert pool.stats().opened == 1
    _assert_only_avoided(pool, recorder)
    assert refusing.report().all == Count(begun=6, refused=6)


@pytest.mark.parametrize("way", AIO_ONE_REQUEST, ids=str)
@in_loop
async def test_a_lone_call_is_sent_six_times_on_asyncio(
    refusing: RefusingServer, recorder: Recorder, clock: ManualClock, way: aio_ways.Way
) -> None:
    """Same as `test_a_lone_call_is_sent_six_times`, on asyncio."""
    refusing.begin(open=0)
    async with refusing.aio_channel() as plain:
        expected = await aio_ways.outcome_of(way.whole(plain))
    async with pool_over(refusing.aio_channel, listeners=[recorder], max_size=3) as pool:
        await pool.open()
        refusing.begin(open=0)
        assert await aio_ways.outcome_of(way.whole(pool)) == expected
        assert expected[:2] == ("error", grpc.StatusCode.UNAVAILABLE)
        await at_rest(pool)
        assert_refused(pool, recorder, 6)
        assert pool.stats().opened == 1
        _assert_only_avoided(pool, recorder)
        assert refusing.report().all == Count(begun=6, refused=6)


# --- one refusal and several ----------------------------------------------------------------------------------------


def _refused_once(refusing: RefusingServer, pool: ChannelPool) -> int:
    """Makes a call that is refused once; returns the limit of the only connection afterwards."""
    refusing.refuse(next=1)
    assert FUTURE.begin(pool).result(20) == b"0"
    (limit,) = limits(pool)
    return limit


@pytest.fixture
def lowered(refusing: RefusingServer, open_pool: PoolOpener, clock: ManualClock) -> ChannelPool:
    """A pool of one connection, which a server has made believe that its limit is 3."""
    pool = open_pool(max_size=1)
    with pool.acquire(streams=3):
        refusing.begin(next=1)
        call = FUTURE.begin(pool)
        eventually(lambda: pool.stats().waiting == 1)
        call.cancel()
    assert limits(pool) == [3]
    return pool


@pytest.mark.parametrize("after", [0.0, APART, 50 * APART])
def test_beside_others_a_refusal_lowers_it_further(
    refusing: RefusingServer, lowered: ChannelPool, recorder: Recorder, clock: ManualClock, after: float
) -> None:
    """However long after the limit was lowered a refusal comes, it may be due to the server's limit."""
    with lowered.acquire(streams=2):
        clock.advance(after)
        refusing.refuse(next=1)
        call = FUTURE.begin(lowered)
        eventually(lambda: lowered.stats().waiting == 1)
        assert recorder.of(RefusedStream)[-1].limit == 2
        assert recorder.of(Avoided) == []
    assert call.result(20) == b"0"
    assert_at_rest(lowered)


def test_three_lone_refusals(refusing: RefusingServer, lowered: ChannelPool, clock: ManualClock) -> None:
    """After three refusals of lone calls the limit is taken back, and none is lowered for half a minute."""
    for limit in (3, 3, 90):
        clock.advance(APART)
        assert _refused_once(refusing, lowered) == limit
    with lowered.acquire(streams=50):
        assert _refused_once(refusing, lowered) == 90
        clock.advance(SHEDS_FOR - 0.01)
        assert _refused_once(refusing, lowered) == 90
        clock.advance(0.01)
        refusing.refuse(next=1)
        call = FUTURE.begin(lowered)
        eventually(lambda: limits(lowered) == [50])
    assert call.result(20) == b"0"
    assert_at_rest(lowered)


def test_lone_refusals_of_one_moment(refusing: RefusingServer, lowered: ChannelPool, clock: ManualClock) -> None:
    """Refusals less than 20 ms apart count as one: they do not show that the server sheds load."""
    clock.advance(APART)
    for _ in range(5):
        assert _refused_once(refusing, lowered) == 3
    assert_at_rest(lowered)


# --- a server that sheds load ---------------------------------------------------------------------------------------


CALLERS = pytest.mark.parametrize("callers", [1, 8])
CALLS = 60
"""Of each caller."""


def _commands(caller: int) -> list[str]:
    return [f"work:{number % 5},{caller}.{number}" for number in range(CALLS)]


def _assert_shed(told: Report, stats: PoolStats, callers: int) -> None:
    """Each call was handled once, whatever was refused."""
    assert told.handled == {command: 1 for caller in range(callers) for command in _commands(caller)}
    assert told.all.refused == stats.refused_streams == told.all.begun // 3
    assert (stats.in_flight, stats.waiting, stats.timeouts, stats.rejected) == (0, 0, 0, 0)


@CALLERS
def test_a_server_that_refuses_every_third_stream(
    refusing: RefusingServer, open_pool: PoolOpener, callers: int
) -> None:
    """All calls succeed, and afterwards the limits are what they were."""
    # One call in 700 is refused six times in a row.
    pool = open_pool(max_resends=20)
    refusing.begin(every=3)
    unary: Any = pool.unary_unary(UU)
    stream: Any = pool.unary_stream(US)

    def work(caller: int) -> None:
        for number, command in enumerate(_commands(caller)):
            request = command.encode()
            if number % 3 == 0:
                assert unary(request, timeout=20) == request
            elif number % 3 == 1:
                assert unary.future(request, timeout=20).result(20) == request
            else:
                assert list(stream(request, timeout=20)) == [request]

    together(callers, work)
    eventually(lambda: set(limits(pool)) == {90}, timeout=1)
    assert_at_rest(pool)
    _assert_shed(refusing.report(), pool.stats(), callers)


@CALLERS
@in_loop
async def test_a_server_that_refuses_every_third_stream_on_asyncio(refusing: RefusingServer, callers: int) -> None:
    """Same as `test_a_server_that_refuses_every_third_stream`, on asyncio."""
    async with pool_over(refusing.aio_channel, max_resends=20) as pool:
        await pool.open()
        refusing.begin(every=3)
        unary: Any = pool.unary_unary(UU)
        stream: Any = pool.unary_stream(US)

        async def work(caller: int) -> None:
            for number, command in enumerate(_commands(caller)):
                request = command.encode()
                if number % 2:
                    assert await unary(request, timeout=20) == request
                else:
                    assert [message async for message in stream(request, timeout=20)] == [request]

        await asyncio.gather(*map(work, range(callers)))
        await until(lambda: {channel.limit for channel in pool.stats().channels} == {90}, timeout=1)
        await at_rest(pool)
        _assert_shed(refusing.report(), pool.stats(), callers)


@CALLERS
def test_a_server_that_refuses_every_third_stream_gets_no_more_connections(
    refusing: RefusingServer, open_pool: PoolOpener, callers: int
) -> None:
    """More connections would not help: the pool opens one more at most."""
    pool = open_pool(max_resends=20)
    refusing.begin(every=3)
    unary: Any = pool.unary_unary(UU)

    def work(caller: int) -> None:
        for command in _commands(caller):
            unary(command.encode(), timeout=20)

    together(callers, work)
    assert_at_rest(pool)
    assert pool.stats().opened <= 2
