"""What happens when the addresses of a name change under load, and when a server is away for a while."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import grpc
import pytest

import grpcpool
from addresses.fleet import LOOK_UP_EVERY, NAME, OFTEN, Servers, are_even, hosts, pid_of
from addresses.silent import silent_address
from grpcpool.events import AddressesChanged
from resilience.worlds import Load, World, failure_of
from support.connections import connections_by_host
from support.dns import DnsServer
from support.pools import Recorder
from support.servers import COUNT, PID, RECONNECT_SOON, Server
from support.waiting import LONG, background, eventually

pytestmark = pytest.mark.timeout(90)

OPTIONS = [*OFTEN, *RECONNECT_SOON]
CALLERS = 12
# Milliseconds.
A_CALL = b"20"


def answers_of(load: Load, server: Server) -> bool:
    """Whether the server has answered one of the load's last calls."""
    last = load.outcomes[-4 * CALLERS :]
    return any(outcome.answer == str(server.pid).encode() for outcome in last)


def test_open_while_the_server_is_away(world: World, mortals: Callable[[int], Servers]) -> None:
    """`open()` of a pool that has lost its connection fails at its timeout, or succeeds once the server is back."""
    servers = mortals(1)
    with world.pool(servers[0].target) as subject:
        subject.open()
        servers[0].kill()
        eventually(lambda: subject.stats().lost)
        began = time.monotonic()
        with pytest.raises(grpcpool.PoolOpenError) as raised:
            subject.open(timeout=0.7)
        assert 0.7 <= time.monotonic() - began < 0.7 + 1
        assert raised.value.__cause__ is not None
        opening = background(lambda: subject.open(timeout=LONG))
        servers[0].restart()
        opening.result(LONG)
        assert subject.stats().ready == 1
        assert servers.connections() == [1]


@pytest.mark.parametrize("number", [1, 3])
def test_a_silent_address(world: World, number: int) -> None:
    """A call without a deadline fails with the first dials, at `connect_timeout`; calls after it fail at once."""
    with contextlib.ExitStack() as stack:
        targets = [stack.enter_context(silent_address()) for _ in range(number)]
        with world.pool("ipv4:" + ",".join(targets), connect_timeout=1.2) as subject:
            for expected in (1.2, 0.0, 0.0):
                began = time.monotonic()
                error = failure_of(subject.begin(PID, b"", timeout=None))
                assert isinstance(error, grpc.RpcError)
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                assert expected - 0.01 <= time.monotonic() - began < expected + 1


def test_a_new_address_gets_calls(world: World, servers: Servers, dns: DnsServer) -> None:
    """A server whose address is new gets calls within the time between two look-ups, and a second."""
    dns.set(NAME, *hosts(2))
    with world.pool(servers.name, options=OPTIONS) as subject:
        with subject.load(CALLERS, PID, A_CALL) as load:
            eventually(lambda: servers.connections(3) == [1, 1, 0])
            dns.set(NAME, *hosts(3))
            eventually(lambda: answers_of(load, servers[2]), timeout=1.2 * LOOK_UP_EVERY + 1)
            assert servers.connections(3) == [1, 1, 1]
        load.assert_none_failed()


def test_a_new_address_gets_its_share_of_a_full_pool(world: World, servers: Servers, dns: DnsServer) -> None:
    """At `max_size`, others give connections up one after another; each drains, so that no call fails."""
    dns.set(NAME, *hosts(2))
    with world.pool(servers.name, options=OPTIONS, min_size=6, max_size=6) as subject:
        subject.open()
        with subject.load(CALLERS, PID, A_CALL) as load:
            load.wait_for_calls(CALLERS)
            assert servers.connections(2) == [3, 3]
            dns.set(NAME, *hosts(3))
            eventually(lambda: servers.connections(3) == [2, 2, 2])
            load.wait_for_calls(2 * CALLERS)
        load.assert_none_failed()
        stats = subject.stats()
        assert (stats.opened, stats.closed["refresh"]) == (8, 2)


