"""`close()` and `release()` work inside gRPC's callbacks, request iterators and subscriptions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from grpcpool import PoolClosedError
from support.connections import connections_to
from support.pools import PoolMaker
from support.servers import CHAT, ECHO, SLOW, Server, unary
from support.waiting import LONG, eventually

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("grace", [0, 5])
def test_close_in_a_done_callback(server: Server, make_pool: PoolMaker, grace: float) -> None:
    """`close()` in a call's callback returns at once, even while another call runs on the same connection."""
    pool = make_pool(server.channel, max_size=1)
    channel: Any = pool.acquire()
    slow = channel.unary_unary(SLOW).future(b"400", timeout=LONG)
    returned = threading.Event()

    def close(_: object) -> None:
        pool.close(grace)
        returned.set()

    channel.unary_unary(ECHO).future(b"a", timeout=LONG).add_done_callback(close)
    assert returned.wait(LONG)
    channel.release()
    pool.close(grace)
    assert slow.code() is (grpc.StatusCode.OK if grace else grpc.StatusCode.CANCELLED)
    eventually(lambda: connections_to(server.port) == 0)
    with pytest.raises(PoolClosedError):
        pool.acquire()


def test_close_in_a_request_iterator(server: Server, make_pool: PoolMaker) -> None:
    """A stream of requests may close the pool on which its own call runs."""
    pool = make_pool(server.channel, max_size=1)
    returned = threading.Event()

    def requests() -> Iterator[bytes]:
        yield b"0"
        pool.close()
        returned.set()
        yield b"1"

    with pool.acquire() as lease:
        channel: Any = lease
        chat = channel.stream_stream(CHAT)(requests(), timeout=LONG)
        with pytest.raises(grpc.RpcError) as caught:
            list(chat)
    assert caught.value.code() is grpc.StatusCode.CANCELLED
    assert returned.wait(LONG)
    eventually(lambda: connections_to(server.port) == 0)


def test_close_in_a_subscription(server: Server, make_pool: PoolMaker) -> None:
    """A callback that gets the connection's state may close the pool."""
    pool = make_pool(server.channel, max_size=1)
    returned = threading.Event()

    def close(state: grpc.ChannelConnectivity) -> None:
        if state is grpc.ChannelConnectivity.READY:
            pool.close()
            returned.set()

    with pool.acquire() as lease:
        lease.subscribe(close)
        assert returned.wait(LONG)
    eventually(lambda: connections_to(server.port) == 0)


def test_release_in_a_done_callback(server: Server, make_pool: PoolMaker) -> None:
    """A lease may be released, or discarded, by its own call's callback; the next acquire waits for that."""
    pool = make_pool(server.channel, max_size=1)
    for give_back in ("release", "discard", "release"):
        channel: Any = pool.acquire(timeout=LONG)
        future = channel.unary_unary(ECHO).future(b"a", timeout=LONG)
        future.add_done_callback(lambda _, lease=channel, end=give_back: getattr(lease, end)())
        assert future.result() == b"a"
    with pool.acquire(timeout=LONG) as lease:
        assert unary(lease, ECHO, b"b") == b"b"


def test_acquire_in_a_done_callback(server: Server, make_pool: PoolMaker) -> None:
    """A callback may lease another connection, even if it must be opened first."""
    pool = make_pool(server.channel, max_size=2)
    answers: list[bytes] = []

    def call_again(_: object) -> None:
        with pool.acquire(timeout=LONG) as lease:
            answers.append(unary(lease, ECHO, b"again"))

    with pool.acquire() as lease:
        channel: Any = lease
        channel.unary_unary(ECHO).future(b"a", timeout=LONG).add_done_callback(call_again)
        eventually(lambda: answers == [b"again"])


def test_close_from_many_threads_with_calls_in_flight(server: Server, make_pool: PoolMaker) -> None:
    """Every `close()` returns, every call ends, and nothing is left."""
    pool = make_pool(server.channel, max_size=3)
    leases: list[Any] = [pool.acquire() for _ in range(3)]
    calls = [lease.unary_unary(SLOW).future(b"5000", timeout=LONG) for lease in leases]
    threads = [threading.Thread(target=pool.close, args=(grace,)) for grace in (1000, 0.1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()
    assert {call.code() for call in calls} == {grpc.StatusCode.CANCELLED}
    for lease in leases:
        lease.release()
    eventually(lambda: connections_to(server.port) == 0)
