"""Behind a balancer of connections, a pool reaches every server, and new ones as its connections are replaced."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import Any

import grpc
import pytest

from components.conftest import PoolOpener
from components.load import Load
from components.proxies import Balancer, HAProxy, NginxStream, name_of, new_connection_goes_to
from grpcpool import ChannelPool
from support.servers import PID, Server, unary
from support.waiting import eventually

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.parametrize("balancer", [HAProxy, NginxStream]),
]


def _connections_by_server(pool: ChannelPool) -> Counter[bytes]:
    """Leases every connection at once, and asks each for its server."""
    with contextlib.ExitStack() as stack:
        leases = [stack.enter_context(pool.acquire()) for _ in range(pool.config.max_size)]
        return Counter(unary(lease, PID, b"") for lease in leases)


def test_connections_are_balanced(balancer: type[Balancer], pool_of: PoolOpener) -> None:
    """Eight connections over two servers are four each, so each server gets half of the calls."""
    with Server() as one, Server() as two, balancer([one, two]) as front:
        pool = pool_of(front, min_size=8, max_size=8, picker="round_robin")
        pool.open()
        assert _connections_by_server(pool) == {name_of(one): 4, name_of(two): 4}
        assert Counter(unary(pool, PID, b"") for _ in range(80)) == {name_of(one): 40, name_of(two): 40}


@pytest.mark.parametrize("how", ["refresh", "age"])
def test_a_new_server_gets_connections_by_rotation(balancer: type[Balancer], pool_of: PoolOpener, how: str) -> None:
    """When a server is killed, all connections go to the other, and stay there when a new server comes.

    The new server gets connections only once they are replaced, and no call fails because of it.
    """
    settings: dict[str, Any] = {"max_age": 1.0} if how == "age" else {}
    with Server() as one, Server() as two, balancer([one, two]) as front:
        pool = pool_of(front, min_size=6, max_size=6, **settings)
        pool.open()
        with Load(4, lambda: unary(pool, PID, b"")) as load:
            load.wait_for_answers_of({name_of(one), name_of(two)})
            two.kill()
            load.wait_for_answers_of({name_of(one)})
            eventually(lambda: pool.stats().ready == 6)
            assert all(error.code() is grpc.StatusCode.UNAVAILABLE for error in load.errors)
            load.errors.clear()
            two.start()
            eventually(lambda: new_connection_goes_to(two, front))
            if how == "refresh":
                assert set(load.answers_to_come()) == {name_of(one)}
                pool.refresh()
            load.wait_for_answers_of({name_of(one), name_of(two)})
            eventually(lambda: pool.stats().closed[how] >= 6)
            assert not load.errors
