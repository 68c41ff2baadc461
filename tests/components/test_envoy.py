"""Envoy allows few streams on a connection, and ends it after a while; neither loses a call of the pool."""

from __future__ import annotations

import queue

import pytest

from components.conftest import PoolOpener
from components.load import Load
from components.proxies import Envoy
from support.connections import connections_to
from support.servers import CHAT, COUNT, SLOW, Server, unary
from support.waiting import LONG, eventually, together

pytestmark = pytest.mark.timeout(60)

CALLS = 64
LIMIT = 20


def test_a_pool_that_knows_the_limit_runs_all_calls_at_once(server: Server, pool_of: PoolOpener) -> None:
    """64 streams are answered while all of them stay open, although one connection carries only 20."""
    with Envoy(server, max_streams=LIMIT) as envoy:
        pool = pool_of(envoy, max_size=4, max_streams=18)
        requests: list[queue.SimpleQueue[bytes | None]] = [queue.SimpleQueue() for _ in range(CALLS)]
        chats = [pool.stream_stream(CHAT)(iter(each.get, None), timeout=LONG) for each in requests]
        for i, each in enumerate(requests):
            each.put(b"%d" % i)
        assert [next(chat) for chat in chats] == [b"%d" % i for i in range(CALLS)]
        assert pool.stats().in_flight == CALLS
        assert pool.stats().size == 4
        for each in requests:
            each.put(None)
        assert [list(chat) for chat in chats] == [[]] * CALLS


@pytest.mark.parametrize("settings", [{"max_streams": 18}, {}], ids=["knows the stream limit", "default"])
def test_no_call_fails_beyond_the_limit(server: Server, pool_of: PoolOpener, settings: dict[str, int]) -> None:
    """64 threads call concurrently, many times, and each gets its answers.

    A pool that does not know the limit puts more calls on a connection than Envoy allows. They wait unseen in the
    client: Envoy refuses none, and the server never has more than the limit allows.
    """
    with Envoy(server, max_streams=LIMIT) as envoy:
        pool = pool_of(envoy, **settings)
        server.take_peaks()
        answers = together(CALLS, lambda i: [unary(pool, SLOW, b"20") for _ in range(10)])
        assert answers == [[b"20"] * 10] * CALLS
        stats = pool.stats()
        assert (stats.refused_streams, sum(stats.closed.values())) == (0, 0)
        # Envoy's own connection to the server is the only one.
        (most,) = server.take_peaks().values()
        assert most <= LIMIT * stats.opened


def test_no_call_fails_when_connections_end(server: Server, pool_of: PoolOpener) -> None:
    """Envoy ends each connection after 0.3 s. Calls and streams go on, even streams that take longer.

    gRPC reconnects within the slot, so the pool's count of connections does not change.
    """
    with Envoy(server, max_streams=LIMIT, max_duration=0.3) as envoy:
        pool = pool_of(envoy, min_size=2, max_size=2, max_streams=18)

        def call() -> bytes:
            return unary(pool, SLOW, b"5")

        def stream() -> bytes:
            return b",".join(pool.unary_stream(COUNT)(b"8,60", timeout=LONG))

        with Load(4, call) as calls, Load(8, stream) as streams:
            eventually(lambda: envoy.counter("cx_max_duration_reached") >= 4, pause=0.1)
            assert set(streams.answers_to_come(8)) == {b"0,1,2,3,4,5,6,7"}
            assert set(calls.answers_to_come()) == {b"5"}
        assert not calls.errors
        assert not streams.errors
        stats = pool.stats()
        assert (stats.opened, stats.size, sum(stats.closed.values())) == (2, 2, 0)


def test_unused_connections_reconnect(server: Server, pool_of: PoolOpener) -> None:
    """After Envoy has ended every connection of an idle pool, as many are soon open again."""
    with Envoy(server, max_streams=LIMIT, max_duration=1) as envoy:
        pool = pool_of(envoy, min_size=4)
        pool.open()
        assert connections_to(envoy.port) == 4
        eventually(lambda: envoy.counter("cx_max_duration_reached") >= 4 and connections_to(envoy.port) == 4)
        eventually(lambda: pool.stats().ready == 4)
        assert pool.stats().opened == 4
