"""Where a pool may be closed, what may delay that, and pools closed only by the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import pytest

from grpcpool import Listener, PoolClosedError, PoolConfig
from grpcpool._aio import driver as driver_module
from grpcpool.aio import ChannelPool
from grpcpool.events import Opening
from grpcpool.testing import ManualClock
from grpcpool.testing.aio import FakeChannel, FakeFactory
from support.aio_pools import assert_nothing_left, holding, pool_over, silent, tasks_of_pools
from support.loops import in_loop, in_thread, settle
from support.servers import ECHO

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("each_loop")]

State = grpc.ChannelConnectivity


# --- where it is closed ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("then", ["return", "wait", "raise"])
@in_loop
async def test_a_prime_may_close(then: str) -> None:
    """A prime may close the pool: its own connection is closed too, once, and the task does not wait for itself."""
    factory = FakeFactory()
    pool: ChannelPool
    returned: list[bool] = []

    async def prime(channel: object) -> None:
        await pool.close()
        returned.append(pool.closed)
        if then == "wait":
            await asyncio.Event().wait()
        if then == "raise":
            raise LookupError

    pool = ChannelPool(factory, PoolConfig(prime=prime))
    async with asyncio.timeout(20):
        with pytest.raises(PoolClosedError):
            await pool.acquire()
        await settle()
    assert returned == [True]
    assert [channel.closed for channel in factory.made] == [1]
    assert_nothing_left(pool)


@in_loop
async def test_a_prime_may_close_in_a_task_of_its_own() -> None:
    """A prime that waits for a task that closes the pool ends with its connection."""
    factory = FakeFactory()
    pool: ChannelPool
    closers: list[asyncio.Task[None]] = []

    async def prime(channel: object) -> None:
        closers.append(asyncio.create_task(pool.close()))
        await asyncio.shield(closers[0])

    pool = ChannelPool(factory, PoolConfig(prime=prime))
    async with asyncio.timeout(20):
        with pytest.raises(PoolClosedError):
            await pool.acquire()
        await closers[0]
    assert not factory.open
    assert_nothing_left(pool)


class Closing(Listener):
    """Closes the pool on one kind of event. Hooks are not coroutines, so it starts a task."""

    pool: ChannelPool

    def __init__(self, when: str) -> None:
        """Closes the pool in the hook called `when`."""
        setattr(self, when, self._close)
        self.closers: list[asyncio.Task[None]] = []

    def _close(self, event: object) -> None:
        self.closers.append(asyncio.get_running_loop().create_task(self.pool.close()))


@pytest.mark.parametrize("when", ["opening", "opened", "granted", "timed_out", "closed"])
@in_loop
async def test_a_listener_may_close(clock: ManualClock, when: str) -> None:
    """Whatever the event, the task that a hook starts closes the pool."""
    listener = Closing(when)
    factory = FakeFactory()
    pool = ChannelPool(factory, PoolConfig(max_size=1), listeners=[listener])
    listener.pool = pool
    asking = [asyncio.create_task(pool.acquire(timeout=1)) for _ in range(2)]
    await settle()
    clock.advance(2)
    await settle()
    if when == "closed":
        await pool.close()
    await asyncio.gather(*asking, return_exceptions=True)
    assert listener.closers
    await asyncio.gather(*listener.closers)
    for task in asking:
        if task.exception() is None:
            task.result().release()
    assert pool.closed
    assert not factory.open
    assert_nothing_left(pool)


@in_loop
async def test_a_listener_may_cancel_the_opening_of_a_connection() -> None:
    """A hook may change the bounds so that what is about to be opened is no longer wanted: it is not opened."""

    class Shrinking(Listener):
        pool: ChannelPool

        def opening(self, event: Opening) -> None:
            self.pool.resize(min_size=0, max_size=1)

    listener = Shrinking()
    factory = FakeFactory()
    async with pool_over(factory, min_size=2, max_size=2, listeners=[listener]) as pool:
        listener.pool = pool
        await pool.open()
        await settle()
        assert len(factory.open) == pool.stats().size == 1
        assert not tasks_of_pools()


# --- what delays it -------------------------------------------------------------------------------------------------


@in_loop
async def test_a_prime_that_does_not_end_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """`close()` does not wait without limit for a prime that resists cancellation; its channel is closed."""
    monkeypatch.setattr(driver_module, "_JOIN_TIMEOUT", 0.01)
    go = asyncio.Event()

    async def prime(channel: object) -> None:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    factory = FakeFactory()
    pool = ChannelPool(factory, PoolConfig(prime=prime))
    asking = asyncio.create_task(pool.acquire())
    await settle()
    with pytest.warns(ResourceWarning, match="still runs"):
        await pool.close()
    assert not factory.open
    with pytest.raises(PoolClosedError):
        await asking
    go.set()
    await settle()
    assert_nothing_left(pool)


@in_loop
async def test_a_channel_that_does_not_close_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """`close()` does not wait without limit for a channel of another implementation that hangs in its own `close`."""
    monkeypatch.setattr(driver_module, "_JOIN_TIMEOUT", 0.01)
    go = asyncio.Event()

    class Hanging(FakeChannel):
        async def close(self, grace: float | None = None) -> None:
            await go.wait()
            await super().close(grace)

    factory = FakeFactory(Hanging)
    pool = ChannelPool(factory)
    await pool.open()
    with pytest.warns(ResourceWarning, match="still runs"):
        await pool.close()
    go.set()
    await settle()
    assert not factory.open


# --- dropped --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["this thread", "another thread"])
@in_loop
async def test_a_dropped_pool_closes_its_connections(where: str) -> None:
    """A pool that is no longer referenced is collected although it was not closed, with all that it had."""
    factory = FakeFactory()
    pools = [ChannelPool(factory, PoolConfig(min_size=3))]
    await pools[0].open()
    gone = weakref.ref(pools[0])

    def drop() -> None:
        pools.clear()
        gc.collect()

    if where == "this thread":
        drop()
    else:
        await in_thread(drop)
    assert gone() is None
    await settle()
    assert not factory.open
    assert not tasks_of_pools()


class _Client:
    """Owns a pool and is its factory."""

    def __init__(self) -> None:
        self.factory = FakeFactory()
        self.pool = ChannelPool(self.make, PoolConfig(prime=self.prime))

    def make(self) -> grpc.aio.Channel:
        return self.factory()

    async def prime(self, channel: grpc.aio.Channel) -> None:
        """Accepts the channel."""


@in_loop
async def test_a_dropped_pool_is_closed_although_its_factory_references_it() -> None:
    """An object that owns a pool and is its factory and prime does not keep it alive once it is dropped."""
    client = _Client()
    await client.pool.open()
    factory, gone = client.factory, weakref.ref(client.pool)
    del client
    gc.collect()
    assert gone() is None
    await settle()
    assert not factory.open
    assert not tasks_of_pools()


@in_loop
async def test_a_pool_dropped_while_it_opens_closes_what_it_opens() -> None:
    """Nothing is left of a connection that was being opened for a pool that is gone."""
    factory = FakeFactory(silent)
    pools = [ChannelPool(factory)]
    with pytest.raises(TimeoutError):
        await pools[0].acquire(timeout=0)
    await settle()
    assert len(factory.open) == 1
    pools.clear()
    gc.collect()
    await settle()
    assert not factory.open
    assert not tasks_of_pools()


@in_loop
async def test_a_dropped_pool_that_was_never_used_is_gone() -> None:
    """There is nothing to close."""
    gone = weakref.ref(ChannelPool(FakeFactory()))
    gc.collect()
    assert gone() is None


@in_loop
async def test_a_lease_keeps_its_pool() -> None:
    """A pool is not collected while one of its leases, or a waiter, exists."""
    factory = FakeFactory()
    lease = await ChannelPool(factory).acquire()
    gc.collect()
    assert await lease.unary_unary(ECHO)(b"a") == b"a"
    lease.release()
    assert len(factory.open) == 1
    del lease
    gc.collect()
    await settle()
    assert not factory.open


@in_loop
async def test_a_waiter_keeps_its_pool() -> None:
    """A pool is not collected while a request waits in it."""
    factory = FakeFactory(silent)
    asking = asyncio.create_task(ChannelPool(factory).acquire())
    await settle()
    gc.collect()
    factory.made[0].set_state(State.READY)
    (await asking).release()
    del asking
    gc.collect()
    await settle()
    assert not factory.open


async def _served(call: Any, channel: FakeChannel) -> None:
    channel.calls[-1].finish([b"a"])
    assert await call == b"a"


async def _cancelled(call: Any, channel: FakeChannel) -> None:
    call.cancel()


async def _dropped(call: Any, channel: FakeChannel) -> None:
    pass


async def _expired(call: Any, channel: FakeChannel) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await call


_Ending = Callable[[Any, FakeChannel], Coroutine[Any, Any, None]]


@pytest.mark.parametrize("ending", [_served, _cancelled, _dropped, _expired])
@in_loop
async def test_calls_that_have_waited_do_not_keep_their_pool(ending: _Ending) -> None:
    """However the wait of a call ended, a pool that is dropped then is closed at once, not at the call's deadline."""
    factory = FakeFactory(holding)
    pools = [ChannelPool(factory, PoolConfig(max_size=1, max_streams=1))]
    gone = weakref.ref(pools[0])
    lease = await pools[0].acquire()
    timeouts = (0.01,) if ending is _expired else (600, 600)
    # A call with one response goes on when it is dropped.
    maker = "unary_stream" if ending is _dropped else "unary_unary"
    made: list[Any] = [getattr(pools[0], maker)(ECHO)(b"a", timeout=timeout) for timeout in timeouts]
    await settle()
    assert pools[0].stats().waiting == len(made)
    if ending is _served:
        lease.release()
    for call in made:
        await settle()
        await ending(call, factory.made[0])
    del call
    made.clear()
    await settle()
    lease.release()
    del lease
    pools.clear()
    gc.collect()
    assert gone() is None
    await settle()
    assert not factory.open
