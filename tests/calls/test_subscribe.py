"""Subscribing to the state of a pool, as to that of a channel."""

from __future__ import annotations

import itertools
import threading
import time
from functools import partial
from typing import Any

import grpc
import pytest

import grpcpool
from grpcpool import ChannelPool
from support.call_server import CallServer
from support.pools import PoolMaker
from support.servers import ECHO, Server, dead_target, unary
from support.waiting import LONG, eventually
from support.ways import WAYS

pytestmark = pytest.mark.timeout(60)

State = grpc.ChannelConnectivity


def _watchers(pool: ChannelPool) -> list[str]:
    return [
        thread.name for thread in threading.enumerate() if thread.name.startswith(f"grpcpool-{pool.name}-connectivity")
    ]


@pytest.fixture
def pool(calls: CallServer, make_pool: PoolMaker) -> ChannelPool:
    """A pool of up to two connections that has not connected yet."""
    return make_pool(calls.channel, max_size=2, max_streams=1)


def test_the_first_report_is_the_state(pool: ChannelPool) -> None:
    """A subscriber of an unused pool gets `IDLE` first; like gRPC, this does not connect the pool."""
    told: list[State] = []
    pool.subscribe(told.append)
    eventually(lambda: told == [State.IDLE])
    assert pool.stats().size == 0


def test_each_change_is_reported_once(pool: ChannelPool) -> None:
    """With `try_to_connect` the pool connects, and reports each state once, up to `READY`."""
    told: list[State] = []
    pool.subscribe(told.append, try_to_connect=True)
    eventually(lambda: State.READY in told)
    assert told[-1] is State.READY
    assert all(one is not other for one, other in itertools.pairwise(told))
    assert pool.stats().ready == 1


def test_a_quick_connect_is_reported(calls: CallServer, make_pool: PoolMaker) -> None:
    """A pool that connects between two looks still reports `CONNECTING`: the states are gRPC's, in order."""
    told: list[State] = []

    def make() -> grpc.Channel:
        # Less than the 0.2 s between two looks.
        time.sleep(0.1)
        return calls.channel()

    make_pool(make).subscribe(told.append, try_to_connect=True)
    eventually(lambda: told == [State.IDLE, State.CONNECTING, State.READY])


def test_it_connects_once(calls: CallServer, make_pool: PoolMaker) -> None:
    """As with gRPC, the wish to connect is met once: later the pool may close what is idle, and stays so."""
    told: list[State] = []
    pool = make_pool(calls.channel, min_size=0, idle_timeout=0.2)
    pool.subscribe(told.append, try_to_connect=True)
    eventually(lambda: told[-2:] == [State.READY, State.IDLE])
    # Two of those that look again.
    for _ in range(2):
        others: list[State] = []
        pool.subscribe(others.append)
        eventually(partial(list, others))
    assert told[-1] is State.IDLE
    assert pool.stats().opened == 1


def test_a_call_connects_an_idle_pool(pool: ChannelPool) -> None:
    """A subscriber that did not ask to connect is notified of the connection that a call opened."""
    told: list[State] = []
    pool.subscribe(told.append)
    WAYS[0].begin(pool)
    eventually(lambda: told[-1:] == [State.READY])


def test_several_subscribers(pool: ChannelPool) -> None:
    """Each subscriber is notified, a late one at once; all share one thread."""
    told: tuple[list[State], ...] = ([], [], [])
    for one in told[:2]:
        pool.subscribe(one.append, try_to_connect=True)
    eventually(lambda: all(one[-1:] == [State.READY] for one in told[:2]))
    pool.subscribe(told[2].append)
    eventually(lambda: told[2] == [State.READY])
    assert len(_watchers(pool)) == 1


def test_channel_ready_future(calls: CallServer, pool: ChannelPool) -> None:
    """`grpc.channel_ready_future` works on a pool, and leaves no thread."""
    future: Any = grpc.channel_ready_future(pool)
    assert future.result(timeout=LONG) is None
    assert pool.stats().ready == 1
    eventually(lambda: not _watchers(pool))


def test_channel_ready_future_may_be_cancelled() -> None:
    """A cancelled wait for an unreachable server leaves nothing."""
    with dead_target() as target, grpcpool.insecure_channel(target) as pool:
        future: Any = grpc.channel_ready_future(pool)
        with pytest.raises(grpc.FutureTimeoutError):
            future.result(timeout=0.1)
        future.cancel()
        eventually(lambda: not _watchers(pool))


@pytest.mark.parametrize("left", ["lost", "draining"])
def test_a_pool_that_has_only_unusable_connections_connects(make_pool: PoolMaker, left: str) -> None:
    """A connection that is down is reconnected, and beside one that drains another is opened."""
    with Server() as server:
        pool = make_pool(server.channel, min_size=0)
        assert unary(pool, ECHO, b"before", timeout=LONG) == b"before"
        held: list[Any] = []
        if left == "lost":
            server.kill()
            eventually(lambda: pool.stats().lost == 1)
            server.start()
        else:
            held = [pool.acquire(streams=1), pool.acquire(streams=1)]
            held.pop().discard()
        assert [channel.state for channel in pool.stats().channels] == [left]
        future: Any = grpc.channel_ready_future(pool)
        assert future.result(timeout=LONG) is None
        assert unary(pool, ECHO, b"after", timeout=LONG) == b"after"
        for lease in held:
            lease.release()


