"""Same as `test_nginx`, on asyncio."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from components import tasks
from components.proxies import Nginx
from support.loops import run, until
from support.servers import ECHO, Server
from support.waiting import LONG

pytestmark = pytest.mark.timeout(60)


def test_thousands_of_calls(server: Server) -> None:
    """Of 4,000 calls none fails, though nginx ends connections after 200 each, and each call has its own answer."""

    async def main(nginx: Nginx) -> None:
        async def call(caller: int) -> None:
            for i in range(200):
                request = b"%d,%d" % (caller, i)
                assert await echo(request, timeout=LONG) == request

        async with tasks.pool_of(nginx, min_size=4, max_size=4) as pool:
            echo: Any = pool.unary_unary(ECHO)
            await asyncio.gather(*(call(caller) for caller in range(20)))
            await until(lambda: nginx.calls_by_connection().total() == 4_000)
            calls = nginx.calls_by_connection()
            assert len(calls) >= 20
            assert max(calls.values()) == 200
            stats = pool.stats()
            assert stats.acquired == 4_000
            assert (stats.opened, sum(stats.closed.values()), stats.refused_streams) == (4, 0, 0)
            await until(lambda: pool.stats().ready == 4)

    with Nginx(server, calls_per_connection=200) as nginx:
        run(main(nginx))


def test_a_lease_outlives_its_connection(server: Server) -> None:
    """A whole lease goes on making calls even when nginx ends its connection."""

    async def main(nginx: Nginx) -> None:
        async with tasks.pool_of(nginx, max_size=1) as pool, pool.acquire() as lease:
            echo: Any = lease.unary_unary(ECHO)
            for i in range(500):
                assert await echo(b"%d" % i, timeout=LONG) == b"%d" % i

    with Nginx(server, calls_per_connection=200) as nginx:
        run(main(nginx))
        assert sorted(nginx.calls_by_connection().values()) == [100, 200, 200]
