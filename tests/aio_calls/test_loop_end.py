"""Calls at the end of their loop, whose pool has not been closed."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

import grpcpool
from aio_calls.support import world
from grpcpool import PoolConfig
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
