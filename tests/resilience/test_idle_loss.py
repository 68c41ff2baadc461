"""Connections lost while the pool is unused are noticed and come back: N slots are N TCP connections again."""

from __future__ import annotations

import time
from typing import Any

import pytest

from resilience.worlds import World
from support.connections import addresses_of_connections_to, connections_to
from support.servers import ECHO, Server
from support.waiting import eventually

pytestmark = pytest.mark.timeout(60)

CONNECTIONS = 5


def test_a_server_that_closes_idle_connections(world: World) -> None:
    """Each connection that the server closes as idle is opened again, without any call."""
    with (
        Server({"max_connection_idle_ms": 1500}) as server,
        world.pool(server.target, min_size=CONNECTIONS, max_size=CONNECTIONS) as subject,
    ):
        subject.open()
        first = addresses_of_connections_to(server.port)
        assert len(first) == CONNECTIONS
        eventually(lambda: not first & addresses_of_connections_to(server.port))
        eventually(lambda: connections_to(server.port) == CONNECTIONS)
        eventually(lambda: subject.stats().ready == CONNECTIONS)
        assert subject.call(ECHO, b"a") == b"a"
        stats = subject.stats()
        assert (stats.opened, stats.acquired, sum(stats.closed.values())) == (CONNECTIONS, 1, 0)


def test_a_server_that_restarts_while_the_pool_is_idle(world: World, mortal: Server) -> None:
    """The loss shows in the stats, and the connections come back after the server does, without any call."""
    with world.pool(mortal.target, min_size=CONNECTIONS, max_size=CONNECTIONS) as subject:
        subject.open()
        ids = [channel.id for channel in subject.stats().channels]
        mortal.kill()
        eventually(lambda: {channel.state for channel in subject.stats().channels} == {"lost"})
        mortal.start()
        eventually(lambda: connections_to(mortal.port) == CONNECTIONS)
        eventually(lambda: subject.stats().ready == CONNECTIONS)
        stats = subject.stats()
        assert [channel.id for channel in stats.channels] == ids
        assert (stats.opened, stats.acquired, sum(stats.closed.values())) == (CONNECTIONS, 0, 0)
        assert subject.call(ECHO, b"a") == b"a"


def test_when_most_of_the_pool_is_down_no_slot_is_closed(world: World, mortal: Server) -> None:
    """When 5 of 6 connections lose their server, the same 6 slots serve once it is back; none was closed or opened."""
    with Server() as other:
        targets = iter([mortal.target] * 5 + [other.target])
        makers = {target: world.channel_maker(target) for target in (mortal.target, other.target)}

        def make() -> Any:
            return makers[next(targets)]()

        with world.pool_over(make, min_size=6, max_size=6) as subject:
            subject.open()
            ids = {channel.id for channel in subject.stats().channels}
            with subject.load(10, ECHO, b"a") as load:
                load.wait_for_calls(100)
                mortal.kill()
                eventually(lambda: subject.stats().ready == 1)
                noticed_at = time.monotonic()
                load.wait_for_calls(500)
                assert [str(outcome) for outcome in load.failed if outcome.began > noticed_at] == []
                mortal.start()
                eventually(lambda: subject.stats().ready == 6)
                before = {channel.id: channel.calls for channel in subject.stats().channels}
                load.wait_for_calls(600)
            stats = subject.stats()
            assert {channel.id for channel in stats.channels} == ids
            assert all(channel.calls > before[channel.id] for channel in stats.channels)
            assert (stats.opened, sum(stats.closed.values())) == (6, 0)
