"""A lease: a channel for a limited time, released once."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from grpcpool import ChannelPool, Lease, LeaseReleasedError
from grpcpool.testing import ManualClock
from support.fakes import FakeFactory, holding, numbers
from support.pools import PoolMaker
from support.servers import CHAT, COLLECT, COUNT, ECHO
from support.waiting import LONG, background, eventually, together

pytestmark = pytest.mark.timeout(60)

State = grpc.ChannelConnectivity


def _drop(held: list[Any]) -> None:
    """Drops the only reference to a lease."""
    held.clear()
    gc.collect()


def test_it_is_released_once(make_pool: PoolMaker) -> None:
    """When two threads release one lease at the same moment, it is released once."""
    pool = make_pool(FakeFactory(), max_size=1, max_streams=3)
    with pool.acquire(streams=1):
        for _ in range(50):
            lease = pool.acquire(streams=1)
            together(2, lambda _, lease=lease: lease.release())  # type: ignore[misc]
            assert pool.stats().in_flight == 1
    assert pool.stats().in_flight == 0


def test_later_releases_do_nothing(make_pool: PoolMaker) -> None:
    """After a release, `release`, `close`, `discard` and the end of the block do nothing to the next lease."""
    factory = FakeFactory()
    pool = make_pool(factory, max_size=1)
    with pool.acquire() as first:
        first.release()
        with pool.acquire(timeout=0):
            first.release()
            first.close()
            first.discard()
            assert pool.stats().in_flight == 1
            assert not factory.made[0].closed
    assert pool.stats().in_flight == 0


def test_leaving_the_block_releases_it_whatever_happens(make_pool: PoolMaker) -> None:
    """An exception in the block is passed on, and the lease is released."""
    pool = make_pool(FakeFactory())
    with pytest.raises(KeyError), pool.acquire():
        raise KeyError
    assert pool.stats().in_flight == 0


def test_discarding_a_whole_connection_closes_it_at_once(make_pool: PoolMaker) -> None:
    """The connection is closed, its calls are cancelled, and the next lease gets a new one."""
    factory = FakeFactory(holding)
    pool = make_pool(factory, max_size=1)
    lease = pool.acquire()
    call = lease.unary_unary(ECHO).future(b"")
    lease.discard()
    lease.release()
    eventually(lambda: factory.made[0].closed)
    assert call.code() is grpc.StatusCode.CANCELLED
    assert pool.stats().closed["discarded"] == 1
    assert pool.stats().in_flight == 0
    pool.acquire().release()
    assert len(factory.open) == 1


def test_discarding_a_share_closes_when_the_others_have_ended(make_pool: PoolMaker) -> None:
    """The connection takes nothing new, and is closed with the last of the leases and calls that share it."""
    factory = FakeFactory()
    pool = make_pool(factory, max_size=1, max_streams=3)
    one, two = pool.acquire(streams=1), pool.acquire(streams=1)
    one.discard()
    assert not factory.made[0].closed
    assert pool.stats().draining == 1
    with pool.acquire(streams=1):
        assert len(factory.made) == 2, "the draining connection takes nothing new"
    assert two.unary_unary(ECHO)(b"a") == b"a"
    two.release()
    eventually(lambda: factory.made[0].closed)
    assert pool.stats().in_flight == 0


def test_a_discard_with_calls_running_releases_once(make_pool: PoolMaker) -> None:
    """Calls of a discarded share that end later do not release it a second time."""
    factory = FakeFactory(holding)
    pool = make_pool(factory, max_size=1, max_streams=3)
    one, two = pool.acquire(streams=1), pool.acquire(streams=2)
    call = one.unary_unary(ECHO).future(b"")
    one.discard()
    assert pool.stats().in_flight == 2
    call.finish([b""])
    assert pool.stats().in_flight == 2
    two.release()
    assert pool.stats().in_flight == 0


# The stubs have no type for a multicallable without serializers: channels are `Any` here.
_CALLS: dict[str, Callable[[Any], Any]] = {
    "unary": lambda channel: channel.unary_unary(ECHO)(b""),
    "unary with_call": lambda channel: channel.unary_unary(ECHO).with_call(b""),
    "unary future": lambda channel: channel.unary_unary(ECHO).future(b""),
    "stream": lambda channel: channel.unary_stream(COUNT)(b"1,0"),
    "collect": lambda channel: channel.stream_unary(COLLECT)(numbers(2)),
    "collect with_call": lambda channel: channel.stream_unary(COLLECT).with_call(numbers(2)),
    "collect future": lambda channel: channel.stream_unary(COLLECT).future(numbers(2)),
    "chat": lambda channel: channel.stream_stream(CHAT)(numbers(2)),
}
_every_call = pytest.mark.parametrize("call", _CALLS.values(), ids=_CALLS)


@_every_call
def test_a_call_after_the_release_is_refused(make_pool: PoolMaker, call: Callable[[Any], Any]) -> None:
    """It raises `LeaseReleasedError`, which names the pool, and does not reach the connection."""
    factory = FakeFactory()
    pool = make_pool(factory, name="orders")
    lease = pool.acquire()
    lease.release()
    with pytest.raises(LeaseReleasedError, match="'orders'"):
        call(lease)
    assert not factory.made[0].calls


def test_a_stub_made_before_the_release_is_refused_after_it(make_pool: PoolMaker) -> None:
    """What was made from the lease while it was held cannot be used after its release."""
    pool = make_pool(FakeFactory())
    with pool.acquire() as lease:
        echo, count = lease.unary_unary(ECHO), lease.unary_stream(COUNT)
        assert echo(b"a") == b"a"
    for begin in (echo, echo.with_call, echo.future, count):
        with pytest.raises(LeaseReleasedError):
            begin(b"a")
    with pytest.raises(LeaseReleasedError):
        lease.subscribe(lambda state: None)


@_every_call
def test_a_call_running_at_the_release_keeps_the_connection(make_pool: PoolMaker, call: Callable[[Any], Any]) -> None:
    """The connection is not free while the call runs, and free when it ends."""
    factory = FakeFactory(holding)
    pool = make_pool(factory, max_size=1)
    lease = pool.acquire()
    running = background(lambda: call(lease))
    channel = factory.made[0]
    eventually(lambda: channel.calls)
    # A call that does not block has been returned, and so is being counted.
    eventually(lambda: lease._calls == 1)
    lease.release()
    assert pool.stats().in_flight == 1
    channel.calls[0].finish([b""])
    running.result(LONG)
    eventually(lambda: pool.stats().in_flight == 0)
    pool.acquire(timeout=0).release()


def test_the_last_of_several_calls_frees_the_connection(make_pool: PoolMaker) -> None:
    """Of several calls running at the release, only the end of the last frees the connection, however each ends."""
    factory = FakeFactory(holding)
    pool = make_pool(factory, max_size=1)
    with pool.acquire() as lease:
        calls = [lease.unary_unary(ECHO).future(b"") for _ in range(3)]
    assert pool.stats().in_flight == 1
    calls[0].finish([b""])
    calls[1].fail(grpc.StatusCode.UNAVAILABLE)
    assert pool.stats().in_flight == 1
    calls[2].cancel()
    assert pool.stats().in_flight == 0


def test_a_call_that_ends_before_the_release_frees_nothing(make_pool: PoolMaker) -> None:
    """While the lease is held it keeps its connection, however many calls begin and end."""
    pool = make_pool(FakeFactory(), max_size=1)
    with pool.acquire() as lease:
        for _ in range(3):
            lease.unary_unary(ECHO).future(b"").result()
        assert pool.stats().in_flight == 1
    assert pool.stats().in_flight == 0


@_every_call
def test_a_call_that_does_not_begin_keeps_nothing(make_pool: PoolMaker, call: Callable[[Any], Any]) -> None:
    """When gRPC raises instead of beginning a call, the call does not count as running."""
    factory = FakeFactory()
    pool = make_pool(factory, max_size=1)
    lease = pool.acquire()
    factory.made[0].close()
    with pytest.raises(ValueError, match="closed channel"):
        call(lease)
    lease.release()
    assert pool.stats().in_flight == 0


def test_a_dropped_lease_is_released_with_a_warning(make_pool: PoolMaker) -> None:
    """A lease that is collected unreleased returns to the pool, with a `ResourceWarning` that names the pool."""
    pool = make_pool(FakeFactory(), name="orders", max_size=1)
    held = [pool.acquire()]
    with pytest.warns(ResourceWarning, match="'orders' was dropped without release"):
        _drop(held)
    assert pool.stats().in_flight == 0
    pool.acquire(timeout=0).release()


def test_a_dropped_lease_serves_a_waiter(make_pool: PoolMaker) -> None:
    """What a collected lease held goes to the waiter, without any other use of the pool."""
    pool = make_pool(FakeFactory(), max_size=1)
    held = [pool.acquire()]
    waiting = background(pool.acquire)
    eventually(lambda: pool.stats().waiting == 1)
    with pytest.warns(ResourceWarning):
        _drop(held)
    waiting.result(LONG).release()


def test_a_released_lease_is_collected_silently(make_pool: PoolMaker) -> None:
    """A lease that was released or discarded causes no warning when collected."""
    pool = make_pool(FakeFactory())
    for end in (Lease.release, Lease.discard):
        lease = pool.acquire()
        end(lease)
        del lease
        gc.collect()
    assert pool.stats().in_flight == 0


def test_a_stub_keeps_its_lease(make_pool: PoolMaker) -> None:
    """A stub keeps its lease, which is dropped when the stub is."""
    pool = make_pool(FakeFactory())
    held = [pool.acquire().unary_unary(ECHO)]
    gc.collect()
    assert held[0](b"a") == b"a"
    assert pool.stats().in_flight == 1
    with pytest.warns(ResourceWarning):
        _drop(held)
    assert pool.stats().in_flight == 0


def test_a_running_call_keeps_a_dropped_lease(make_pool: PoolMaker) -> None:
    """A dropped lease whose call still runs is not released before the call ends."""
    factory = FakeFactory(holding)
    pool = make_pool(factory, max_size=1)
    call = pool.acquire().unary_unary(ECHO).future(b"")
    gc.collect()
    assert pool.stats().in_flight == 1
    with pytest.warns(ResourceWarning):
        call.finish([b""])
    # The collector may first have to break a cycle.
    gc.collect()
    assert pool.stats().in_flight == 0


class _Stamping(grpc.UnaryUnaryClientInterceptor):
    """Counts the calls that pass through."""

    def __init__(self) -> None:
        self.passed = 0

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        self.passed += 1
        return continuation(client_call_details, request)


def test_it_is_a_channel_for_stubs_and_interceptors(make_pool: PoolMaker) -> None:
    """A lease is a `grpc.Channel`, and `grpc.intercept_channel` works on it; intercepted calls count as its calls."""
    factory = FakeFactory()
    pool = make_pool(factory)
    interceptor = _Stamping()
    with pool.acquire() as lease:
        assert isinstance(lease, grpc.Channel)
        intercepted: Any = grpc.intercept_channel(lease, interceptor)
        assert intercepted.unary_unary(ECHO)(b"a") == b"a"
        assert intercepted.unary_unary(ECHO).with_call(b"b")[0] == b"b"
        assert intercepted.unary_unary(ECHO).future(b"c").result() == b"c"
    assert interceptor.passed == 3
    assert len(factory.made[0].calls) == 3
    with pytest.raises(LeaseReleasedError):
        intercepted.unary_unary(ECHO)(b"d")


def test_it_passes_on_the_arguments_of_makers(make_pool: PoolMaker) -> None:
    """Serializer, deserializer, and the flag of generated code reach the connection's own channel."""
    pool = make_pool(FakeFactory())
    with pool.acquire() as lease:
        echo = lease.unary_unary(ECHO, str.encode, bytes.decode, _registered_method=True)
        assert echo("text") == "text"
        # A different serializer for the same method needs a different multicallable.
        assert lease.unary_unary(ECHO)(b"bytes") == b"bytes"


