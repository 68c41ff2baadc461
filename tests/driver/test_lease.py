"""What a lease is: a channel for a while, given back once."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from grpcpool import ChannelPool, Lease, LeaseReleasedError
from grpcpool.testing import ManualClock
from support.fakes import FakeChannel, FakeFactory, numbers
from support.pools import PoolMaker
from support.servers import CHAT, COLLECT, COUNT, ECHO
from support.waiting import LONG, background, eventually, together

pytestmark = pytest.mark.timeout(60)

State = grpc.ChannelConnectivity


def _holding() -> FakeChannel:
    return FakeChannel(holds_calls=True)


def _drop(held: list[Any]) -> None:
    """Lets go of what nobody else holds."""
    held.clear()
    gc.collect()


def test_it_is_given_back_once(make_pool: PoolMaker) -> None:
    """Of two threads that release one lease at the same moment, one gives the place back."""
    pool = make_pool(FakeFactory(), max_size=1, max_streams=3)
    with pool.acquire(streams=1):
        for _ in range(50):
            lease = pool.acquire(streams=1)
            together(2, lambda _, lease=lease: lease.release())  # type: ignore[misc]
            assert pool.stats().in_flight == 1
    assert pool.stats().in_flight == 0


def test_later_releases_do_nothing(make_pool: PoolMaker) -> None:
    """`release`, `close`, `discard` and the end of the block, after a release, do nothing to the next borrower."""
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


def test_leaving_the_block_gives_it_back_whatever_happens(make_pool: PoolMaker) -> None:
    """An exception in the block goes on, and the lease comes back."""
    pool = make_pool(FakeFactory())
    with pytest.raises(KeyError), pool.acquire():
        raise KeyError
    assert pool.stats().in_flight == 0


def test_discarding_a_whole_connection_closes_it_at_once(make_pool: PoolMaker) -> None:
    """The connection is closed, its calls are cancelled, and the next borrower gets a new one."""
    factory = FakeFactory(_holding)
    pool = make_pool(factory, max_size=1)
    lease = pool.acquire()
    call = lease.unary_unary(ECHO).future(b"")
    lease.discard()
    lease.release()
    eventually(lambda: factory.made[0].closed)
    assert call.cancelled()
    assert pool.stats().closed["discarded"] == 1
    assert pool.stats().in_flight == 0
    pool.acquire().release()
    assert len(factory.open) == 1


def test_discarding_a_share_closes_when_the_others_have_ended(make_pool: PoolMaker) -> None:
    """The connection takes nothing new and is closed with the last of those who share it."""
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


def test_discarded_with_calls_running_it_gives_back_once(make_pool: PoolMaker) -> None:
    """The calls of a discarded share that end later give nothing back a second time."""
    factory = FakeFactory(_holding)
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
    """It raises `LeaseReleasedError`, which names the pool; the connection does not hear of it."""
    factory = FakeFactory()
    pool = make_pool(factory, name="orders")
    lease = pool.acquire()
    lease.release()
    with pytest.raises(LeaseReleasedError, match="'orders'"):
        call(lease)
    assert not factory.made[0].calls


def test_a_stub_made_before_the_release_is_refused_after_it(make_pool: PoolMaker) -> None:
    """What was made of the lease while it was held is as void as the lease."""
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
def test_a_call_running_at_the_release_keeps_the_place(make_pool: PoolMaker, call: Callable[[Any], Any]) -> None:
    """The place is not free while the call runs, and free when it ends."""
    factory = FakeFactory(_holding)
    pool = make_pool(factory, max_size=1)
    lease = pool.acquire()
    running = background(lambda: call(lease))
    channel = factory.made[0]
    eventually(lambda: channel.calls)
    # A call that does not block has been handed out, and so is being counted.
    eventually(lambda: lease._calls == 1)
    lease.release()
    assert pool.stats().in_flight == 1
    channel.calls[0].finish([b""])
    running.result(LONG)
    eventually(lambda: pool.stats().in_flight == 0)
    pool.acquire(timeout=0).release()


def test_the_last_of_several_calls_gives_the_place_back(make_pool: PoolMaker) -> None:
    """Of several calls that run at the release, each but the last leaves the place taken, however it ends."""
    factory = FakeFactory(_holding)
    pool = make_pool(factory, max_size=1)
    with pool.acquire() as lease:
        calls = [lease.unary_unary(ECHO).future(b"") for _ in range(3)]
    assert pool.stats().in_flight == 1
    calls[0].finish([b""])
    calls[1].fail(grpc.StatusCode.UNAVAILABLE)
    assert pool.stats().in_flight == 1
    calls[2].cancel()
    assert pool.stats().in_flight == 0


def test_a_call_that_ends_before_the_release_gives_nothing_back(make_pool: PoolMaker) -> None:
    """The place is the lease's while it is held, however many calls come and go."""
    pool = make_pool(FakeFactory(), max_size=1)
    with pool.acquire() as lease:
        for _ in range(3):
            lease.unary_unary(ECHO).future(b"").result()
        assert pool.stats().in_flight == 1
    assert pool.stats().in_flight == 0


