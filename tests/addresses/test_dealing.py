"""Connections are dealt out evenly over the addresses of a target."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from addresses.fleet import NAME, Servers, are_even, hosts, pid_of
from resilience.worlds import World
from support.dns import DnsServer
from support.servers import PID, SLOW
from support.waiting import eventually

_MOST_ROUNDS = 5

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("more", ["k", "k + 1", "2 * k", "3 * k"])
@pytest.mark.parametrize("k", [3, 5, 8])
def test_none_is_left_out(world: World, servers: Servers, k: int, more: str) -> None:
    """With at least as many connections as addresses, each has one, and no two differ by more than one."""
    n = {"k": k, "k + 1": k + 1, "2 * k": 2 * k, "3 * k": 3 * k}[more]
    with world.pool(servers.target(k), min_size=n, max_size=n) as subject:
        subject.open()
        eventually(lambda: are_even(servers.connections(k), n))
        stats = subject.stats()
        assert (stats.ready, stats.opened, stats.open_failures, sum(stats.closed.values())) == (n, n, 0, 0)
        found = [sum(channel.address == server.target for channel in stats.channels) for server in servers]
        assert found == servers.connections()


def test_each_address_of_a_name_has_a_connection(world: World, servers: Servers, dns: DnsServer) -> None:
    """With the default settings, one call is enough for a connection to each."""
    dns.set(NAME, *hosts(5))
    with world.pool(servers.name) as subject:
        pid_of(subject)
        eventually(lambda: servers.connections() == [1] * 5 + [0] * 3)
        assert subject.stats().size == 5
        assert dns.asked[NAME] == 1


def test_no_more_connections_than_allowed(world: World, servers: Servers) -> None:
    """With more addresses than `max_size`, some have no connection, and no address has two."""
    with world.pool(servers.target(), min_size=1, max_size=3) as subject:
        with subject.load(9, SLOW, b"20") as load:
            load.wait_for_calls(50)
            assert sorted(servers.connections()) == [0] * 5 + [1] * 3
        load.assert_none_failed()
        assert subject.stats().opened == 3


def test_pools_with_one_connection_choose_different_servers(
    world: World, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an address ranks depends on a seed of the process: of many processes, not all use the same server first.

    Which one a seed leads to depends on the port as well, which is another in each run. One in two hundred ports puts
    ten of these pools on one server: then other seeds must do better.
    """
    found: list[int] = []
    for first in (0, 24, 48):
        with contextlib.ExitStack() as stack:
            for seed in range(first, first + 24):
                monkeypatch.setattr("grpcpool._shared.driver._SEED", seed)
                subject = stack.enter_context(world.pool(servers.target(), min_size=1, max_size=1))
                subject.open()
            found = servers.connections()
            assert sum(found) == 24
        if max(found) <= 9:
            break
        eventually(lambda: sum(servers.connections()) == 0)
    assert max(found) <= 9
    assert sum(map(bool, found)) >= 5


def test_pools_of_one_process_choose_the_same(world: World, servers: Servers) -> None:
    """The order of addresses is the same for all pools of a process, whatever the order in which they are listed."""
    with contextlib.ExitStack() as stack:
        for turn in range(3):
            listed = [server.target for server in servers]
            target = "ipv4:" + ",".join(listed[turn:] + listed[:turn])
            stack.enter_context(world.pool(target, min_size=1, max_size=1)).open()
        assert sorted(servers.connections()) == [0] * 7 + [3]


@pytest.mark.parametrize("k", [3, 8])
def test_calls_are_even(world: World, servers: Servers, dns: DnsServer, k: int) -> None:
    """Once each server has a connection, no server gets more than 15 % above the mean, with the default settings.

    On a busy machine one server's process may be slower than the others for a while, and rightly gets less.
    """
    dns.set(NAME, *hosts(k))
    rounds: list[list[int]] = []
    with world.pool(servers.name) as subject, subject.load(30, PID, b"20") as load:
        eventually(lambda: subject.stats().ready >= k)
        load.wait_for_calls(60)
        while len(rounds) < _MOST_ROUNDS and not any(max(calls) / (sum(calls) / k) <= 1.15 for calls in rounds):
            since = len(load.outcomes)
            load.wait_for_calls(k * 200)
            rounds.append(servers.calls(load, since=since)[:k])
    assert any(max(calls) / (sum(calls) / k) <= 1.15 for calls in rounds), rounds
    load.assert_none_failed()


def test_all_connections_are_to_one_address_left(world: World, mortals: Callable[[int], Servers]) -> None:
    """If only one address of a list answers, the pool works, and uses that."""
    servers = mortals(3)
    servers[0].kill()
    servers[2].kill()
    with world.pool(servers.target(), min_size=3, max_size=3) as subject:
        eventually(lambda: pid_of(subject) == str(servers[1].pid).encode())
        eventually(lambda: servers.connections() == [0, 3, 0])
        servers[0].start()
        servers[2].start()
        # They get their share as soon as the pool is being used and their pauses are over.
        eventually(lambda: (pid_of(subject), servers.connections())[1] == [1, 1, 1])
