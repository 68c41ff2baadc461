"""How connections are opened: the factory, the connect, the prime, and `open()`; and all the ways they fail."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from grpcpool import ChannelPool, PoolClosedError, PoolOpenError, PoolTimeoutError
from grpcpool.events import OpenFailed
from grpcpool.testing import ManualClock
from support.fakes import ConstantFactory, FakeChannel, FakeFactory, HangingFactory, aio, failing_factory
from support.pools import PoolMaker, Recorder
from support.waiting import LONG, background, eventually

pytestmark = pytest.mark.timeout(60)

State = grpc.ChannelConnectivity


def _never_connecting() -> FakeChannel:
    return FakeChannel(connects=False)


# --- open() ---------------------------------------------------------------------------------------------------------


def test_open_opens_min_size_connections(make_pool: PoolMaker) -> None:
    """When `open()` returns, `min_size` connections are ready; a second `open()` has nothing left to do."""
    factory = FakeFactory()
    pool = make_pool(factory, min_size=3)
    pool.open()
    assert (pool.stats().ready, len(factory.made)) == (3, 3)
    pool.open()
    assert len(factory.made) == 3


def test_open_without_minimum_does_nothing(make_pool: PoolMaker) -> None:
    """With `min_size=0`, `open()` returns at once and opens nothing."""
    factory = FakeFactory()
    make_pool(factory, min_size=0).open()
    assert factory.calls == 0


def test_connections_are_opened_side_by_side(make_pool: PoolMaker) -> None:
    """For `open()`, the factory is called for all connections at once, not for one after the other."""
    factory = HangingFactory()
    pool = make_pool(factory, min_size=3)
    opening = background(pool.open)
    for _ in range(3):
        assert factory.entered.acquire(timeout=LONG)
    factory.go.set()
    opening.result(LONG)


def test_several_may_open_at_once(make_pool: PoolMaker) -> None:
    """Several threads in `open()` share the same connections, and each returns when these are ready."""
    factory = HangingFactory()
    pool = make_pool(factory, min_size=2)
    openers = [background(pool.open) for _ in range(3)]
    for _ in range(2):
        assert factory.entered.acquire(timeout=LONG)
    factory.go.set()
    for opener in openers:
        opener.result(LONG)
    assert factory.calls == 2


def test_a_failed_open_closes_what_it_had_opened(make_pool: PoolMaker) -> None:
    """When one of three connections fails, the other two are closed, and the pool can still be used."""
    lock = threading.Lock()
    calls = 0
    others = threading.Event()

    class OneFails(FakeFactory):
        def __call__(self) -> FakeChannel:
            nonlocal calls
            with lock:
                calls += 1
                last = calls == 3
            if last:
                assert others.wait(LONG)
                raise ConnectionRefusedError("the third")
            return super().__call__()

    factory = OneFails()
    pool = make_pool(factory, min_size=3)
    opening = background(pool.open)
    eventually(lambda: pool.stats().ready == 2)
    others.set()
    with pytest.raises(PoolOpenError) as caught:
        opening.result(LONG)
    assert str(caught.value.__cause__) == "the third"
    eventually(lambda: not factory.open)
    assert (len(factory.made), pool.stats().size) == (2, 0)
    pool.acquire().release()
    assert len(factory.open) >= 1


def test_a_failed_open_may_be_tried_again(make_pool: PoolMaker) -> None:
    """Once the failure is over, `open()` succeeds, without waiting for the backoff."""
    pool = make_pool(FakeFactory(fails=1))
    with pytest.raises(PoolOpenError):
        pool.open()
    pool.open()
    assert pool.stats().ready == 1


def test_open_keeps_its_timeout(make_pool: PoolMaker, clock: ManualClock) -> None:
    """`open(timeout)` raises `PoolOpenError` at its timeout, and closes what was being opened."""
    factory = FakeFactory(_never_connecting)
    pool = make_pool(factory, min_size=2)
    opening = background(lambda: pool.open(timeout=3))
    eventually(lambda: len(factory.made) == 2)
    clock.advance(2.9)
    assert not opening.done()
    clock.advance(0.2)
    with pytest.raises(PoolOpenError):
        opening.result(LONG)
    eventually(lambda: not factory.open)
    assert pool.stats().size == 0


def test_open_without_a_timeout_ends_at_connect_timeout(make_pool: PoolMaker, clock: ManualClock) -> None:
    """`open()` of a target that never answers ends at `connect_timeout`, and says so."""
    factory = FakeFactory(_never_connecting)
    pool = make_pool(factory, connect_timeout=10)
    opening = background(pool.open)
    eventually(lambda: factory.made)
    clock.advance(10)
    with pytest.raises(PoolOpenError) as caught:
        opening.result(LONG)
    assert "not ready within" in str(caught.value.__cause__)


@pytest.mark.parametrize("timeout", [-1, float("nan"), True, "1"], ids=repr)
def test_open_refuses_an_invalid_timeout(make_pool: PoolMaker, timeout: float) -> None:
    """A timeout that is negative or not a number raises `ValueError`, and nothing is opened."""
    factory = FakeFactory()
    pool = make_pool(factory)
    with pytest.raises(ValueError, match="timeout = "):
        pool.open(timeout)
    assert factory.calls == 0


def test_a_closed_pool_does_not_open(make_pool: PoolMaker) -> None:
    """`open()` of a closed pool raises `PoolClosedError`; so does an `open()` during which the pool is closed."""
    factory = FakeFactory(_never_connecting)
    pool = make_pool(factory)
    opening = background(pool.open)
    eventually(lambda: factory.made)
    pool.close()
    with pytest.raises(PoolClosedError):
        opening.result(LONG)
    with pytest.raises(PoolClosedError):
        pool.open()
    assert not factory.open


# --- the factory ----------------------------------------------------------------------------------------------------


def test_the_factory_is_called_without_the_lock(make_pool: PoolMaker) -> None:
    """A factory may look at the pool, and even lease from it."""
    seen: list[int] = []
    pool: ChannelPool

    class Curious(FakeFactory):
        def __call__(self) -> FakeChannel:
            seen.append(pool.stats().opening)
            with pytest.raises(PoolTimeoutError):
                pool.acquire(timeout=0)
            return super().__call__()

    pool = make_pool(Curious(), max_size=1)
    pool.acquire().release()
    assert seen == [1]


@pytest.mark.parametrize("value", [None, 3, "channel", object], ids=repr)
def test_a_factory_that_does_not_return_a_channel_fails_the_connection(make_pool: PoolMaker, value: object) -> None:
    """The connection fails without using up `max_size`, and the error says what was returned."""
    factory: Callable[[], Any] = ConstantFactory(value)
    pool = make_pool(factory, max_size=1)
    with pytest.raises(PoolOpenError) as caught:
        pool.open()
    assert isinstance(caught.value.__cause__, TypeError)
    assert type(value).__name__ in str(caught.value.__cause__)
    assert pool.stats().size == 0


def _on_asyncio() -> Any:
    """Creates a channel of asyncio, as a factory for the other kind of pool does."""
    return grpc.aio.insecure_channel("127.0.0.1:1")


@pytest.mark.parametrize("factory", [aio.FakeChannel, _on_asyncio], ids=["returns", "needs a loop"])
def test_a_factory_of_the_asyncio_world_fails_with_the_remedy(make_pool: PoolMaker, factory: Callable[[], Any]) -> None:
    """A factory of a `grpc.aio.Channel` fails the connection, even where gRPC cannot create it without a loop.

    The error names the pool to use.
    """
    pool = make_pool(factory, max_size=1)
    with pytest.raises(PoolOpenError) as caught:
        pool.open()
    assert isinstance(caught.value.__cause__, TypeError)
    assert str(caught.value.__cause__) == "this factory returns a grpc.aio.Channel: use grpcpool.aio.ChannelPool"
    assert str(caught.value.__cause__) in str(caught.value)
    assert pool.stats().size == 0


def test_a_factory_s_own_error_stays(make_pool: PoolMaker) -> None:
    """A `RuntimeError` of the factory itself is the cause as it is."""
    error = RuntimeError("no credentials")

    def fails() -> Any:
        raise error

    with pytest.raises(PoolOpenError) as caught:
        make_pool(fails).open()
    assert caught.value.__cause__ is error


def test_a_factory_that_returns_the_same_channel_again_is_detected(make_pool: PoolMaker) -> None:
    """A channel that is already in the pool is refused, and stays open for its first user."""
    channel = FakeChannel()
    pool = make_pool(ConstantFactory(channel), max_size=2)
    with pool.acquire():
        with pytest.raises(PoolTimeoutError) as caught:
            pool.acquire(timeout=0.2)
        assert "already in the pool" in str(caught.value.__cause__)
        assert not channel.closed
        assert pool.stats().ready == 1


def test_two_threads_that_get_the_same_channel_are_detected(make_pool: PoolMaker) -> None:
    """If two connections opened at the same moment get the same channel, one of them fails."""
    both = threading.Barrier(2)

    class Meeting(FakeChannel):
        def subscribe(self, callback: Any, try_to_connect: bool | None = False) -> None:
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait(1)
            super().subscribe(callback, try_to_connect)

    pool = make_pool(ConstantFactory(Meeting()), min_size=2, max_size=2)
    with pytest.raises(PoolOpenError) as caught:
        pool.open()
    assert "already in the pool" in str(caught.value.__cause__)


def test_a_factory_that_fails_is_tried_again(make_pool: PoolMaker) -> None:
    """While there is a waiter, the pool tries again, with pauses, until a connection is made."""
    recorder = Recorder()
    factory = FakeFactory(fails=3)
    pool = make_pool(factory, listeners=[recorder])
    with pool.acquire(timeout=LONG):
        assert pool.stats().open_failures == 3
    pauses = [event.retry_in for event in recorder.of(OpenFailed)]
    assert len(pauses) == 3
    assert all(0.05 * 2**i <= pause <= 0.1 * 2**i for i, pause in enumerate(pauses))


def test_a_factory_that_hangs_does_not_use_up_max_size(make_pool: PoolMaker, clock: ManualClock) -> None:
    """After `connect_timeout` the attempt has failed and no longer counts, and its late channel is closed."""
    hanging = HangingFactory()
    quick = FakeFactory()
    first = threading.Lock()

    def factory() -> FakeChannel:
        return hanging() if first.acquire(blocking=False) else quick()

    pool = make_pool(factory, max_size=1, connect_timeout=10)
    waiting = background(pool.acquire)
    assert hanging.entered.acquire(timeout=LONG)
    clock.advance(10)
    assert pool.stats().open_failures == 1
    clock.advance(1)
    waiting.result(LONG).release()
    assert len(quick.made) == 1
    hanging.go.set()
    eventually(lambda: hanging.made)
    eventually(lambda: not hanging.open)
    assert pool.stats().size == 1


def test_a_factory_that_hangs_through_the_close(make_pool: PoolMaker) -> None:
    """The pool closes without waiting for the factory, warns that it still runs, and closes its late channel."""
    factory = HangingFactory()
    pool = make_pool(factory)
    waiting = background(pool.acquire)
    assert factory.entered.acquire(timeout=LONG)
    with pytest.warns(ResourceWarning, match="still runs"):
        pool.close()
    with pytest.raises(PoolClosedError):
        waiting.result(LONG)
    factory.go.set()
    eventually(lambda: factory.made)
    eventually(lambda: not factory.open)


def test_a_waiter_served_by_a_release_does_not_wait_for_the_factory(make_pool: PoolMaker) -> None:
    """A release serves a waiter, even while the factory hangs."""
    hanging = HangingFactory()
    quick = FakeFactory()
    first = threading.Lock()

    def factory() -> FakeChannel:
        return quick() if first.acquire(blocking=False) else hanging()

    pool = make_pool(factory, max_size=2)
    held = pool.acquire()
    waiting = background(pool.acquire)
    assert hanging.entered.acquire(timeout=LONG)
    held.release()
    waiting.result(LONG).release()
    hanging.go.set()


# --- the connect ----------------------------------------------------------------------------------------------------


def test_a_connection_is_granted_once_it_is_ready(make_pool: PoolMaker) -> None:
    """A connection that is still connecting is not granted."""
    factory = FakeFactory(_never_connecting)
    pool = make_pool(factory)
    waiting = background(pool.acquire)
    (channel,) = eventually(lambda: factory.made)
    eventually(lambda: channel.state is State.CONNECTING)
    with pytest.raises(PoolTimeoutError):
        pool.acquire(timeout=0)
    assert not waiting.done()
    channel.set_state(State.READY)
    waiting.result(LONG).release()


def test_a_connection_that_fails_is_closed(make_pool: PoolMaker) -> None:
    """A transient failure during opening fails the connection at once; its channel is closed."""
    factory = FakeFactory(_never_connecting)
    pool = make_pool(factory)
    opening = background(pool.open)
    (channel,) = eventually(lambda: factory.made)
    eventually(lambda: channel.state is State.CONNECTING)
    channel.set_state(State.TRANSIENT_FAILURE)
    with pytest.raises(PoolOpenError) as caught:
        opening.result(LONG)
    assert "TRANSIENT_FAILURE" in str(caught.value.__cause__)
    eventually(lambda: channel.closed)
    assert channel.subscribers == 0


def test_a_channel_that_cannot_be_subscribed_to_is_closed(make_pool: PoolMaker) -> None:
    """Whatever goes wrong after the factory has made a channel, the channel is closed."""

    class Unsubscribable(FakeChannel):
        def subscribe(self, callback: Any, try_to_connect: bool | None = False) -> None:
            raise RuntimeError("no subscriptions here")

    factory = FakeFactory(Unsubscribable)
    pool = make_pool(factory)
    with pytest.raises(PoolOpenError):
        pool.open()
    eventually(lambda: not factory.open, timeout=2)


def test_a_channel_that_cannot_be_unsubscribed_from_is_closed(make_pool: PoolMaker) -> None:
    """An error while closing a channel does not keep it open."""

    class Sticky(FakeChannel):
        def unsubscribe(self, callback: Any) -> None:
            raise RuntimeError("cannot unsubscribe")

    factory = FakeFactory(Sticky)
    pool = make_pool(factory)
    pool.open()
    pool.close()
    assert not factory.open


# --- the prime ------------------------------------------------------------------------------------------------------


def test_the_prime_gets_each_new_channel_before_it_is_used(make_pool: PoolMaker) -> None:
    """The prime gets the factory's own channel, connected, once for each, before any lease of it."""
    primed: list[tuple[grpc.Channel, State]] = []
    factory = FakeFactory()

    def prime(channel: FakeChannel) -> None:
        assert pool.stats().ready == len(primed)
        primed.append((channel, channel.state))

    pool: ChannelPool = make_pool(factory, prime=prime, max_size=2)
    with pool.acquire(), pool.acquire():
        assert primed == [(channel, State.READY) for channel in factory.made]


