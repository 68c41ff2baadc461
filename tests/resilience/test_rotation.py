"""Connections are replaced under load, by the pool or by the server, and no call of 40 callers fails."""

from __future__ import annotations

import time
from concurrent.futures import CancelledError

import grpc
import pytest

from resilience.worlds import World, failure_of
from support.connections import addresses_of_connections_to, connections_to
from support.servers import COUNT, SLOW, Server
from support.waiting import LONG, eventually

pytestmark = pytest.mark.timeout(120)

CALLERS = 40


def test_by_age(world: World, mortal: Server) -> None:
    """No call fails while, for 8 s, each of 4 connections is replaced at least every 0.7 s, 4 times or more."""
    with world.pool(mortal.target, min_size=4, max_size=4, max_age=0.7) as subject:
        subject.open()
        with subject.load(CALLERS, SLOW, b"5") as load:
            time.sleep(8)
        load.assert_none_failed()
        stats = subject.stats()
        assert stats.closed["age"] >= 4 * 4
        assert (stats.open_failures, stats.timeouts, stats.rejected, stats.closed["lost"]) == (0, 0, 0, 0)


def test_by_refresh(world: World, mortal: Server) -> None:
    """No call fails during ten `refresh()`s, one after the other, and every time all addresses are new."""
    with world.pool(mortal.target, min_size=4, max_size=4) as subject:
        subject.open()
        with subject.load(CALLERS, SLOW, b"5") as load:
            for round_ in range(1, 11):
                before = addresses_of_connections_to(mortal.port)
                subject.do(lambda pool: pool.refresh())
                eventually(lambda round_=round_: subject.stats().closed["refresh"] == 4 * round_)  # type: ignore[misc]
                eventually(lambda before=before: before.isdisjoint(addresses_of_connections_to(mortal.port)))  # type: ignore[misc]
            load.wait_for_calls(CALLERS)
        load.assert_none_failed()
        assert (subject.stats().opened, subject.stats().ready) == (44, 4)


def test_refreshes_that_overtake_each_other(world: World, mortal: Server) -> None:
    """No call fails during a hundred `refresh()`s without a pause, and only one successor is opened at a time."""
    with world.pool(mortal.target, min_size=4, max_size=4) as subject:
        subject.open()
        with subject.load(CALLERS, SLOW, b"5") as load:
            for _ in range(100):
                subject.do(lambda pool: pool.refresh())
                stats = subject.stats()
                assert stats.ready + stats.opening <= 5
            load.wait_for_calls(CALLERS)
        load.assert_none_failed()
        eventually(lambda: connections_to(mortal.port) == 4)
        assert subject.stats().open_failures == 0


def test_by_the_servers_age(world: World) -> None:
    """No call fails in 5 s on a server that sends GOAWAY to each connection after 0.5 s, with grace.

    Half of the callers make calls that last longer than their connection's service.
    """
    with (
        Server({"max_connection_age_ms": 500, "max_connection_age_grace_ms": 5000}) as server,
        world.pool(server.target, min_size=4, max_size=4) as subject,
    ):
        subject.open()
        first = addresses_of_connections_to(server.port)
        with (
            subject.load(CALLERS // 2, SLOW, b"5") as short,
            subject.load(CALLERS // 2, SLOW, b"700") as long,
        ):
            time.sleep(5)
        short.assert_none_failed()
        long.assert_none_failed()
        # The slots are the same; their connections are not.
        stats = subject.stats()
        assert (stats.opened, sum(stats.closed.values())) == (4, 0)
        assert first.isdisjoint(addresses_of_connections_to(server.port))


def test_a_long_stream_outlives_its_connections_service(world: World, mortal: Server) -> None:
    """A stream of 3 s on a retired connection is not cut off by further successors; its connection closes after it."""
    with world.pool(mortal.target, min_size=1, max_size=1, max_age=0.3, age_jitter=0.0) as subject:
        subject.open()
        (address,) = addresses_of_connections_to(mortal.port)
        stream = subject.begin(COUNT, b"30,100", kind="stream")
        eventually(lambda: subject.stats().closed["age"] >= 3)
        assert address in addresses_of_connections_to(mortal.port)
        assert stream.result(LONG) == b",".join(str(i).encode() for i in range(30))
        eventually(lambda: address not in addresses_of_connections_to(mortal.port))


def test_drain_timeout_is_a_long_streams_only_bound(world: World, mortal: Server) -> None:
    """With a `drain_timeout` of 1 s the stream is cancelled then, and not before; other calls do not notice."""
    with world.pool(mortal.target, min_size=1, max_size=1, drain_timeout=1.0) as subject:
        subject.open()
        stream = subject.begin(COUNT, b"1000,20", kind="stream")
        eventually(lambda: subject.stats().in_flight == 1)
        with subject.load(4, SLOW, b"5") as load:
            began = time.monotonic()
            subject.do(lambda pool: pool.refresh())
            eventually(lambda: subject.stats().draining == 1)
            error = failure_of(stream)
            took = time.monotonic() - began
            load.wait_for_calls(4)
        load.assert_none_failed()
        assert 0.9 <= took < 10
        # Like gRPC's own `close()`, which ends the calls on the channel.
        if world.name == "threads":
            assert isinstance(error, grpc.RpcError)
            assert error.code() is grpc.StatusCode.CANCELLED
        else:
            assert isinstance(error, CancelledError)
        assert subject.stats().closed["refresh"] == 1
