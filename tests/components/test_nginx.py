"""nginx ends its connections after some calls, which loses no call of the pool."""

from __future__ import annotations

from typing import Any

import pytest

from components.conftest import PoolOpener
from components.proxies import Nginx
from support.servers import ECHO, Server, unary
from support.waiting import LONG, eventually, together

pytestmark = pytest.mark.timeout(60)


def test_ten_thousand_calls(server: Server, pool_of: PoolOpener) -> None:
    """Of 10,000 calls none fails, though nginx ends connections after 200 each, and each call has its own answer.

    gRPC reconnects within the slot: the pool has nothing to open or close, and nothing to count as lost.
    """

    def call(caller: int) -> None:
        for i in range(1250):
            request = b"%d,%d" % (caller, i)
            assert echo(request, timeout=LONG) == request

    with Nginx(server, calls_per_connection=200) as nginx:
        pool = pool_of(nginx, min_size=4, max_size=4)
        echo: Any = pool.unary_unary(ECHO)
        together(8, call)
        eventually(lambda: nginx.calls_by_connection().total() == 10_000)
        calls = nginx.calls_by_connection()
        assert len(calls) >= 50
        assert max(calls.values()) == 200
        stats = pool.stats()
        assert stats.acquired == 10_000
        assert (stats.opened, sum(stats.closed.values()), stats.refused_streams) == (4, 0, 0)
        eventually(lambda: pool.stats().ready == 4)


def test_a_lease_outlives_its_connection(server: Server, pool_of: PoolOpener) -> None:
    """A whole lease goes on making calls even when nginx ends its connection."""
    with Nginx(server, calls_per_connection=200) as nginx:
        pool = pool_of(nginx, max_size=1)
        with pool.acquire() as lease:
            for i in range(500):
                assert unary(lease, ECHO, b"%d" % i) == b"%d" % i
        eventually(lambda: sorted(nginx.calls_by_connection().values()) == [100, 200, 200])
