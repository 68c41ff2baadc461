"""Which calls the pool takes for unsent, and sends again: those that certainly never reached a server."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

import grpcpool
from addresses.fleet import Servers
from resilience.worlds import World, failure_of
from support.servers import FAIL, RECONNECT_SOON, RELAY, SLOW, STOP, Server, unary
from support.waiting import LONG, eventually

pytestmark = pytest.mark.timeout(90)

_CALLS = 4
_RELAYED = "ipv4:192.0.2.1:1: No route to host"
_TWO_ATTEMPTS = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 2,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.1s",
                "backoffMultiplier": 1,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


def _stop(server: Server) -> None:
    """It accepts nothing more. What runs goes on."""
    with grpc.insecure_channel(server.target, grpcpool.isolated()) as channel:
        unary(channel, STOP, b"", timeout=LONG)


@pytest.mark.parametrize("wait_for_ready", [None, True])
@pytest.mark.parametrize("number", [1, 2], ids=["one server", "two servers"])
def test_a_server_that_is_stopping_relays_the_words(
    world: World, mortals: Callable[[int], Servers], number: int, wait_for_ready: bool | None
) -> None:
    """Its channel is not connected any more, and it has executed the call: its error goes to the caller."""
    servers = mortals(number)
    with world.pool(servers.target(), options=RECONNECT_SOON, min_size=2, max_size=2) as subject:
        subject.open()
        for kind in (kind for kind in subject.kinds if kind != "stream"):
            calls = [subject.begin(RELAY, b"700", kind=kind, wait_for_ready=wait_for_ready) for _ in range(_CALLS)]
            eventually(lambda: subject.stats().in_flight == _CALLS)
            # They reach the servers.
            time.sleep(0.2)
            _stop(servers[0])
            errors = [str(error) for call in calls if (error := call.exception(LONG)) is not None]
            assert len(errors) == _CALLS / number
            assert all(_RELAYED in error for error in errors), errors
            servers[0].restart()
            eventually(lambda: subject.stats().ready == 2)
        assert (subject.stats().in_flight, subject.stats().waiting) == (0, 0)


@pytest.mark.parametrize("wait_for_ready", [None, True])
@pytest.mark.parametrize("shown_by", ["time", "metadata", "max_resends"])
def test_a_server_that_is_stopping_relays_words_with_its_own_address(
    world: World, mortals: Callable[[int], Servers], shown_by: str, wait_for_ready: bool | None
) -> None:
    """It has executed the call, as is known from its metadata, or if its connection went away a while ago."""
    servers = mortals(2)
    words = f"failed to connect to all addresses; last error: UNKNOWN: ipv4:{servers[0].target}: Connection refused"
    request = f"{1500 if shown_by == 'time' else 400}|{words}{'|x-key' if shown_by == 'metadata' else ''}".encode()
    settings: dict[str, Any] = {"max_resends": 0} if shown_by == "max_resends" else {}
    with world.pool(servers.target(), options=RECONNECT_SOON, min_size=2, max_size=2, **settings) as subject:
        subject.open()
        kinds = [kind for kind in subject.kinds if kind != "stream"] * 2
        calls = [subject.begin(RELAY, request, kind=kind, wait_for_ready=wait_for_ready) for kind in kinds]
        eventually(lambda: sum(server.running() for server in servers) == len(kinds))
        on_first = servers[0].running()
        assert on_first
        _stop(servers[0])
        errors = [str(error) for call in calls if (error := call.exception(LONG)) is not None]
        assert len(errors) == on_first == subject.stats().failures
        assert all(words in error for error in errors), errors


@pytest.mark.parametrize("wait_for_ready", [None, True])
def test_a_server_that_is_well_relays_words_with_its_own_address(
    world: World, mortals: Callable[[int], Servers], wait_for_ready: bool | None
) -> None:
    """Another server may have the same address for it, as behind a tunnel. The call is executed once."""
    servers = mortals(1)
    words = f"failed to connect to all addresses; last error: UNKNOWN: ipv4:{servers[0].target}: refused"
    with world.pool(servers.target(), options=RECONNECT_SOON, min_size=2, max_size=2) as subject:
        subject.open()
        for number, kind in enumerate((kind for kind in subject.kinds if kind != "stream"), 1):
            call = subject.begin(FAIL, f"UNAVAILABLE|{words}".encode(), kind=kind, wait_for_ready=wait_for_ready)
            assert f"{words} ({number})" in str(call.exception(LONG))


def test_a_retry_policy_bounds_the_executions(world: World, mortals: Callable[[int], Servers]) -> None:
    """Two attempts are two, although the second one could not be sent and another server is up."""
    options = [*RECONNECT_SOON, ("grpc.service_config", json.dumps(_TWO_ATTEMPTS))]
    servers = mortals(3)
    with world.pool(servers.target(), options=options, min_size=3, max_size=3) as subject:
        for kind in (kind for kind in subject.kinds if kind != "stream"):
            subject.open()
            eventually(lambda: subject.stats().ready == 3)
            call = subject.begin(SLOW, b"10000", kind=kind)
            up = list(servers)
            while not call.done() and up:
                for server in up:
                    if server.running():
                        server.kill()
                        up.remove(server)
                        break
            assert isinstance(call.exception(LONG), grpc.RpcError)
            killed = [server for server in servers if server not in up]
            for server in killed:
                server.restart()
            assert 1 <= len(killed) <= 2


def test_a_retry_policy_bounds_the_attempts(world: World, mortals: Callable[[int], Servers]) -> None:
    """GRPC counts them, of a call that waits for ready: the words for the last say nothing of those before."""
    servers = mortals(1)
    options = [*RECONNECT_SOON, ("grpc.service_config", json.dumps(_TWO_ATTEMPTS))]
    with world.pool(servers.target(), options=options) as subject:
        subject.open()
        for kind in (kind for kind in subject.kinds if kind != "stream"):
            eventually(lambda: subject.stats().ready == 1)
            call = subject.begin(SLOW, b"10000", kind=kind, wait_for_ready=True)
            for _ in range(2):
                eventually(servers[0].running)
                servers[0].kill()
                # The next attempt begins meanwhile.
                time.sleep(0.3)
                servers[0].start()
            error = failure_of(call)
            assert isinstance(error, grpc.RpcError)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert not servers[0].running()
