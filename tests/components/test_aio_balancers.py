"""Same as `test_balancers`, on asyncio, behind one of the balancers."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import Any

import grpc
import pytest

from components import tasks
from components.proxies import HAProxy, name_of, new_connection_goes_to
from grpcpool import aio
from support.loops import run, until
from support.servers import PID, Server
from support.waiting import LONG

pytestmark = pytest.mark.timeout(60)


async def _who(channel: Any) -> bytes:
    answer: bytes = await channel.unary_unary(PID)(b"", timeout=LONG)
    return answer


async def _connections_by_server(pool: aio.ChannelPool) -> Counter[bytes]:
    """Leases every connection at once, and asks each for its server."""
    async with contextlib.AsyncExitStack() as stack:
        leases = [await stack.enter_async_context(pool.acquire()) for _ in range(pool.config.max_size)]
        return Counter([await _who(lease) for lease in leases])


def test_connections_are_balanced() -> None:
    """Eight connections over two servers are four each, so each server gets half of the calls."""

    async def main(front: HAProxy) -> None:
        one, two = map(name_of, front.servers)
        async with tasks.pool_of(front, min_size=8, max_size=8, picker="round_robin") as pool:
            await pool.open()
            assert await _connections_by_server(pool) == {one: 4, two: 4}
            assert Counter([await _who(pool) for _ in range(80)]) == {one: 40, two: 40}

    with Server() as one, Server() as two, HAProxy([one, two]) as front:
        run(main(front))


@pytest.mark.parametrize("how", ["refresh", "age"])
def test_a_new_server_gets_connections_by_rotation(how: str) -> None:
    """A restarted server gets connections once they are replaced, and no call fails because of it."""
    settings: dict[str, Any] = {"max_age": 1.0} if how == "age" else {}

    async def main(front: HAProxy) -> None:
        one, two = front.servers
        async with tasks.pool_of(front, min_size=6, max_size=6, **settings) as pool:
            await pool.open()
            async with tasks.Load(4, lambda: _who(pool)) as load:
                await load.wait_for_answers_of({name_of(one), name_of(two)})
                two.kill()
                await load.wait_for_answers_of({name_of(one)})
                await until(lambda: pool.stats().ready == 6)
                assert all(error.code() is grpc.StatusCode.UNAVAILABLE for error in load.errors)
                load.errors.clear()
                two.start()
                await until(lambda: new_connection_goes_to(two, front))
                if how == "refresh":
                    assert set(await load.answers_to_come()) == {name_of(one)}
                    pool.refresh()
                await load.wait_for_answers_of({name_of(one), name_of(two)})
                await until(lambda: pool.stats().closed[how] >= 6)
                assert not load.errors

    with Server() as one, Server() as two, HAProxy([one, two]) as front:
        run(main(front))
