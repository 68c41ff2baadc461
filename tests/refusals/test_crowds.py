"""Many calls at once, against a server that allows five on a connection: none fails, and all is counted."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from grpcpool import PoolStats
from grpcpool.events import RefusedStream
from refusals.conftest import PoolOpener
from refusals.uses import US, UU
from support.aio_pools import at_rest, pool_over
from support.loops import in_loop
from support.pools import Recorder, assert_at_rest
from support.refusing_server import RefusingServer, Report
from support.waiting import together

pytestmark = pytest.mark.timeout(120)

LIMIT, CONNECTIONS = 5, 10
TIMEOUT = 90.0


def _commands(number: int) -> list[str]:
    return [f"work:5,{i}" for i in range(number)]


def _assert_all_counted(told: Report, stats: PoolStats, recorder: Recorder, commands: list[str]) -> None:
    """The server has handled each request once, and has refused as many as the pool has counted."""
    assert told.handled == dict.fromkeys(commands, 1)
    assert told.all.refused == stats.refused_streams == len(recorder.of(RefusedStream)) > 0
    assert told.all.begun == stats.acquired == len(commands) + told.all.refused
    assert (told.all.completed, told.all.cancelled, told.all.open) == (len(commands), 0, 0)
    assert told.all.most <= LIMIT
    assert (stats.size, stats.in_flight, stats.waiting) == (CONNECTIONS, 0, 0)
    assert (stats.timeouts, stats.rejected, sum(stats.closed.values())) == (0, 0, 0)
    assert sum(channel.calls for channel in stats.channels) == stats.acquired


def test_200_threads(refusing: RefusingServer, open_pool: PoolOpener, recorder: Recorder) -> None:
    """Nothing fails with 200 threads that make calls in all ways."""
    # All are open from the start: how far it would grow depends on how fast the threads are.
    pool = open_pool(min_size=CONNECTIONS, max_size=CONNECTIONS)
    refusing.begin(open=LIMIT)
    unary: Any = pool.unary_unary(UU)
    stream: Any = pool.unary_stream(US)
    commands = _commands(600)

    def work(i: int) -> None:
        blocking, future, streamed = (command.encode() for command in commands[3 * i : 3 * i + 3])
        assert unary(blocking, timeout=TIMEOUT) == blocking
        assert unary.future(future, timeout=TIMEOUT).result(TIMEOUT) == future
        assert list(stream(streamed, timeout=TIMEOUT)) == [streamed]

    together(200, work)
    assert_at_rest(pool)
    _assert_all_counted(refusing.report(), pool.stats(), recorder, commands)


@in_loop
async def test_1000_tasks(refusing: RefusingServer, recorder: Recorder) -> None:
    """Nothing fails with 1000 tasks that make calls in all ways."""
    async with pool_over(refusing.aio_channel, listeners=[recorder], max_size=CONNECTIONS) as pool:
        await pool.open()
        refusing.begin(open=LIMIT)
        unary: Any = pool.unary_unary(UU)
        stream: Any = pool.unary_stream(US)
        commands = _commands(1000)

        async def work(i: int) -> None:
            request = commands[i].encode()
            if i % 2:
                assert await unary(request, timeout=TIMEOUT) == request
            else:
                assert [message async for message in stream(request, timeout=TIMEOUT)] == [request]

        await asyncio.gather(*map(work, range(1000)))
        await at_rest(pool)
        _assert_all_counted(refusing.report(), pool.stats(), recorder, commands)