def test_a_prime_that_raises_fails_the_connection(make_pool: PoolMaker) -> None:
    """The channel is closed, and what it raised is the cause."""

    def prime(channel: grpc.Channel) -> None:
        raise LookupError("not warm")

    factory = FakeFactory()
    pool = make_pool(factory, prime=prime)
    with pytest.raises(PoolOpenError) as caught:
        pool.open()
    assert isinstance(caught.value.__cause__, LookupError)
    eventually(lambda: not factory.open)
    assert pool.stats().size == 0


def test_a_prime_that_returns_an_awaitable_fails_the_connection(make_pool: PoolMaker) -> None:
    """A coroutine function would never run here, so it raises instead of leaving the connection unprimed."""

    class Awaitable:
        def __await__(self) -> Iterator[None]:
            yield

    factory = FakeFactory()
    pool = make_pool(factory, prime=lambda _: Awaitable())
    with pytest.raises(PoolOpenError, match=r"for grpcpool\.aio") as caught:
        pool.open()
    assert isinstance(caught.value.__cause__, TypeError)
    eventually(lambda: not factory.open)


def test_a_prime_that_hangs_is_bounded(make_pool: PoolMaker, clock: ManualClock) -> None:
    """After `connect_timeout` the attempt has failed, and the channel is closed while the prime still hangs."""
    go = threading.Event()

    def prime(channel: grpc.Channel) -> None:
        assert go.wait(LONG)

    factory = FakeFactory()
    pool = make_pool(factory, prime=prime, connect_timeout=10)
    opening = background(pool.open)
    eventually(lambda: factory.made)
    clock.advance(10)
    with pytest.raises(PoolOpenError) as caught:
        opening.result(LONG)
    assert "connect_timeout" in str(caught.value.__cause__)
    eventually(lambda: not factory.open)
    go.set()
    assert pool.stats().size == 0


def test_a_factory_that_always_fails_leaves_nothing(make_pool: PoolMaker, clock: ManualClock) -> None:
    """However often it is tried, no connection is counted and no thread is left."""
    pool = make_pool(failing_factory, max_size=2)
    for attempt in range(1, 20):
        with pytest.raises(PoolTimeoutError):
            pool.acquire(timeout=0)
        eventually(lambda attempt=attempt: pool.stats().open_failures == attempt)  # type: ignore[misc]
        clock.advance(20)
    assert pool.stats().opening <= 1
