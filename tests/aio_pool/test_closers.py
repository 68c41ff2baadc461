"""Who may close a pool, what may hold that up, and pools that nobody closes but the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import weakref

import grpc
import pytest

from grpcpool import Listener, PoolClosedError, PoolConfig
from grpcpool._aio import driver as driver_module
from grpcpool.aio import ChannelPool
from grpcpool.events import Opening
from grpcpool.testing import ManualClock
from grpcpool.testing.aio import FakeChannel, FakeFactory
from support.aio_pools import assert_nothing_left, pool_over, silent, tasks_of_pools
from support.loops import in_loop, in_thread, settle
from support.servers import ECHO

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("each_loop")]

State = grpc.ChannelConnectivity


# --- who closes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("then", ["return", "wait", "raise"])
@in_loop
async def test_a_prime_may_close(then: str) -> None:
    """A pool that is closed by the task that opens a connection closes that too, once, and nobody waits for himself."""
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
async def test_a_prime_may_close_by_a_task_of_its_own() -> None:
    """A prime that waits for a task that closes the pool is ended with its connection."""
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
    """Has the pool closed when it is told one kind of event. A hook is no coroutine, so it starts a task."""

    pool: ChannelPool

    def __init__(self, when: str) -> None:
        """Closes at `when`."""
        setattr(self, when, self._close)
        self.closers: list[asyncio.Task[None]] = []

    def _close(self, event: object) -> None:
        self.closers.append(asyncio.get_running_loop().create_task(self.pool.close()))


@pytest.mark.parametrize("when", ["opening", "opened", "granted", "timed_out", "closed"])
@in_loop
async def test_a_listener_may_have_the_pool_closed(clock: ManualClock, when: str) -> None:
    """Whichever event it is told, the task that a hook starts closes the pool."""
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
async def test_a_listener_that_has_a_connection_given_up_as_it_is_opened() -> None:
    """A hook may change the bounds so that what is about to be opened is not wanted any more: it is not opened."""

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


# --- what is held up ------------------------------------------------------------------------------------------------


@in_loop
async def test_a_prime_that_does_not_end_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """`close()` does not wait for ever for a prime that does not let itself be cancelled; its channel is closed."""
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
async def test_a_channel_that_does_not_close_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it wait for ever for a channel of another make that hangs in its `close`."""
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
    """A pool that nobody holds any more is collected, although it was not closed, with all that it had."""
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
    """Has a pool, and makes its connections."""

    def __init__(self) -> None:
        self.factory = FakeFactory()
        self.pool = ChannelPool(self.make, PoolConfig(prime=self.prime))

    def make(self) -> grpc.aio.Channel:
        return self.factory()

    async def prime(self, channel: grpc.aio.Channel) -> None:
        """Is content with it."""


@in_loop
async def test_a_dropped_pool_is_closed_although_its_factory_holds_it() -> None:
    """Who drops an object that has a pool, and is its factory and its prime, has dropped the pool."""
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
    """Nothing is left of a connection that was being made for a pool that is gone."""
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
    """There is nothing to be closed."""
    gone = weakref.ref(ChannelPool(FakeFactory()))
    gc.collect()
    assert gone() is None


@in_loop
async def test_a_lease_keeps_its_pool() -> None:
    """A pool is not collected while somebody has a lease of it, or waits for one."""
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
async def test_who_waits_keeps_its_pool() -> None:
    """A pool is not collected while somebody waits for a place of it."""
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
