"""Changing a pool in use: `resize`, `refresh`, age, idleness; and how the pool looks from outside."""

from __future__ import annotations

import threading
from typing import Any

import grpc
import pytest

import grpcpool.aio
from grpcpool import ChannelPool, Lease, Mode, PoolConfig, PoolOpenError, PoolTimeoutError
from grpcpool.events import Opening
from grpcpool.testing import ManualClock
from support.fakes import FakeChannel, FakeFactory
from support.pools import PoolMaker, Recorder
from support.servers import ECHO
from support.waiting import LONG, background, eventually

pytestmark = pytest.mark.timeout(60)


class StubbornFactory(FakeFactory):
    """Fails while `fails` is set."""

    fails = False

    def __call__(self) -> FakeChannel:
        """Creates a channel, or fails."""
        if self.fails:
            raise ConnectionRefusedError("not now")
        return super().__call__()


# --- resize ---------------------------------------------------------------------------------------------------------


def test_a_higher_maximum_serves_a_waiter(make_pool: PoolMaker) -> None:
    """`resize(max_size)` opens a connection for a waiter at once."""
    pool = make_pool(FakeFactory(), max_size=1)
    with pool.acquire():
        waiting = background(pool.acquire)
        eventually(lambda: pool.stats().waiting == 1)
        pool.resize(max_size=2)
        waiting.result(LONG).release()
    assert (pool.config.min_size, pool.config.max_size) == (1, 2)
    assert (pool.stats().min_size, pool.stats().max_size) == (1, 2)


def test_a_higher_minimum_is_opened(make_pool: PoolMaker) -> None:
    """`resize(min_size)` opens the missing connections in the background, but none in an unused pool."""
    factory = FakeFactory()
    pool = make_pool(factory)
    pool.resize(min_size=2)
    assert factory.calls == 0
    pool.open()
    pool.resize(min_size=4)
    eventually(lambda: pool.stats().ready == 4)


def test_a_lower_maximum_interrupts_nothing(make_pool: PoolMaker) -> None:
    """Idle connections close first; a leased one continues, and closes when it is released."""
    factory = FakeFactory()
    pool = make_pool(factory, max_size=3)
    leases = [pool.acquire() for _ in range(3)]
    leases.pop().release()
    pool.resize(max_size=1)
    assert (pool.stats().size, pool.stats().draining) == (2, 1)
    assert [lease.unary_unary(ECHO)(b"a") for lease in leases] == [b"a", b"a"]
    with pytest.raises(PoolTimeoutError):
        pool.acquire(timeout=0)
    for lease in leases:
        lease.release()
    assert pool.stats().size == 1
    eventually(lambda: len(factory.open) == 1)
    assert pool.stats().closed["shrink"] == 2


def test_bounds_that_contradict_are_refused(make_pool: PoolMaker) -> None:
    """Contradictory bounds raise `ValueError` and change nothing."""
    pool = make_pool(FakeFactory(), min_size=2, max_size=4)
    for bounds in ({"min_size": 5}, {"max_size": 1}, {"min_size": -1}, {"max_size": 0}, {"max_size": True}):
        with pytest.raises(ValueError, match=r"m(in|ax)_size = "):
            pool.resize(**bounds)
    assert (pool.config.min_size, pool.config.max_size) == (2, 4)


def test_resizing_to_the_same_bounds_does_nothing(make_pool: PoolMaker) -> None:
    """Without arguments, or with the current bounds, nothing is opened or closed."""
    factory = FakeFactory()
    pool = make_pool(factory, min_size=2)
    pool.open()
    pool.resize()
    pool.resize(min_size=2, max_size=10)
    assert (factory.calls, len(factory.open)) == (2, 2)


# --- refresh and age ------------------------------------------------------------------------------------------------


def test_refresh_replaces_each_connection(make_pool: PoolMaker) -> None:
    """Every connection gets a successor, and is closed; there are never fewer than before."""
    recorder = Recorder()
    factory = FakeFactory()
    pool = make_pool(factory, min_size=4, listeners=[recorder])
    pool.open()
    before = list(factory.made)
    pool.refresh()
    eventually(lambda: pool.stats().closed["refresh"] == 4)
    eventually(lambda: all(channel.closed for channel in before))
    assert (pool.stats().ready, len(factory.open)) == (4, 4)
    # Other threads may emit events later.
    eventually(lambda: len(recorder.of(Opening)) == 8)
    assert sorted(event.replaces or 0 for event in recorder.of(Opening)) == [0, 0, 0, 0, 1, 2, 3, 4]


