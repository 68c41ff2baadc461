"""Connections are replaced under load, and no call notices."""

from __future__ import annotations

import threading
import time
from typing import Any

import grpc
import pytest

from grpcpool.events import Closed
from support.connections import addresses_of_connections_to, connections_to
from support.pools import PoolMaker, Recorder
from support.servers import CHAT, ECHO, PEER, SLOW, Server, unary
from support.waiting import LONG, background, eventually

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("how", ["refresh", "age", "resize"])
def test_no_call_fails_while_connections_are_replaced(server: Server, make_pool: PoolMaker, how: str) -> None:
    """While threads call without a pause, every connection is replaced several times, and each call succeeds."""
    settings: dict[str, Any] = {"max_age": 0.2} if how == "age" else {}
    pool = make_pool(server.channel, min_size=2, max_size=4, max_streams=4, **settings)
    pool.open()
    over = threading.Event()

    def use() -> set[bytes]:
        peers = set()
        while not over.is_set():
            with pool.acquire(timeout=LONG, streams=1) as lease:
                peers.add(unary(lease, PEER, b""))
        return peers

    users = [background(use) for _ in range(6)]
    for round_ in range(1, 4):
        if how == "refresh":
            pool.refresh()
            eventually(lambda round_=round_: pool.stats().closed["refresh"] >= 2 * round_)  # type: ignore[misc]
        elif how == "age":
            eventually(lambda round_=round_: pool.stats().closed["age"] >= 2 * round_)  # type: ignore[misc]
        else:
            pool.resize(min_size=1, max_size=1)
            eventually(lambda: pool.stats().size == 1)
            pool.resize(min_size=4, max_size=4)
            eventually(lambda: pool.stats().ready == 4)
    over.set()
    peers = set().union(*(user.result(LONG) for user in users))
    assert len(peers) >= 4
    assert pool.stats().open_failures == 0
    eventually(lambda: pool.stats().in_flight == 0)


def test_a_refresh_makes_new_connections(server: Server, make_pool: PoolMaker) -> None:
    """After a refresh every TCP connection is new, and there are as many as before."""
    pool = make_pool(server.channel, min_size=3)
    pool.open()
    before = addresses_of_connections_to(server.port)
    pool.refresh()
    eventually(lambda: pool.stats().closed["refresh"] == 3)
    eventually(lambda: connections_to(server.port) == 3)
    assert before.isdisjoint(addresses_of_connections_to(server.port))
    with pool.acquire(timeout=0) as lease:
        assert unary(lease, ECHO, b"a") == b"a"


def test_what_outlives_drain_timeout_is_cancelled(server: Server, make_pool: PoolMaker) -> None:
    """A call and a stream on a replaced connection continue for `drain_timeout`, and then fail `CANCELLED`.

    The connection is then closed, and its event says how many calls were cut off.
    """
    recorder = Recorder()
    pool = make_pool(server.channel, drain_timeout=0.5, listeners=[recorder])
    pool.open()
    over = threading.Event()
    unary_call = pool.unary_unary(SLOW).future(b"20000")
    stream = pool.stream_stream(CHAT)(iter(over.wait, True))
    before = addresses_of_connections_to(server.port)
    began = time.monotonic()
    pool.refresh()
    failed = background(lambda: unary_call.exception(LONG)).result(LONG)
    assert 0.45 <= time.monotonic() - began < 10
    assert isinstance(failed, grpc.RpcError)
    assert failed.code() is stream.code() is grpc.StatusCode.CANCELLED
    over.set()
    eventually(lambda: before.isdisjoint(addresses_of_connections_to(server.port)))
    assert [event.cancelled for event in recorder.of(Closed)] == [2]
    assert (pool.stats().in_flight, pool.stats().closed["refresh"]) == (0, 1)
