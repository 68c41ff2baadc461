"""The only server is killed and comes back."""

from __future__ import annotations

import time

import grpc
import pytest

from grpcpool import PoolOpenError
from resilience.worlds import REPLACED_AFTER, World, failure_of
from support.connections import connections_to
from support.servers import ECHO, SLOW, Server
from support.waiting import eventually

pytestmark = pytest.mark.timeout(120)

CALLERS = 40
CONNECTIONS = 4
# A call that fails before anything is sent takes milliseconds; on a busy machine, some more.
PROMPTLY = 2.0
# Seconds in which gRPC notices that a server is gone; a call begun meanwhile is in flight, too.
NOTICED_WITHIN = 0.1


@pytest.mark.parametrize("round_", range(3))
def test_calls_that_wait_for_ready_survive_it(world: World, mortal: Server, round_: int) -> None:
    """When the server is killed and comes back after 1 s, of `wait_for_ready` calls only those in flight fail.

    A server that needs long to start gets three attempts.
    """
    took = []
    for _ in range(3):
        with world.pool(mortal.target, min_size=CONNECTIONS, max_size=CONNECTIONS) as subject:
            subject.open()
            with subject.load(CALLERS, SLOW, b"20", wait_for_ready=True) as load:
                load.wait_for_calls(3 * CALLERS)
                mortal.kill()
                killed_at = time.monotonic()
                time.sleep(1)
                mortal.start()
                eventually(lambda: connections_to(mortal.port) == CONNECTIONS)
                eventually(lambda: subject.stats().ready == CONNECTIONS)
                took.append(time.monotonic() - killed_at)
                load.wait_for_calls(3 * CALLERS)
            assert [str(outcome) for outcome in load.failed if outcome.began > killed_at + NOTICED_WITHIN] == []
            # Plain gRPC, with a single connection, failed up to 66 calls of 40 callers.
            assert len(load.failed) <= 2 * CALLERS
            eventually(lambda: subject.stats().ready == CONNECTIONS)
            if took[-1] < REPLACED_AFTER:
                assert (subject.stats().opened, sum(subject.stats().closed.values())) == (CONNECTIONS, 0)
                return
    pytest.fail(f"the connections came back after {took} s")


def test_meanwhile_calls_that_do_not_wait_fail_promptly(world: World, mortal: Server) -> None:
    """While nothing is up, calls of each kind fail `UNAVAILABLE` promptly with gRPC's reason; then they work again."""
    with world.pool(mortal.target, min_size=CONNECTIONS, max_size=CONNECTIONS) as subject:
        subject.open()
        mortal.kill()
        eventually(lambda: subject.stats().ready == 0)
        for _ in range(5):
            for kind in subject.kinds:
                began = time.monotonic()
                error = failure_of(subject.begin(ECHO, b"a", kind=kind, timeout=30))
                took = time.monotonic() - began
                assert isinstance(error, grpc.RpcError)
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                assert "refused" in str(error.details()).lower()
                assert took < PROMPTLY
        mortal.start()
        eventually(lambda: subject.stats().ready == CONNECTIONS)
        assert subject.call(ECHO, b"a") == b"a"
        assert (subject.stats().opened, sum(subject.stats().closed.values())) == (CONNECTIONS, 0)


def test_a_pool_that_never_had_a_server_fails_promptly(world: World, mortal: Server) -> None:
    """Without a server, first calls fail `UNAVAILABLE` with gRPC's reason; those with `wait_for_ready` wait for it."""
    mortal.kill()
    with world.pool(mortal.target) as subject:
        waiting = subject.begin(ECHO, b"w", wait_for_ready=True)
        for kind in subject.kinds:
            began = time.monotonic()
            error = failure_of(subject.begin(ECHO, b"a", kind=kind, timeout=30))
            assert time.monotonic() - began < PROMPTLY
            assert isinstance(error, grpc.RpcError)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert "refused" in str(error.details()).lower()
        mortal.start()
        assert waiting.result(30) == b"w"


def test_a_failed_open_changes_nothing_for_calls(world: World, mortal: Server) -> None:
    """Calls after it are made on a channel, as before it: gRPC fails them, and the pool's error is not their cause."""
    mortal.kill()
    with world.pool(mortal.target) as subject:
        with pytest.raises(PoolOpenError):
            subject.open()
        for kind in subject.kinds:
            error = failure_of(subject.begin(ECHO, b"a", kind=kind, timeout=30))
            assert isinstance(error, grpc.RpcError)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert error.__cause__ is None