def test_a_leased_connection_is_replaced_without_disturbing_its_lease(make_pool: PoolMaker) -> None:
    """The lease keeps the old connection until it is released; other requests get the new one."""
    factory = FakeFactory()
    pool = make_pool(factory, max_size=1)
    with pool.acquire() as old:
        pool.refresh()
        eventually(lambda: pool.stats().draining == 1)
        with pool.acquire(timeout=LONG):
            assert old.unary_unary(ECHO)(b"a") == b"a"
            assert len(factory.open) == 2
    eventually(lambda: factory.made[0].closed)
    assert len(factory.open) == 1


def test_a_failed_replacement_keeps_the_old_one(make_pool: PoolMaker, clock: ManualClock) -> None:
    """While successors fail, the old connection stays in service; once one succeeds, it is replaced."""
    factory = StubbornFactory()
    pool = make_pool(factory, max_age=100, age_jitter=0)
    pool.open()
    factory.fails = True
    for failures in range(1, 6):
        clock.advance(100)
        eventually(lambda failures=failures: pool.stats().open_failures == failures)  # type: ignore[misc]
        with pool.acquire(timeout=0) as lease:
            assert lease.unary_unary(ECHO)(b"a") == b"a"
    assert not factory.made[0].closed
    factory.fails = False
    clock.advance(100)
    eventually(lambda: pool.stats().closed["age"] == 1)
    eventually(lambda: factory.made[0].closed)


def test_a_successor_is_primed_before_the_old_one_goes(make_pool: PoolMaker, clock: ManualClock) -> None:
    """Until the successor has been primed, the old connection stays in service."""
    primed = threading.Semaphore(1)

    def prime(channel: grpc.Channel) -> None:
        assert primed.acquire(timeout=LONG)

    factory = FakeFactory()
    pool = make_pool(factory, prime=prime, max_age=100, age_jitter=0)
    pool.open()
    clock.advance(100)
    eventually(lambda: len(factory.made) == 2)
    pool.acquire(timeout=0).release()
    assert (pool.stats().ready, pool.stats().opening) == (1, 1)
    primed.release()
    eventually(lambda: factory.made[0].closed)
    assert pool.stats().closed["age"] == 1


def test_a_drain_is_bounded(make_pool: PoolMaker, clock: ManualClock) -> None:
    """What still runs on a retiring connection at `drain_timeout` is cancelled."""
    factory = FakeFactory(lambda: FakeChannel(holds_calls=True))
    pool = make_pool(factory, drain_timeout=50)
    with pool.acquire() as lease:
        call = lease.unary_unary(ECHO).future(b"")
        pool.refresh()
        eventually(lambda: pool.stats().draining == 1)
        clock.advance(49)
        assert not call.done()
        clock.advance(1)
        eventually(call.done)
        assert call.code() is grpc.StatusCode.CANCELLED
    assert pool.stats().in_flight == 0


# --- growing and shrinking ------------------------------------------------------------------------------------------


def test_a_pool_grows_ahead_of_need(make_pool: PoolMaker) -> None:
    """When the connections carry `target_streams`, one more is opened before any request waits."""
    pool = make_pool(FakeFactory(), target_streams=2, max_streams=10)
    leases = [pool.acquire(streams=1) for _ in range(3)]
    eventually(lambda: pool.stats().ready == 2)
    assert pool.stats().in_flight == 3
    for lease in leases:
        lease.release()


def test_idle_connections_are_closed_in_the_background(make_pool: PoolMaker, clock: ManualClock) -> None:
    """Idle connections above `min_size` close after `idle_timeout`, even if the pool is not used."""
    factory = FakeFactory()
    pool = make_pool(factory, min_size=1, max_size=4, idle_timeout=60)
    leases = [pool.acquire() for _ in range(4)]
    for lease in leases:
        lease.release()
    clock.advance(59)
    assert len(factory.open) == 4
    clock.advance(1)
    eventually(lambda: len(factory.open) == 1)
    assert pool.stats().closed["idle"] == 3
    clock.advance(10000)
    assert len(factory.open) == 1


def test_a_draining_connection_is_restored(make_pool: PoolMaker) -> None:
    """If more is needed while a surplus connection drains, it is restored, and no other is dialled."""
    factory = FakeFactory()
    pool = make_pool(factory, max_size=2, max_streams=2)
    four: list[Lease] = [pool.acquire(streams=2) for _ in range(2)]
    pool.resize(max_size=1)
    assert pool.stats().draining == 1
    pool.resize(max_size=2)
    waiting = background(lambda: pool.acquire(streams=2))
    eventually(lambda: pool.stats().waiting == 1)
    assert (pool.stats().ready, pool.stats().draining) == (2, 0)
    for lease in four:
        lease.release()
    waiting.result(LONG).release()
    assert factory.calls == 2