def test_an_unreachable_server_is_a_transient_failure() -> None:
    """While the server is unreachable the state is `TRANSIENT_FAILURE`."""
    told: list[State] = []
    with dead_target() as target, grpcpool.insecure_channel(target) as pool:
        pool.subscribe(told.append, try_to_connect=True)
        eventually(lambda: State.TRANSIENT_FAILURE in told)
        assert State.READY not in told


def test_ready_while_any_connection_is() -> None:
    """A pool over two servers is `READY` exactly while one of them is up, and again when one is back."""
    told: list[State] = []
    with CallServer() as one, CallServer() as other:
        servers = itertools.cycle([one, other])
        config = grpcpool.PoolConfig(min_size=2, max_size=2, max_streams=1)
        with ChannelPool(lambda: next(servers).channel(), config) as pool:
            pool.open()
            pool.subscribe(told.append)
            eventually(lambda: told == [State.READY])
            one.kill()
            # The pool has noticed when it counts one connection as lost.
            eventually(lambda: _try(pool) and pool.stats().ready == 1)
            assert told == [State.READY]
            other.kill()
            eventually(lambda: told[-1] in {State.IDLE, State.TRANSIENT_FAILURE, State.CONNECTING})
            other.start()
            eventually(lambda: _try(pool) and told[-1] is State.READY)


def _try(pool: ChannelPool) -> bool:
    """Makes calls, so that the pool notices lost connections."""
    futures = [WAYS[2].begin(pool, timeout=1) for _ in range(2)]
    for future in futures:
        future.exception(LONG)
    return True


def test_without_a_subscriber_there_is_no_thread(pool: ChannelPool) -> None:
    """Without a subscriber no thread polls the pool, however much it is used."""
    for way in WAYS:
        way.finish(way.begin(pool))
    assert _watchers(pool) == []


def test_the_thread_ends_with_the_last_subscriber(pool: ChannelPool) -> None:
    """The thread runs exactly while there is a subscriber, and starts again with the next."""
    told: list[State] = []
    others: list[State] = []
    for _ in range(2):
        pool.subscribe(told.append)
        pool.subscribe(others.append)
        eventually(lambda: told and others)
        assert len(_watchers(pool)) == 1
        pool.unsubscribe(told.append)
        assert len(_watchers(pool)) == 1
        pool.unsubscribe(others.append)
        eventually(lambda: not _watchers(pool))


def test_an_unsubscribed_callback_gets_nothing_more(pool: ChannelPool) -> None:
    """An unsubscribed callback gets no later changes; unsubscribing an unknown callback does nothing, as in gRPC."""
    told: list[State] = []
    other: list[State] = []
    pool.subscribe(told.append)
    pool.subscribe(other.append)
    eventually(lambda: told and other)
    pool.unsubscribe(told.append)
    pool.unsubscribe(print)
    WAYS[0].begin(pool)
    eventually(lambda: other[-1] is State.READY)
    assert told == [State.IDLE]


def test_a_callback_may_unsubscribe_itself(pool: ChannelPool) -> None:
    """A callback may unsubscribe itself, as `grpc.channel_ready_future` does."""
    told: list[State] = []

    def once(state: State) -> None:
        told.append(state)
        pool.unsubscribe(once)

    pool.subscribe(once, try_to_connect=True)
    eventually(lambda: not _watchers(pool))
    assert len(told) == 1


def test_the_close_ends_subscriptions(pool: ChannelPool) -> None:
    """When `close()` returns, no watcher thread is left; subscribing to a closed pool is allowed and starts none."""
    told: list[State] = []
    pool.subscribe(told.append, try_to_connect=True)
    eventually(lambda: State.READY in told)
    pool.close()
    assert _watchers(pool) == []
    pool.subscribe(told.append)
    pool.unsubscribe(told.append)
    assert _watchers(pool) == []


def test_a_callback_that_raises(pool: ChannelPool, caplog: pytest.LogCaptureFixture) -> None:
    """What a callback raises is logged; it and the other subscribers still get later changes."""
    failed: list[State] = []
    told: list[State] = []

    def fail(state: State) -> None:
        failed.append(state)
        raise ArithmeticError("a callback failed, as the test wants")

    pool.subscribe(fail)
    pool.subscribe(told.append)
    eventually(lambda: told == [State.IDLE])
    WAYS[0].begin(pool)
    eventually(lambda: told[-1] is State.READY and failed[-1] is State.READY)
    assert "a connectivity callback failed" in caplog.text


def test_a_callback_may_close_the_pool(pool: ChannelPool) -> None:
    """A callback may close the pool: the close completes soon, and the watcher thread does not wait for itself."""
    pool.subscribe(lambda state: pool.close() if state is State.READY else None, try_to_connect=True)
    eventually(lambda: pool.closed and not pool.stats().size)
    eventually(lambda: not _watchers(pool))
