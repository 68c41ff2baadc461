"""A pool grows at once with its load, and takes back a draining connection before it opens another."""

from __future__ import annotations

import time

import pytest

from resilience.worlds import World
from support.connections import addresses_of_connections_to, connections_to
from support.servers import SLOW, TOGETHER, Server
from support.waiting import LONG, eventually

pytestmark = pytest.mark.timeout(120)


def test_a_burst_brings_connections_within_a_second(world: World, mortal: Server) -> None:
    """300 calls at once on a pool without connections open at least 4 within a second, counted from outside.

    A busy machine gets three attempts.
    """
    took = []
    for _ in range(3):
        with world.pool(mortal.target) as subject:
            began = time.monotonic()
            calls = [subject.begin(TOGETHER, b"300") for _ in range(300)]
            eventually(lambda: connections_to(mortal.port) >= 4)
            took.append(time.monotonic() - began)
            assert [call.result(2 * LONG) for call in calls] == [b"300"] * 300
            stats = subject.stats()
            assert (stats.acquired, stats.timeouts, stats.rejected, stats.open_failures) == (300, 0, 0, 0)
            # All ran at once. When each connection carries the target, 50, another is opened: the last carries less.
            loads = [connection.calls for connection in stats.channels]
            assert sum(loads) == 300
            assert min(loads) < 50
            assert 4 <= stats.opened <= 7
        if took[-1] <= 1:
            return
    pytest.fail(f"4 connections took {took} s")


def test_calls_that_all_wait_open_as_many_connections_as_they_need(world: World, mortal: Server) -> None:
    """300 calls that ask before any connection is up, at a target of 50, open 6; growth may be ahead by one.

    If connections are up before all have asked, some carry more than the target, and fewer are enough. So the server is
    frozen meanwhile. After a second, more connections would be dialled, because none is up: a busy machine gets three
    attempts.
    """
    took = []
    for _ in range(3):
        with world.pool(mortal.target) as subject:
            began = time.monotonic()
            mortal.freeze()
            try:
                calls = [subject.begin(SLOW, b"100") for _ in range(300)]
                eventually(lambda: subject.stats().waiting == 300)
                assert subject.stats().ready == 0
            finally:
                mortal.thaw()
            eventually(lambda: subject.stats().waiting == 0)
            took.append(time.monotonic() - began)
            assert [call.result(2 * LONG) for call in calls] == [b"100"] * 300
            stats = subject.stats()
            assert (stats.acquired, stats.timeouts, stats.rejected, stats.open_failures) == (300, 0, 0, 0)
        if took[-1] <= 1:
            assert 6 <= stats.opened <= 7
            return
    pytest.fail(f"300 calls began within {took} s")


def test_draining_connections_are_used_before_others_open(world: World, mortal: Server) -> None:
    """When the load returns, draining connections are used again: the TCP connections are the same."""
    with world.pool(mortal.target, max_size=4, max_streams=10) as subject:
        first = [subject.begin(SLOW, b"2000") for _ in range(40)]
        eventually(lambda: subject.stats().in_flight == 40)
        before = addresses_of_connections_to(mortal.port)
        assert len(before) == 4
        subject.do(lambda pool: pool.resize(1, 1))
        assert subject.stats().draining == 3
        subject.do(lambda pool: pool.resize(1, 4))
        second = [subject.begin(SLOW, b"100") for _ in range(40)]
        for call in first + second:
            call.result(2 * LONG)
        stats = subject.stats()
        assert (stats.opened, stats.ready, sum(stats.closed.values())) == (4, 4, 0)
        assert addresses_of_connections_to(mortal.port) == before
