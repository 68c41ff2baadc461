"""Servers that fail their calls, or answer nothing, beside others that are well."""

from __future__ import annotations

import contextlib
import gc
import itertools
from typing import Any

import grpc
import pytest

from grpcpool import ChannelPool
from support.connections import connections_to
from support.pools import PoolMaker
from support.servers import COUNT, ECHO, FAIL, PID, Server, unary
from support.waiting import LONG, eventually

pytestmark = pytest.mark.timeout(60)


def _failing_call(pool: ChannelPool) -> str:
    """A call that fails; returns the name of its status."""
    with pytest.raises(grpc.RpcError) as caught:
        unary(pool, FAIL, b"INTERNAL", timeout=LONG)
    return str(caught.value.code().name)


def _failing_future(pool: ChannelPool) -> str:
    future: Any = pool.unary_unary(FAIL).future(b"UNKNOWN", timeout=LONG)
    return str(future.code().name)


def _failing_upload(pool: ChannelPool) -> str:
    call: Any = pool.stream_unary(FAIL).future(iter([b"UNAVAILABLE"]), timeout=LONG)
    return str(call.code().name)


def _failing_stream(pool: ChannelPool) -> str:
    call: Any = pool.unary_stream(FAIL)(b"RESOURCE_EXHAUSTED", timeout=LONG)
    return str(call.code().name)


def _failing_lease(pool: ChannelPool) -> str:
    with pool.acquire(streams=1) as lease, pytest.raises(grpc.RpcError) as caught:
        unary(lease, FAIL, b"INTERNAL", timeout=LONG)
    return str(caught.value.code().name)


@pytest.mark.parametrize("picker", ["least_loaded", "round_robin", "fill"])
@pytest.mark.parametrize("fail", [_failing_call, _failing_future, _failing_upload, _failing_stream, _failing_lease])
def test_a_connection_on_which_a_call_failed_is_avoided(make_pool: PoolMaker, fail: Any, picker: Any) -> None:
    """Of two servers, the one that failed a call, of whatever kind, gets none for a while, and the other all."""
    with Server() as one, Server() as other:
        servers = itertools.cycle([one, other])
        pool = make_pool(
            lambda: next(servers).channel(), min_size=1, max_size=2, picker=picker, avoid_after_failure=60.0
        )
        # One after the other, so that the first leads to the first server.
        pool.open()
        pool.resize(2, 2)
        eventually(lambda: pool.stats().ready == 2)
        assert fail(pool) in {"INTERNAL", "UNKNOWN", "UNAVAILABLE", "RESOURCE_EXHAUSTED"}
        eventually(lambda: pool.stats().avoided == 1)
        stats = pool.stats()
        (well,) = [channel.id for channel in stats.channels if not channel.avoided]
        pids = {unary(pool, PID, b"", timeout=LONG) for _ in range(20)}
        assert pids == {str((one if well == 1 else other).pid).encode()}
        assert (stats.failures, pool.stats().failures) == (1, 1)


def test_an_answer_with_another_status_is_no_failure(server: Server, make_pool: PoolMaker) -> None:
    """Healthy servers answer with `NOT_FOUND` and the like."""
    pool = make_pool(server.channel)
    for code in ("NOT_FOUND", "INVALID_ARGUMENT", "PERMISSION_DENIED", "CANCELLED", "UNIMPLEMENTED", "ABORTED"):
        with pytest.raises(grpc.RpcError):
            unary(pool, FAIL, code.encode(), timeout=LONG)
    assert (pool.stats().failures, pool.stats().avoided) == (0, 0)