def test_it_reports_the_state_of_its_connection(make_pool: PoolMaker) -> None:
    """A subscriber gets the state and its changes, until it unsubscribes."""
    factory = FakeFactory()
    pool = make_pool(factory)
    states: list[State] = []
    with pool.acquire() as lease:
        lease.subscribe(states.append)
        factory.made[0].set_state(State.TRANSIENT_FAILURE)
        factory.made[0].set_state(State.READY)
        assert states == [State.READY, State.TRANSIENT_FAILURE, State.READY]
        lease.unsubscribe(states.append)
        factory.made[0].set_state(State.CONNECTING)
        factory.made[0].set_state(State.READY)
        assert len(states) == 3
        lease.unsubscribe(states.append)


def _dropped(lease: list[Lease]) -> None:
    with pytest.warns(ResourceWarning):
        _drop(lease)


_ENDS: dict[str, Callable[[list[Lease]], None]] = {
    "release": lambda lease: lease[0].release(),
    "discard": lambda lease: lease[0].discard(),
    "drop": _dropped,
}


@pytest.mark.parametrize("end", _ENDS.values(), ids=_ENDS)
def test_subscriptions_end_with_the_lease(make_pool: PoolMaker, end: Callable[[list[Lease]], None]) -> None:
    """However a share of a connection is released, its subscriptions end with it."""
    factory = FakeFactory()
    pool = make_pool(factory, max_size=1)
    with pool.acquire(streams=1):
        before = factory.made[0].subscribers
        lease = [pool.acquire(streams=1)]
        lease[0].subscribe(lambda state: None)
        assert factory.made[0].subscribers == before + 1
        end(lease)
        pool.stats()
        eventually(lambda: factory.made[0].subscribers == before, timeout=2)


