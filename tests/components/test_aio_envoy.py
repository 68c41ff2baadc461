"""Same as `test_envoy`, on asyncio."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from components import tasks
from components.proxies import Envoy
from support.connections import connections_to
from support.loops import run, until
from support.servers import CHAT, COUNT, SLOW, Server
from support.waiting import LONG

pytestmark = pytest.mark.timeout(60)

CALLS = 64
LIMIT = 20


def test_a_pool_that_knows_the_limit_runs_all_calls_at_once(server: Server) -> None:
    """64 streams are answered while all of them stay open, although one connection carries only 20."""

    async def main(envoy: Envoy) -> None:
        async with tasks.pool_of(envoy, max_size=4, max_streams=18) as pool:
            chats: list[Any] = [pool.stream_stream(CHAT)(timeout=LONG) for _ in range(CALLS)]
            for i, chat in enumerate(chats):
                await chat.write(b"%d" % i)
            assert [await chat.read() for chat in chats] == [b"%d" % i for i in range(CALLS)]
            assert pool.stats().in_flight == CALLS
            assert pool.stats().size == 4
            for chat in chats:
                await chat.done_writing()
            assert [await chat.read() for chat in chats] == [grpc.aio.EOF] * CALLS

    with Envoy(server, max_streams=LIMIT) as envoy:
        run(main(envoy))


@pytest.mark.parametrize("settings", [{"max_streams": 18}, {}], ids=["knows the stream limit", "default"])
def test_no_call_fails_beyond_the_limit(server: Server, settings: dict[str, int]) -> None:
    """64 tasks call concurrently, many times, and each gets its answers; the server never exceeds the limit."""

    async def main(envoy: Envoy) -> int:
        async with tasks.pool_of(envoy, **settings) as pool:
            slow: Any = pool.unary_unary(SLOW)

            async def call() -> list[bytes]:
                return [await slow(b"20", timeout=LONG) for _ in range(10)]

            assert await asyncio.gather(*(call() for _ in range(CALLS))) == [[b"20"] * 10] * CALLS
            stats = pool.stats()
            assert (stats.refused_streams, sum(stats.closed.values())) == (0, 0)
            return stats.opened

    with Envoy(server, max_streams=LIMIT) as envoy:
        server.take_peaks()
        opened = run(main(envoy))
        # Envoy's own connection to the server is the only one.
        (most,) = server.take_peaks().values()
        assert most <= LIMIT * opened


def test_no_call_fails_when_connections_end(server: Server) -> None:
    """Envoy ends each connection after 0.3 s. Calls and streams go on, even streams that take longer."""

    async def main(envoy: Envoy) -> None:
        async with tasks.pool_of(envoy, min_size=2, max_size=2, max_streams=18) as pool:
            slow: Any = pool.unary_unary(SLOW)
            count: Any = pool.unary_stream(COUNT)

            async def call() -> bytes:
                answer: bytes = await slow(b"5", timeout=LONG)
                return answer

            async def stream() -> bytes:
                return b",".join([answer async for answer in count(b"8,60", timeout=LONG)])

            async with tasks.Load(4, call) as calls, tasks.Load(8, stream) as streams:
                await until(lambda: envoy.counter("cx_max_duration_reached") >= 4, pause=0.1)
                assert set(await streams.answers_to_come(8)) == {b"0,1,2,3,4,5,6,7"}
                assert set(await calls.answers_to_come()) == {b"5"}
            assert not calls.errors
            assert not streams.errors
            stats = pool.stats()
            assert (stats.opened, stats.size, sum(stats.closed.values())) == (2, 2, 0)

    with Envoy(server, max_streams=LIMIT, max_duration=0.3) as envoy:
        run(main(envoy))


def test_unused_connections_reconnect(server: Server) -> None:
    """After Envoy has ended every connection of an idle pool, as many are soon open again."""

    async def main(envoy: Envoy) -> None:
        def have_come_back() -> bool:
            return envoy.counter("cx_max_duration_reached") >= 4 and connections_to(envoy.port) == 4

        async with tasks.pool_of(envoy, min_size=4) as pool:
            await pool.open()
            assert connections_to(envoy.port) == 4
            await until(have_come_back)
            await until(lambda: pool.stats().ready == 4)
            assert pool.stats().opened == 4

    with Envoy(server, max_streams=LIMIT, max_duration=1) as envoy:
        run(main(envoy))