@pytest.mark.parametrize("kind", ["pool", "lease", "whole connection"])
def test_a_frozen_server_loses_its_connection(make_pool: PoolMaker, kind: str) -> None:
    """A connection that answers nothing is replaced as soon as that can be done; calls on it have their deadlines."""

    def call(pool: ChannelPool) -> None:
        if kind == "pool":
            unary(pool, ECHO, b"", timeout=0.2)
            return
        with pool.acquire(streams=1 if kind == "lease" else None) as lease:
            unary(lease, ECHO, b"", timeout=0.2)

    with Server() as frozen, Server() as other:
        made: list[Server] = []

        def factory() -> grpc.Channel:
            # The first connection goes to the one server, all others to the other.
            made.append(other if made else frozen)
            return made[-1].channel()

        pool = make_pool(
            factory, min_size=2, max_size=2, picker="round_robin", unresponsive_after=1.0, avoid_after_failure=None
        )
        pool.open()
        frozen.freeze()
        failed = 0
        while pool.stats().closed["unresponsive"] == 0:
            try:
                call(pool)
            except grpc.RpcError:
                failed += 1
            assert failed < 20
        assert failed >= 3
        eventually(lambda: connections_to(frozen.port) == 0)
        assert {unary(pool, PID, b"", timeout=LONG) for _ in range(10)} == {str(other.pid).encode()}


@pytest.mark.parametrize("kind", ["pool", "lease"])
def test_a_stream_that_is_dropped_is_no_answer(make_pool: PoolMaker, kind: str) -> None:
    """Between calls that run into their deadlines, it does not show that the server is there."""
    with Server() as frozen:
        pool = make_pool(frozen.channel, max_size=1)
        pool.open()
        (slot,) = pool._driver.machine.fleet.slots
        frozen.freeze()
        for number in (1, 2, 3):
            with pytest.raises(grpc.RpcError):
                unary(pool, ECHO, b"", timeout=0.05)
            with pool.acquire(streams=1) if kind == "lease" else contextlib.nullcontext(pool) as channel:
                channel.unary_stream(COUNT)(b"1,0")
                gc.collect()
            eventually(lambda: pool.stats().in_flight == 0)
            assert slot.overdue_calls == number
        frozen.kill()


@pytest.mark.parametrize("kind", ["pool", "lease"])
def test_a_stream_that_receives_something_shows_that_the_server_is_there(make_pool: PoolMaker, kind: str) -> None:
    """Although calls run into their deadlines, a connection is not replaced while it delivers messages."""
    with Server() as slow, Server() as other:
        servers = itertools.cycle([slow, other])
        pool = make_pool(
            lambda: next(servers).channel(),
            min_size=2,
            max_size=2,
            picker="fill",
            unresponsive_after=0.5,
            avoid_after_failure=None,
        )
        pool.open()
        with pool.acquire(streams=2) as lease:
            stream: Any = (lease if kind == "lease" else pool).unary_stream(COUNT)(b"1000,50", timeout=LONG)
            next(stream)
            for _ in range(8):
                with pytest.raises(grpc.RpcError):
                    pool.unary_stream(COUNT)(b"1,10000", timeout=0.1).__next__()
                next(stream)
                next(stream)
            assert pool.stats().closed["unresponsive"] == 0
            stream.cancel()


@pytest.mark.parametrize("kind", ["pool", "lease"])
@pytest.mark.parametrize(
    "mistake",
    [{"timeout": "1"}, {"compression": "none"}, {"credentials": "none"}],
    ids=["timeout", "compression", "credentials"],
)
def test_a_wrong_argument_does_not_take_the_connection_out_of_service(
    server: Server, make_pool: PoolMaker, mistake: dict[str, Any], kind: str
) -> None:
    """On the main thread, too: what gRPC itself raises is not the work of a signal handler."""
    pool = make_pool(server.channel, max_size=1)
    pool.open()
    with pool.acquire() if kind == "lease" else contextlib.nullcontext(pool) as channel:
        call: Any = channel.unary_unary(ECHO)
        with pytest.raises((TypeError, KeyError, AttributeError)):
            call(b"ok", **mistake)
        assert call(b"ok", timeout=LONG) == b"ok"
    assert (pool.stats().losses, pool.stats().in_flight) == (0, 0)
