"""One of two servers behind one target is killed under load."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import grpc
import pytest

from resilience.worlds import World
from support.connections import assert_no_connections, connections_to
from support.servers import SLOW, Server
from support.waiting import eventually

pytestmark = pytest.mark.timeout(120)

CALLERS = 40
CONNECTIONS = 4
# Seconds in which gRPC notices that a server is gone, also on a busy machine.
NOTICED_WITHIN = 0.1


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server]]:
    """Two servers; after the test, no connection to them is left."""
    with Server() as one, Server() as two:
        yield one, two
        assert_no_connections(one.port, two.port)


def target_of(pair: tuple[Server, Server]) -> str:
    """Names both."""
    return "ipv4:" + ",".join(server.target for server in pair)


@pytest.mark.parametrize("wait_for_ready", [False, True])
def test_only_calls_in_flight_fail(world: World, pair: tuple[Server, Server], wait_for_ready: bool) -> None:
    """Only calls in flight at the kill fail: no more than one per caller on average, and two for any caller.

    gRPC itself takes some milliseconds to notice a loss: a call begun meanwhile is in flight, too. So a caller whose
    call failed on one of the killed server's connections may meet another of them.
    """
    mortal, other = pair
    with world.pool(target_of(pair), min_size=CONNECTIONS, max_size=CONNECTIONS) as subject:
        subject.open()
        dealt_out = [connections_to(server.port) for server in pair]
        assert dealt_out == [CONNECTIONS / 2, CONNECTIONS / 2]
        with subject.load(CALLERS, SLOW, b"20", wait_for_ready=wait_for_ready) as load:
            load.wait_for_calls(3 * CALLERS)
            mortal.kill()
            killed_at = time.monotonic()
            # Each lost connection is replaced by one to the other server, and no further one is opened.
            eventually(lambda: connections_to(other.port) == CONNECTIONS)
            load.wait_for_calls(10 * CALLERS)
        assert {outcome.code for outcome in load.failed} <= {grpc.StatusCode.UNAVAILABLE}
        assert [str(outcome) for outcome in load.failed if outcome.began > killed_at + NOTICED_WITHIN] == []
        assert [str(outcome) for outcome in load.failed if outcome.ended > killed_at + 1] == []
        assert len(load.failed) <= CALLERS
        failures = Counter(outcome.caller for outcome in load.failed)
        assert [caller for caller, times in failures.items() if times > 2] == []
        eventually(lambda: subject.stats().ready == CONNECTIONS)
        assert subject.stats().closed["lost"] == dealt_out[0]
        assert subject.stats().opened == CONNECTIONS + dealt_out[0]