def test_an_address_that_is_gone(world: World, mortals: Callable[[int], Servers], dns: DnsServer) -> None:
    """A server that ends a second after its address has gone from DNS fails no call."""
    servers = mortals(3)
    dns.set(NAME, *hosts(3))
    recorder = Recorder()
    with world.pool(servers.name, options=OPTIONS, how={"listeners": [recorder]}) as subject:
        with subject.load(CALLERS, PID, A_CALL) as load:
            eventually(lambda: servers.connections() == [1, 1, 1])
            dns.set(NAME, *hosts(2))
            time.sleep(1)
            servers[2].kill()
            load.wait_for_calls(10 * CALLERS)
        load.assert_none_failed()
        assert servers.connections() == [1, 1, 0]
        assert (subject.stats().closed["address_gone"], subject.stats().losses) == (1, 0)
        last = recorder.of(AddressesChanged)[-1]
        assert (last.new, last.gone) == ((), (f"{hosts(3)[2]}:{servers.port}",))


def test_all_addresses_are_replaced_at_once(world: World, servers: Servers, dns: DnsServer) -> None:
    """As when a whole deployment is replaced: the pool moves to the new addresses, and no call fails."""
    dns.set(NAME, *hosts(8)[:4])
    with world.pool(servers.name, options=OPTIONS) as subject:
        with subject.load(CALLERS, PID, A_CALL) as load:
            eventually(lambda: servers.connections() == [1] * 4 + [0] * 4)
            dns.set(NAME, *hosts(8)[4:])
            eventually(lambda: not any(servers.connections()[:4]))
            eventually(lambda: servers.connections() == [0] * 4 + [1] * 4)
            load.wait_for_calls(2 * CALLERS)
            assert servers.connections() == [0] * 4 + [1] * 4
        load.assert_none_failed()
        assert subject.stats().closed["address_gone"] == 4


def test_the_last_address_of_a_full_pool_is_replaced(world: World, servers: Servers, dns: DnsServer) -> None:
    """With `max_size=1` the new connection is ready before the old one drains."""
    dns.set(NAME, hosts(1)[0])
    with world.pool(servers.name, options=OPTIONS, max_size=1) as subject:
        with subject.load(CALLERS, PID, A_CALL) as load:
            load.wait_for_calls(CALLERS)
            dns.set(NAME, hosts(2)[1])
            eventually(lambda: servers.connections(2) == [0, 1])
        load.assert_none_failed()


def test_a_server_dies_and_is_back(world: World, mortals: Callable[[int], Servers], dns: DnsServer) -> None:
    """Only calls in flight on it fail; while it is away the others serve; when it is back it gets its share again."""
    servers = mortals(3)
    dns.set(NAME, *hosts(3))
    with world.pool(servers.name, options=OPTIONS, min_size=6, max_size=6) as subject:
        subject.open()
        with subject.load(CALLERS, PID, A_CALL) as load:
            load.wait_for_calls(CALLERS)
            assert servers.connections() == [2, 2, 2]
            killed_at = time.monotonic()
            servers[1].kill()
            # Its connections go to the others.
            eventually(lambda: are_even([servers.connections()[i] for i in (0, 2)], 6))
            servers[1].start()
            eventually(lambda: servers.connections() == [2, 2, 2])
            eventually(lambda: answers_of(load, servers[1]))
            since = len(load.outcomes)
            load.wait_for_calls(20 * CALLERS)
            calls = servers.calls(load, since=since)
            assert max(calls) / (sum(calls) / 3) <= 1.3, calls
        assert {outcome.code for outcome in load.failed} <= {grpc.StatusCode.UNAVAILABLE}
        # gRPC takes some milliseconds to notice.
        assert [str(outcome) for outcome in load.failed if outcome.began > killed_at + 0.1] == []
        assert len(load.failed) <= CALLERS