@_every_call
def test_a_call_that_does_not_begin_keeps_nothing(make_pool: PoolMaker, call: Callable[[Any], Any]) -> None:
    """When gRPC raises instead of beginning a call, the call is not counted as running."""
    factory = FakeFactory()
    pool = make_pool(factory, max_size=1)
    lease = pool.acquire()
    factory.made[0].close()
    with pytest.raises(ValueError, match="closed channel"):
        call(lease)
    lease.release()
    assert pool.stats().in_flight == 0


def test_a_dropped_lease_is_given_back_with_a_warning(make_pool: PoolMaker) -> None:
    """A lease that is collected unreleased returns its place, and warns `ResourceWarning` that names the pool."""
    pool = make_pool(FakeFactory(), name="orders", max_size=1)
    held = [pool.acquire()]
    with pytest.warns(ResourceWarning, match="'orders' was dropped without release"):
        _drop(held)
    assert pool.stats().in_flight == 0
    pool.acquire(timeout=0).release()


def test_a_dropped_lease_serves_who_waits(make_pool: PoolMaker) -> None:
    """The place of a lease that is collected goes to the waiter, without anybody else using the pool."""
    pool = make_pool(FakeFactory(), max_size=1)
    held = [pool.acquire()]
    waiting = background(pool.acquire)
    eventually(lambda: pool.stats().waiting == 1)
    with pytest.warns(ResourceWarning):
        _drop(held)
    waiting.result(LONG).release()


def test_a_released_lease_is_collected_silently(make_pool: PoolMaker) -> None:
    """A lease that was released, or discarded, warns of nothing: warnings are errors here."""
    pool = make_pool(FakeFactory())
    for give_back in (Lease.release, Lease.discard):
        lease = pool.acquire()
        give_back(lease)
        del lease
        gc.collect()
    assert pool.stats().in_flight == 0


def test_what_was_made_of_a_lease_keeps_it(make_pool: PoolMaker) -> None:
    """A stub holds its lease, which is dropped when the stub is."""
    pool = make_pool(FakeFactory())
    held = [pool.acquire().unary_unary(ECHO)]
    gc.collect()
    assert held[0](b"a") == b"a"
    assert pool.stats().in_flight == 1
    with pytest.warns(ResourceWarning):
        _drop(held)
    assert pool.stats().in_flight == 0


def test_a_running_call_keeps_a_dropped_lease(make_pool: PoolMaker) -> None:
    """A lease whose call still runs is not given back by the collector before the call has ended."""
    factory = FakeFactory(_holding)
    pool = make_pool(factory, max_size=1)
    call = pool.acquire().unary_unary(ECHO).future(b"")
    gc.collect()
    assert pool.stats().in_flight == 1
    with pytest.warns(ResourceWarning):
        call.finish([b""])
    # The collector may have to break a cycle first.
    gc.collect()
    assert pool.stats().in_flight == 0


class _Stamping(grpc.UnaryUnaryClientInterceptor):
    """Counts the calls that pass."""

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


def test_it_passes_on_what_makers_are_given(make_pool: PoolMaker) -> None:
    """Serializer and deserializer, and the flag of generated code, reach the connection's own channel."""
    pool = make_pool(FakeFactory())
    with pool.acquire() as lease:
        echo = lease.unary_unary(ECHO, str.encode, bytes.decode, _registered_method=True)
        assert echo("text") == "text"
        # Another serializer for the same method is another multicallable.
        assert lease.unary_unary(ECHO)(b"bytes") == b"bytes"


def test_it_tells_the_state_of_its_connection(make_pool: PoolMaker) -> None:
    """A subscriber is told the state and its changes, until he unsubscribes."""
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
def test_who_subscribed_hears_nothing_after_its_end(make_pool: PoolMaker, end: Callable[[list[Lease]], None]) -> None:
    """Whichever way a share of a connection is given back, its subscriptions end with it."""
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


def test_its_moments_are_aware_dates(make_pool: PoolMaker, clock: ManualClock) -> None:
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


def test_its_moments_stay_the_same(make_pool: PoolMaker) -> None:
    """Read twice, a moment is the same; and a connection that is new was not used before it was made."""
    pool = make_pool(FakeFactory())
    with pool.acquire() as lease:
        assert len({lease.created_at for _ in range(100)}) == 1
        assert len({lease.used_at for _ in range(100)}) == 1
        assert lease.used_at == lease.created_at


def test_its_repr_says_what_of_what(make_pool: PoolMaker) -> None:
    """The repr names the pool and the connection, what was leased, and whether it still is."""
    pool: ChannelPool = make_pool(FakeFactory(), name="orders")
    with pool.acquire() as lease:
        assert repr(lease) == "<grpcpool.Lease of all of channel 1 of pool 'orders': held>"
    assert repr(lease) == "<grpcpool.Lease of all of channel 1 of pool 'orders': released>"
    with pool.acquire(streams=2) as lease:
        assert repr(lease) == "<grpcpool.Lease of 2 streams of channel 1 of pool 'orders': held>"
