"""What becomes of queued calls and acquires while the only server is away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest

from grpcpool import PoolTimeoutError
from resilience.worlds import REPLACED_AFTER, Subject, World, failure_of
from support.servers import ECHO, SLOW, Server
from support.waiting import LONG, eventually

pytestmark = pytest.mark.timeout(90)

PROMPTLY = 2.0


@contextmanager
def full_pool(world: World, server: Server) -> Iterator[Subject]:
    """A pool of one connection with two places, both taken by calls that end with the server."""
    with world.pool(server.target, max_size=1, max_streams=2) as subject:
        running = [subject.begin(SLOW, b"60000") for _ in range(2)]
        eventually(lambda: subject.stats().in_flight == 2)
        yield subject
        for call in running:
            error = failure_of(call)
            assert isinstance(error, grpc.RpcError)
            assert error.code() is grpc.StatusCode.UNAVAILABLE


def test_queued_calls_that_wait_for_ready_wait_out_the_outage(world: World, mortal: Server) -> None:
    """Calls queued before the kill are served after the restart, over the connection that came back.

    A server that needs long to start gets three attempts.
    """
    took = []
    for _ in range(3):
        seconds, opened = _wait_out(world, mortal)
        if seconds < REPLACED_AFTER:
            assert opened == 1
            return
        took.append(seconds)
    pytest.fail(f"the connection came back after {took} s")


def _wait_out(world: World, mortal: Server) -> tuple[float, int]:
    """Returns after how many seconds the calls were answered, and how many connections the pool has opened."""
    with full_pool(world, mortal) as subject:
        kinds = [kind for kind in subject.kinds if kind != "stream"] * 5
        calls = [subject.begin(ECHO, b"a", kind=kind, wait_for_ready=True) for kind in kinds]
        eventually(lambda: subject.stats().waiting == len(calls))
        mortal.kill()
        killed_at = time.monotonic()
        eventually(lambda: subject.stats().ready == 0)
        time.sleep(0.5)
        assert not any(call.done() for call in calls)
        mortal.start()
        assert [call.result(LONG) for call in calls] == [b"a"] * len(calls)
        return time.monotonic() - killed_at, subject.stats().opened


def test_queued_calls_that_do_not_wait_fail_promptly(world: World, mortal: Server) -> None:
    """Queued calls without `wait_for_ready` fail `UNAVAILABLE` soon after the kill, long before their deadlines."""
    with full_pool(world, mortal) as subject:
        calls = [subject.begin(ECHO, b"a", kind=kind) for kind in subject.kinds for _ in range(5)]
        eventually(lambda: subject.stats().waiting == len(calls))
        mortal.kill()
        killed_at = time.monotonic()
        for call in calls:
            error = failure_of(call)
            assert isinstance(error, grpc.RpcError)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert time.monotonic() - killed_at < PROMPTLY


def test_queued_calls_that_wait_for_ready_keep_their_deadline(world: World, mortal: Server) -> None:
    """If the server does not come back, the calls end at their deadlines, not before."""
    with full_pool(world, mortal) as subject:
        began = time.monotonic()
        calls = [subject.begin(ECHO, b"a", kind=kind, wait_for_ready=True, timeout=1.5) for kind in subject.kinds]
        eventually(lambda: subject.stats().waiting == len(calls))
        mortal.kill()
        for call in calls:
            error = failure_of(call)
            assert isinstance(error, grpc.RpcError)
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert 1.4 <= time.monotonic() - began < 1.5 + PROMPTLY


@pytest.mark.parametrize("streams", [None, 1])
def test_leases_wait_to_their_timeout(world: World, mortal: Server, streams: int | None) -> None:
    """While nothing is up, calls fail at once, but acquires wait until their timeouts, or the server's return."""
    with world.pool(mortal.target, max_size=1) as subject:
        subject.open()
        mortal.kill()
        eventually(lambda: subject.stats().ready == 0)
        began = time.monotonic()
        patient = subject.acquire(timeout=2 * LONG, streams=streams)
        impatient = [subject.acquire(timeout=0.7, streams=streams) for _ in range(3)]
        for acquire in impatient:
            assert isinstance(failure_of(acquire), PoolTimeoutError)
        assert 0.7 <= time.monotonic() - began < 0.7 + PROMPTLY
        error = failure_of(subject.begin(ECHO, b"a"))
        assert isinstance(error, grpc.RpcError)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert not patient.done()
        mortal.start()
        subject.release(patient.result(LONG))
        assert subject.call(ECHO, b"a") == b"a"


def test_the_error_says_that_nothing_is_up(world: World, mortal: Server) -> None:
    """The timeout error of an acquire during an outage says that connections are down, and names no useless remedy."""
    with world.pool(mortal.target, max_size=1) as subject:
        subject.open()
        mortal.kill()
        eventually(lambda: subject.stats().ready == 0)
        error = failure_of(subject.acquire(timeout=0.7))
        assert isinstance(error, PoolTimeoutError)
        assert "1 of them down" in str(error)
        assert "check the target" in str(error)
        assert "raise max_size" not in str(error)
        assert ("see the cause" in str(error)) is (error.__cause__ is not None)
