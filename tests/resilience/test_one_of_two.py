"""Two servers behind one target, of which one is killed under load."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Iterator

import grpc
import pytest

from resilience.worlds import Subject, World
from support.connections import connections_to
from support.servers import SLOW, Server
from support.waiting import eventually

pytestmark = pytest.mark.timeout(120)

CALLERS = 40
CONNECTIONS = 4
# Seconds within which gRPC has noticed that a server is gone, also on a machine that others keep busy.
TOLD_WITHIN = 0.1


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server]]:
    """Two servers; when the test is over, no connection to them is left."""
    with Server() as one, Server() as two:
        yield one, two
        # Calls that errors still refer to keep gRPC's connections open.
        gc.collect()
        eventually(lambda: connections_to(one.port) + connections_to(two.port) == 0, timeout=5)


def target_of(pair: tuple[Server, Server]) -> str:
    """Names both."""
    return "ipv4:" + ",".join(server.target for server in pair)


def spread(subject: Subject, pair: tuple[Server, Server]) -> None:
    """Opens the pool so that it has connections to both; which go where is drawn by lot."""
    subject.open()
    while not all(connections_to(server.port) for server in pair):
        done = subject.stats().closed["refresh"] + CONNECTIONS
        subject.do(lambda pool: pool.refresh())
        eventually(lambda done=done: subject.stats().closed["refresh"] == done)  # type: ignore[misc]


@pytest.mark.parametrize("wait_for_ready", [False, True])
def test_only_what_is_in_flight_on_it_fails(world: World, pair: tuple[Server, Server], wait_for_ready: bool) -> None:
    """What fails was in flight at the kill; no caller fails more than twice, and all together not more often than once.

    gRPC itself takes some milliseconds to tell of a loss: a call begun meanwhile is in flight, too. So a caller whose
    call failed on one of the killed server's connections may come upon another of them.
    """
    mortal, other = pair
    with world.pool(target_of(pair), min_size=CONNECTIONS, max_size=CONNECTIONS) as subject:
        spread(subject, pair)
        opened = subject.stats().opened
        with subject.load(CALLERS, SLOW, b"20", wait_for_ready=wait_for_ready) as load:
            load.wait_for_calls(3 * CALLERS)
            mortal.kill()
            killed_at = time.monotonic()
            # The connections that were lost go to the other server, and no other is opened.
            eventually(lambda: connections_to(other.port) == CONNECTIONS)
            load.wait_for_calls(10 * CALLERS)
        assert {outcome.code for outcome in load.failed} <= {grpc.StatusCode.UNAVAILABLE}
        assert [str(outcome) for outcome in load.failed if outcome.began > killed_at + TOLD_WITHIN] == []
        assert [str(outcome) for outcome in load.failed if outcome.ended > killed_at + 1] == []
        assert len(load.failed) <= CALLERS
        failures = Counter(outcome.caller for outcome in load.failed)
        assert [caller for caller, times in failures.items() if times > 2] == []
        eventually(lambda: subject.stats().ready == CONNECTIONS)
        assert (subject.stats().opened, subject.stats().closed["lost"]) == (opened, 0)
