"""Servers under a pool that die, freeze and come back."""

from __future__ import annotations

import itertools
import time

import grpc
import pytest

from grpcpool import PoolTimeoutError
from support.connections import connections_to
from support.pools import PoolMaker
from support.servers import CHAT, COLLECT, COUNT, ECHO, SLOW, Server, unary
from support.waiting import LONG, background, eventually

pytestmark = pytest.mark.timeout(60)


def _call(lease: grpc.Channel) -> bool:
    try:
        unary(lease, ECHO, b"", timeout=5)
    except grpc.RpcError:
        return False
    return True


@pytest.mark.parametrize("streams", [None, 1])
def test_a_connection_that_is_down_is_not_leased_while_another_is_up(make_pool: PoolMaker, streams: int | None) -> None:
    """After one of two servers is killed, soon every call goes to the other, as long as the first is gone.

    The leases follow each other without a pause. A dead connection fails its calls faster than a live one serves them,
    so a pool that prefers the connection used last would send it more and more calls.
    """
    with Server() as mortal, Server() as other:
        servers = itertools.cycle([mortal, other])
        pool = make_pool(lambda: next(servers).channel(), min_size=2, max_size=2, idle_timeout=None)
        pool.open()
        mortal.kill()
        eventually(lambda: connections_to(mortal.port) == 0)
        # The pool may take this long to notice.
        begun = time.monotonic()
        while time.monotonic() - begun < 2:
            with pool.acquire(timeout=LONG, streams=streams) as lease:
                _call(lease)
        succeeded = 0
        for _ in range(200):
            with pool.acquire(timeout=LONG, streams=streams) as lease:
                succeeded += _call(lease)
        assert succeeded == 200
        # Not back after 2 s, it was replaced through the factory.
        eventually(lambda: pool.stats().closed["lost"] == 1)


def test_the_first_calls_to_a_server_that_is_back_succeed(make_pool: PoolMaker) -> None:
    """As on a channel, which is idle by then: they do not fail because earlier attempts to connect did."""
    with Server() as mortal:
        pool = make_pool(mortal.channel, max_size=1)
        assert unary(pool, ECHO, b"before", timeout=LONG) == b"before"
        mortal.kill()
        # gRPC has tried to reconnect by then, and pauses.
        time.sleep(0.8)
        mortal.start()
        future = pool.unary_unary(ECHO).future(b"future", timeout=LONG)
        responses = pool.unary_stream(COUNT)(b"3", timeout=LONG)
        chat = pool.stream_stream(CHAT)(iter([b"chat"]), timeout=LONG)
        assert unary(pool, ECHO, b"unary", timeout=LONG) == b"unary"
        assert pool.stream_unary(COLLECT)(iter([b"a", b"b"]), timeout=LONG)
        assert future.result() == b"future"
        assert len(list(responses)) == 3
        assert len(list(chat)) == 1


@pytest.mark.usefixtures("not_given_up")
def test_a_server_that_comes_back_is_used_again(make_pool: PoolMaker) -> None:
    """A lost connection recovers by itself, and gets its share of calls."""
    with Server() as mortal, Server() as other:
        servers = itertools.cycle([mortal, other])
        pool = make_pool(lambda: next(servers).channel(), min_size=2, max_size=2)
        pool.open()
        mortal.kill()
        eventually(lambda: connections_to(mortal.port) == 0)
        eventually(lambda: pool.stats().ready == 1)
        for _ in range(20):
            with pool.acquire(timeout=LONG) as lease:
                assert _call(lease)
        mortal.start()
        eventually(lambda: pool.stats().ready == 2)
        with pool.acquire(timeout=LONG) as one, pool.acquire(timeout=LONG) as two:
            assert _call(one)
            assert _call(two)
        assert pool.stats().opened == 2


@pytest.mark.usefixtures("not_given_up")
def test_a_call_on_a_lost_connection_is_not_torn_down(make_pool: PoolMaker) -> None:
    """A lease held through the loss works again once gRPC has reconnected."""
    with Server() as server:
        pool = make_pool(server.channel, max_size=1)
        with pool.acquire() as lease:
            assert _call(lease)
            server.kill()
            eventually(lambda: not _call(lease))
            server.start()
            assert unary(lease, ECHO, b"a", wait_for_ready=True) == b"a"
        assert pool.stats().opened == 1


def test_while_nothing_is_up_an_acquire_keeps_its_timeout(make_pool: PoolMaker) -> None:
    """An acquire raises `PoolTimeoutError` from the connect error; the pool works again once the server is back."""
    with Server() as server:
        pool = make_pool(server.channel, max_size=2)
        pool.open()
        server.kill()
        eventually(lambda: connections_to(server.port) == 0)
        eventually(lambda: pool.stats().ready == 0)
        with pytest.raises(PoolTimeoutError) as caught:
            pool.acquire(timeout=1)
        assert isinstance(caught.value.__cause__, grpc.RpcError)
        assert pool.stats().in_flight == 0
        waiting = background(lambda: pool.acquire(timeout=2 * LONG))
        eventually(lambda: pool.stats().waiting == 1)
        server.start()
        with waiting.result(2 * LONG) as lease:
            assert unary(lease, ECHO, b"a", wait_for_ready=True) == b"a"


def test_a_frozen_server_costs_a_deadline_and_no_more(make_pool: PoolMaker) -> None:
    """Calls to a frozen server end at their deadlines, and their places are released."""
    with Server() as server:
        pool = make_pool(server.channel, max_size=1, max_streams=5)
        with pool.acquire(streams=1) as lease:
            assert _call(lease)
        server.freeze()
        with pool.acquire(streams=5) as lease:
            for _ in range(3):
                with pytest.raises(grpc.RpcError) as caught:
                    unary(lease, SLOW, b"0", timeout=0.1)
                assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert pool.stats().in_flight == 0
        server.thaw()
        with pool.acquire(timeout=LONG, streams=1) as lease:
            assert unary(lease, ECHO, b"a") == b"a"


def test_a_server_killed_while_leased_fails_its_calls_only(make_pool: PoolMaker) -> None:
    """Calls in flight end `UNAVAILABLE`, and their places are released."""
    with Server() as server:
        pool = make_pool(server.channel, max_size=1, max_streams=5)
        with pool.acquire(streams=3) as lease:
            calls = [background(lambda lease=lease: unary(lease, SLOW, b"10000")) for _ in range(3)]  # type: ignore[misc]
            eventually(lambda: lease._calls == 3)
            time.sleep(0.1)
            server.kill()
            for call in calls:
                error = call.exception(LONG)
                assert isinstance(error, grpc.RpcError)
                assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert pool.stats().in_flight == 0