# --- from outside ---------------------------------------------------------------------------------------------------


def test_its_repr_is_a_small_dashboard(make_pool: PoolMaker) -> None:
    """The repr shows name, open connections, load and queue at each stage of a pool's life."""
    factory = FakeFactory(lambda: FakeChannel(connects=False))
    pool = make_pool(factory, name="orders", max_size=2)
    assert repr(pool) == "<grpcpool.ChannelPool 'orders': 0 of 2 connections open, 0 in flight, 0 waiting>"
    waiting = background(pool.acquire)
    eventually(lambda: factory.made)
    assert repr(pool) == "<grpcpool.ChannelPool 'orders': 0 of 2 connections open, 1 opening, 0 in flight, 1 waiting>"
    eventually(lambda: factory.made[0].state is grpc.ChannelConnectivity.CONNECTING)
    factory.made[0].set_state(grpc.ChannelConnectivity.READY)
    with waiting.result(LONG):
        assert repr(pool) == "<grpcpool.ChannelPool 'orders': 1 of 2 connections open, 1 in flight, 0 waiting>"
    pool.close()
    assert repr(pool) == "<grpcpool.ChannelPool 'orders': closed, 0 of 2 connections open, 0 in flight, 0 waiting>"


def test_it_is_a_context_manager() -> None:
    """Leaving the block closes the pool, with the configured grace."""
    factory = FakeFactory()
    with ChannelPool(factory) as pool:
        assert isinstance(pool, grpc.Channel)
        pool.acquire().release()
    assert pool.closed
    assert not factory.open


def test_it_has_a_name_and_its_configuration(make_pool: PoolMaker) -> None:
    """A pool without a name gets one of its own; its configuration is what it was given, or the default."""
    one, two = make_pool(FakeFactory()), make_pool(FakeFactory())
    assert one.name != two.name
    assert one.config == PoolConfig()
    assert make_pool(FakeFactory(), mode=Mode.LOOSE).config == PoolConfig(mode=Mode.LOOSE)
    assert make_pool(FakeFactory(), name="orders").name == "orders"


def test_wrong_types_of_arguments_are_refused() -> None:
    """A wrong type of factory, configuration or name raises `TypeError` that says which."""
    with pytest.raises(TypeError, match=r"factory must be callable.*not 'orders:50051'"):
        ChannelPool("orders:50051")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"config must be a PoolConfig"):
        ChannelPool(FakeFactory(), {"max_size": 3})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"name must be a str, not 3"):
        ChannelPool(FakeFactory(), name=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("world", [grpcpool, grpcpool.aio], ids=["threads", "asyncio"])
def test_a_wrong_type_of_target_is_refused(world: Any) -> None:
    """As in gRPC, a wrong target raises at once, not at the first call. Bytes are accepted, and the name is text."""
    with pytest.raises(TypeError, match=r"target must be a str, not None"):
        world.insecure_channel(None, name="orders")
    assert world.insecure_channel(b"localhost:1").name == "localhost:1"


@pytest.mark.parametrize("world", [grpcpool, grpcpool.aio], ids=["threads", "asyncio"])
def test_settings_in_the_place_of_options_are_refused(world: Any) -> None:
    """Where gRPC has its options; the error says how to pass the settings."""
    with pytest.raises(TypeError, match=r"config=PoolConfig"):
        world.insecure_channel("localhost:1", PoolConfig())


@pytest.mark.parametrize("world", [grpcpool, grpcpool.aio], ids=["threads", "asyncio"])
def test_a_wrong_type_of_credentials_is_refused(world: Any) -> None:
    """The error names only the type of what was passed, because the value may be the text of a key."""
    with pytest.raises(TypeError, match=r"credentials must be grpc\.ChannelCredentials, .*, not bytes$"):
        world.secure_channel("localhost:1", b"a key")


def test_a_callable_that_does_not_return_credentials_fails_the_connection() -> None:
    """If `credentials()` returns something else, the connection fails, and the error says why."""
    with (
        grpcpool.secure_channel("localhost:1", lambda: None) as pool,  # type: ignore[arg-type, return-value]
        pytest.raises(PoolOpenError, match=r"credentials\(\) must return grpc\.ChannelCredentials, not NoneType"),
    ):
        pool.open()