def test_each_server_restarts_in_turn(world: World, mortals: Callable[[int], Servers], dns: DnsServer) -> None:
    """As in a rolling update that keeps addresses: calls are served all along, and in the end each has a connection."""
    servers = mortals(3)
    dns.set(NAME, *hosts(3))
    with world.pool(servers.name, options=OPTIONS) as subject, subject.load(CALLERS, PID, A_CALL) as load:
        for server in servers:
            eventually(lambda: servers.connections() == [1, 1, 1])
            server.restart()
            load.wait_for_calls(2 * CALLERS)
        eventually(lambda: servers.connections() == [1, 1, 1])
    assert len(load.failed) <= 3 * CALLERS


def test_an_unused_pool_looks_nothing_up(world: World, servers: Servers, dns: DnsServer) -> None:
    """Two look-ups after its last call at the latest; the next call begins with a look-up."""
    dns.set(NAME, *hosts(2))
    with world.pool(servers.name, options=OPTIONS) as subject:
        pid_of(subject)
        time.sleep(3 * LOOK_UP_EVERY)
        asked = dns.asked[NAME]
        assert asked <= 3
        dns.set(NAME, *hosts(3))
        time.sleep(4 * LOOK_UP_EVERY)
        assert dns.asked[NAME] == asked
        assert servers.connections(3) == [1, 1, 0]
        pid_of(subject)
        eventually(lambda: servers.connections(3) == [1, 1, 1])


def test_names_are_looked_up_as_often_as_the_option_says(world: World, servers: Servers, dns: DnsServer) -> None:
    """`grpc.dns_min_time_between_resolutions_ms` is the time between two look-ups, give or take a fifth."""
    dns.set(NAME, *hosts(2))
    with world.pool(servers.name, options=[("grpc.dns_min_time_between_resolutions_ms", 200)]) as subject:
        with subject.load(2, PID, A_CALL) as load:
            load.wait_for_calls(1)
            before, began = dns.asked[NAME], time.monotonic()
            time.sleep(2)
            asked, lasted = dns.asked[NAME] - before, time.monotonic() - began
        assert lasted / (1.2 * 0.2) - 3 <= asked <= lasted / (0.8 * 0.2) + 1
        load.assert_none_failed()


def test_a_name_with_both_families(world: World, servers: Servers, dns: DnsServer) -> None:
    """If nothing listens on the IPv6 address, the IPv4 addresses are used: no call fails, and no failure is counted."""
    dns.set(NAME, "::1", *hosts(2))
    with world.pool(servers.name, options=OPTIONS) as subject:
        with subject.load(CALLERS, PID, A_CALL) as load:
            eventually(lambda: servers.connections(2) == [1, 1])
            # Look-ups that find the same do not begin again.
            before = dns.asked[NAME]
            eventually(lambda: dns.asked[NAME] > before + 2)
        load.assert_none_failed()
        stats = subject.stats()
        assert (stats.open_failures, stats.opened, stats.size) == (0, 2, 2)


def test_the_other_family_once_the_first_is_gone(
    world: World, mortals: Callable[[int], Servers], dns: DnsServer
) -> None:
    """A name of one family only, later of the other only."""
    servers = mortals(1)
    with Server({"so_reuseport": 0}, host="[::1]", port=servers.port) as other:
        dns.set(NAME, "::1")
        with world.pool(servers.name, options=OPTIONS) as subject, subject.load(CALLERS, PID, A_CALL) as load:
            eventually(lambda: connections_by_host(servers.port)["::1"] == 1)
            dns.set(NAME, *hosts(1))
            eventually(lambda: (servers.connections(), connections_by_host(servers.port)["::1"]) == ([1], 0))
            load.wait_for_calls(2 * CALLERS)
            dns.set(NAME, "::1", *hosts(1))
            before = dns.asked[NAME]
            eventually(lambda: dns.asked[NAME] > before + 2)
            # Both are the same servers: the one that is used already is enough.
            assert (servers.connections(), connections_by_host(servers.port)["::1"]) == ([1], 0)
        load.assert_none_failed()
        assert other.port == servers.port


