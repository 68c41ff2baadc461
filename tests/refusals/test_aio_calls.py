"""However a call with one request is made on asyncio, its caller does not see that a server refused it.

The reference is gRPC's own channel to the same server while it refuses nothing.
"""

from __future__ import annotations

import asyncio

import pytest

from grpcpool.events import Avoided
from grpcpool.testing import ManualClock
from refusals.aio_uses import USES, Use
from refusals.test_calls import STEP, assert_refused
from support.aio_pools import at_rest, pool_over
from support.loops import in_loop, until
from support.pools import Recorder
from support.refusing_counts import Count
from support.refusing_server import RefusingServer

pytestmark = pytest.mark.timeout(60)

ROUNDS = 10


@pytest.mark.parametrize("use", USES, ids=str)
@in_loop
async def test_a_refused_call_goes_elsewhere(refusing: RefusingServer, recorder: Recorder, use: Use) -> None:
    """A call refused on one connection is made on another at once, once, and looks like any other."""
    async with refusing.aio_channel() as plain:
        expected = await use.whole(plain)
    async with pool_over(refusing.aio_channel, listeners=[recorder], min_size=2, max_size=2) as pool:
        await pool.open()
        refusing.begin(next=1)
        assert await use.whole(pool) == expected
        await at_rest(pool)
        assert_refused(pool, recorder, 1)
        told = refusing.report()
        assert told.handled == {use.command: 1}
        assert sorted((count.begun, count.refused) for count in told.counts.values()) == [(1, 0), (1, 1)]


@pytest.mark.parametrize("use", USES, ids=str)
@in_loop
async def test_a_refused_call_waits_for_the_only_connection(
    refusing: RefusingServer, recorder: Recorder, clock: ManualClock, use: Use
) -> None:
    """A call refused on the only connection, which is in use, waits until its limit grows, as often as needed."""
    async with refusing.aio_channel() as plain:
        expected = await use.whole(plain)
    async with pool_over(refusing.aio_channel, listeners=[recorder], max_size=1) as pool:
        await pool.open()
        async with pool.acquire(streams=1):
            refusing.begin(next=3)
            outcome = asyncio.create_task(use.whole(pool))
            for refused in (1, 2, 3):
                await until(lambda: pool.stats().waiting == 1)
                assert_refused(pool, recorder, refused)
                assert [(channel.in_flight, channel.limit) for channel in pool.stats().channels] == [(1, 1)]
                assert not outcome.done()
                clock.advance(STEP)
            assert await outcome == expected
        assert recorder.of(Avoided) == []
        await at_rest(pool)
        assert_refused(pool, recorder, 3)
        told = refusing.report()
        assert told.handled == {use.command: 1}
        assert told.all == Count(begun=4, refused=3, completed=1, most=1)


@pytest.mark.parametrize("use", USES, ids=str)
@in_loop
async def test_again_and_again(refusing: RefusingServer, recorder: Recorder, clock: ManualClock, use: Use) -> None:
    """Many calls that are each refused once end as if they had not been."""
    async with refusing.aio_channel() as plain:
        expected = await use.whole(plain)
    async with pool_over(refusing.aio_channel, listeners=[recorder], min_size=2, max_size=2) as pool:
        await pool.open()
        refusing.begin()
        for _ in range(ROUNDS):
            refusing.refuse(next=1)
            assert await use.whole(pool, timeout=15) == expected
            clock.advance(STEP)
        await at_rest(pool)
        assert_refused(pool, recorder, ROUNDS)
        assert refusing.report().handled == {use.command: ROUNDS}
