"""A frozen server: its connections stay open, and nothing answers."""

from __future__ import annotations

import time
from concurrent.futures import Future

import grpc
import pytest

from resilience.worlds import Subject, World, failure_of
from support.connections import connections_to
from support.servers import COUNT, ECHO, SLOW, Server
from support.waiting import eventually

pytestmark = pytest.mark.timeout(90)

DEADLINE = 0.7
# A deadline may be kept late on a busy machine.
LATE = 3.0


def begin(subject: Subject, kind: str) -> Future[bytes]:
    """Begins a call that the frozen server will not answer."""
    if kind == "stream":
        return subject.begin(COUNT, b"3,10", kind=kind, timeout=DEADLINE)
    return subject.begin(SLOW, b"10", kind=kind, timeout=DEADLINE)


def assert_deadline(call: Future[bytes], began: float) -> None:
    """The call fails `DEADLINE_EXCEEDED` at its deadline."""
    error = failure_of(call)
    took = time.monotonic() - began
    assert isinstance(error, grpc.RpcError)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert took < DEADLINE + LATE


def test_deadlines_hold(world: World, mortal: Server) -> None:
    """Running and queued calls of each kind fail at their deadlines; afterwards the pool is as before."""
    with world.pool(mortal.target, max_size=2, max_streams=6) as subject:
        subject.open()
        mortal.freeze()
        for _ in range(2):
            began = time.monotonic()
            # 12 that find a place, if the second connection is opened; at least 6. The others queue.
            calls = [begin(subject, kind) for _ in range(12) for kind in subject.kinds]
            eventually(lambda: subject.stats().waiting > 0, timeout=DEADLINE)
            for call in calls:
                assert_deadline(call, began)
            subject.assert_at_rest()
        mortal.thaw()
        for kind in subject.kinds:
            method, request = (COUNT, b"2,10") if kind == "stream" else (ECHO, b"0,1")
            assert subject.call(method, request, kind=kind) == b"0,1"
        subject.assert_at_rest()
        # When the server was frozen, a second connection may have been opening.
        eventually(lambda: connections_to(mortal.port) == subject.stats().ready)
        assert sum(subject.stats().closed.values()) == 0


def test_callers_recover_when_it_thaws(world: World, mortal: Server) -> None:
    """40 callers, whose calls fail at their deadlines while the server is frozen, have no failures afterwards."""
    with world.pool(mortal.target, min_size=2, max_size=2, max_streams=10) as subject:
        subject.open()
        with subject.load(40, SLOW, b"5", timeout=DEADLINE) as load:
            load.wait_for_calls(100)
            load.assert_none_failed()
            mortal.freeze()
            eventually(lambda: len(load.failed) >= 80)
            assert {outcome.code for outcome in load.failed} == {grpc.StatusCode.DEADLINE_EXCEEDED}
            mortal.thaw()
            thawed_at = time.monotonic()
            time.sleep(2 * DEADLINE)
            load.wait_for_calls(200)
        # Earlier calls may have used up their time.
        assert [str(outcome) for outcome in load.failed if outcome.began > thawed_at + DEADLINE] == []
        assert subject.stats().ready == 2


def test_leases_that_wait_keep_their_timeout(world: World, mortal: Server) -> None:
    """A waiting acquire keeps its timeout, although the server of the only connection does not answer."""
    with world.pool(mortal.target, max_size=1) as subject:
        lease = subject.acquire(timeout=10).result(20)
        mortal.freeze()
        began = time.monotonic()
        waiting = [subject.acquire(timeout=DEADLINE) for _ in range(5)]
        for acquire in waiting:
            assert isinstance(failure_of(acquire), TimeoutError)
        assert DEADLINE <= time.monotonic() - began < DEADLINE + LATE
        subject.release(lease)
        mortal.thaw()
        assert subject.call(ECHO, b"a") == b"a"