@pytest.mark.parametrize("wait_for_ready", [None, True])
def test_no_call_fails_for_not_being_sent(
    world: World, mortals: Callable[[int], Servers], dns: DnsServer, wait_for_ready: bool | None
) -> None:
    """A call that gRPC could not send, because its connection is down, is sent to another server, of whatever kind.

    So is one that waits for ready: it does not wait for the server that is down. Until gRPC itself has read that the
    connection is gone, it sends calls that are lost with it.
    """
    servers = mortals(2)
    dns.set(NAME, *hosts(2))
    with world.pool(servers.name, options=OPTIONS, min_size=4, max_size=4) as subject:
        subject.open()
        for kind in subject.kinds:
            eventually(lambda: servers.connections() == [2, 2])
            servers[0].kill()
            method, request = (COUNT, b"1,0") if kind == "stream" else (PID, b"")
            calls = [subject.begin(method, request, kind=kind, wait_for_ready=wait_for_ready) for _ in range(20)]
            errors = [call.exception(LONG / 2) for call in calls]
            unsent = [error for error in errors if error is not None and "failed to connect" in str(error)]
            assert unsent == [], kind
            assert None in errors, kind
            assert not [error for error in errors if error and "deadline" in str(error).lower()], kind
            servers[0].start()
        assert subject.stats().in_flight == 0


@pytest.mark.parametrize("max_resends", [0, 3])
def test_a_call_that_waits_for_the_only_server(
    world: World, mortals: Callable[[int], Servers], max_resends: int
) -> None:
    """It waits from when its connection is down until the server is back, however long that takes, of whatever kind.

    Until gRPC has read that the connection is gone, calls are lost with it, as on a channel.
    """
    servers = mortals(1)
    with world.pool(servers[0].target, options=RECONNECT_SOON, max_resends=max_resends) as subject:
        for kind in subject.kinds:
            subject.open()
            servers[0].kill()
            method, request = (COUNT, b"1,0") if kind == "stream" else (PID, b"")
            calls = [subject.begin(method, request, kind=kind, wait_for_ready=True) for _ in range(20)]
            eventually(lambda: subject.stats().ready == 0)
            # These begin when it is known that the connection is gone.
            waiting = [subject.begin(method, request, kind=kind, wait_for_ready=True) for _ in range(5)]
            late = subject.begin(method, request, kind=kind, wait_for_ready=True, timeout=0.3)
            timed_out = failure_of(late)
            assert isinstance(timed_out, grpc.RpcError)
            assert timed_out.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            servers[0].restart()
            errors = [str(error) for call in calls if (error := call.exception(LONG / 2)) is not None]
            unsent = [error for error in errors if "failed to connect" in error or "deadline" in error.lower()]
            assert unsent == [], kind
            assert [call.exception(LONG / 2) for call in waiting] == [None] * len(waiting), kind
        assert subject.stats().in_flight == 0


def test_a_call_that_cannot_be_sent_anywhere_fails(
    world: World, mortals: Callable[[int], Servers], dns: DnsServer
) -> None:
    """If no other server is up, the caller gets gRPC's error at once; with `max_resends=0` in any case.

    Until gRPC itself has read that a connection is gone, calls are lost with it, which is another error.
    """
    servers = mortals(2)
    dns.set(NAME, *hosts(2))
    with world.pool(servers.name, options=OPTIONS, max_resends=0) as subject:
        subject.open()
        eventually(lambda: servers.connections() == [1, 1])
        for server in servers:
            server.kill()
        eventually(lambda: subject.stats().ready == 0)
        error = subject.begin(PID, b"").exception(LONG)
        assert isinstance(error, grpc.RpcError)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "Connection refused" in str(error.details())