def test_its_times_are_aware_dates(make_pool: PoolMaker, clock: ManualClock) -> None:
    """`created_at` is when the connection was opened, `used_at` when it was last returned before this lease."""
    pool = make_pool(FakeFactory(), max_size=1)
    with pool.acquire() as first:
        assert first.created_at.tzinfo is not None
        assert first.used_at.tzinfo is not None
        clock.advance(100)
    clock.advance(10)
    with pool.acquire() as second:
        clock.advance(1)
        assert (second.used_at - second.created_at).total_seconds() == pytest.approx(100, abs=1)
        assert (second.created_at - first.created_at).total_seconds() == pytest.approx(0, abs=1)


def test_its_times_stay_the_same(make_pool: PoolMaker) -> None:
    """Reading the times twice gives the same result, and a new connection was not used before it was opened."""
    pool = make_pool(FakeFactory())
    with pool.acquire() as lease:
        assert len({lease.created_at for _ in range(100)}) == 1
        assert len({lease.used_at for _ in range(100)}) == 1
        assert lease.used_at == lease.created_at


def test_its_repr(make_pool: PoolMaker) -> None:
    """The repr names the pool and the connection, what was leased, and whether it is still held."""
    pool: ChannelPool = make_pool(FakeFactory(), name="orders")
    with pool.acquire() as lease:
        assert repr(lease) == "<grpcpool.Lease of all of channel 1 of pool 'orders': held>"
    assert repr(lease) == "<grpcpool.Lease of all of channel 1 of pool 'orders': released>"
    with pool.acquire(streams=2) as lease:
        assert repr(lease) == "<grpcpool.Lease of 2 streams of channel 1 of pool 'orders': held>"
