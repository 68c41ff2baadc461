"""Calls at the end of their loop, whose pool has not been closed."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

import grpcpool
from aio_calls.support import world
from grpcpool import PoolConfig
from grpcpool.aio import ChannelPool
from support.aio_ways import KINDS, UNARY, Way
from support.call_server import CallServer, new_tag
from support.connections import assert_no_connections
from support.loops import new_loop, not_of_poller

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("each_loop")]


@pytest.mark.parametrize("held", [False, True], ids=["dropped", "held"])
@pytest.mark.parametrize("way", KINDS, ids=str)
def test_calls_that_wait(calls: CallServer, way: Way, held: bool) -> None:
    """None begins because those before it are cancelled: it would leave tasks, and its connection open."""
    reported: list[str] = []
    keeping: list[Any] = []

    async def use() -> None:
        async with world(calls) as at:
            pool = grpcpool.aio.insecure_channel(calls.target, config=PoolConfig(max_size=1, max_streams=1))
            tag = new_tag()
            # The second begins while the loop cancels the first, which only then has a task that can be cancelled.
            begun = [each.begin(pool, f"hold:{tag}") for each in (UNARY, way, way)]
            await at.until_held(tag)
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(str(context)))
        if held:
            keeping.extend([pool, *begun])

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(use())
    # What is pending is reported when it is collected.
    keeping.clear()
    gc.collect()
    assert not not_of_poller(reported)
    assert_no_connections(calls.port)


def test_a_pool_that_is_closed_after_a_call_began_at_a_cancellation(calls: CallServer) -> None:
    """The loop does not end then: the call is the pool's to end, and nothing is left for the loop to close."""
    reported: list[str] = []

    async def use() -> ChannelPool:
        async with world(calls) as at:
            pool = await at.pool()
            tags = new_tag(), new_tag()
            first, late = (asyncio.ensure_future(UNARY.whole(pool, f"hold:{tag}")) for tag in tags)
            await at.until_held(tags[0])
            # The second begins in the task that is being cancelled.
            first.cancel()
            await at.until_held(tags[1])
            await pool.close(0.0)
            assert (await asyncio.gather(first, late, return_exceptions=True))[1].__class__ is asyncio.CancelledError
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(str(context)))
        return pool

    with asyncio.Runner(loop_factory=new_loop) as runner:
        pool = runner.run(use())
    assert pool.closed
    assert not not_of_poller(reported)
