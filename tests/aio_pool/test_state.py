"""The pool's state as a channel: `get_state`, `wait_for_state_change`, `channel_ready`."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc.aio import AioRpcError

from grpcpool.aio import ChannelPool
from grpcpool.testing import ManualClock
from grpcpool.testing.aio import FakeChannel, FakeFactory, error
from support.aio_pools import pool_over, silent
from support.loops import in_loop, settle, until
from support.servers import ECHO

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("each_loop")]

State = grpc.ChannelConnectivity


@in_loop
async def test_it_is_idle_until_it_is_asked_to_connect() -> None:
    """Asking for the state opens nothing; with `try_to_connect` it does, and returns the state until then."""
    factory = FakeFactory(silent)
    async with pool_over(factory) as pool:
        assert pool.get_state() is State.IDLE
        await settle()
        assert factory.calls == 0
        assert pool.get_state(try_to_connect=True) is State.IDLE
        assert pool.get_state() is State.CONNECTING
        await settle()
        factory.made[0].set_state(State.READY)
        await settle()
        assert pool.get_state() is State.READY
        assert factory.calls == 1


@in_loop
async def test_it_is_ready_while_a_connection_is() -> None:
    """One ready connection is enough; if there is none, the state is that of the others."""
    factory = FakeFactory()
    async with pool_over(factory, min_size=2, max_size=2) as pool:
        await pool.open()
        one, two = factory.made
        one.set_state(State.TRANSIENT_FAILURE)
        await settle()
        assert pool.get_state() is State.READY
        two.set_state(State.TRANSIENT_FAILURE)
        await settle()
        assert pool.get_state() is State.TRANSIENT_FAILURE
        one.set_state(State.READY)
        await settle()
        assert pool.get_state() is State.READY
        await pool.close()
        assert pool.get_state() is State.SHUTDOWN


@in_loop
async def test_a_pool_that_cannot_connect_is_in_transient_failure(clock: ManualClock) -> None:
    """After a failed attempt it is in `TRANSIENT_FAILURE`, until one succeeds."""
    async with pool_over(FakeFactory(fails=1)) as pool:
        pool.get_state(try_to_connect=True)
        await settle()
        assert pool.get_state() is State.TRANSIENT_FAILURE
        clock.advance(20)
        await settle()
        assert pool.get_state() is State.READY


@in_loop
async def test_a_connection_that_ended_is_no_failure_to_connect(clock: ManualClock) -> None:
    """A server closes a connection while a call begins: the pool is idle then, as a channel, and no attempt failed."""

    async def ended(_: bytes) -> bytes:
        raise error(grpc.StatusCode.UNAVAILABLE, "Connection reset")

    factory = FakeFactory(lambda: FakeChannel({ECHO: ended}))
    async with pool_over(factory, max_size=1) as pool:
        await pool.open()
        factory.made[0].set_state(State.IDLE)
        with pytest.raises(AioRpcError):
            await pool.unary_unary(ECHO)(b"")
        assert pool.stats().lost == 1
        assert pool.get_state() is State.IDLE


@in_loop
async def test_waits_end_at_each_change() -> None:
    """From idle to shutdown, each new state of the pool ends the wait for a change from the one before."""
    factory = FakeFactory(silent)
    async with pool_over(factory, max_size=1) as pool:
        seen: list[State] = []

        async def watch() -> None:
            state = pool.get_state()
            while state is not State.SHUTDOWN:
                seen.append(state)
                await pool.wait_for_state_change(state)
                state = pool.get_state()

        watching = asyncio.create_task(watch())
        await settle()
        pool.get_state(try_to_connect=True)
        await settle()
        # The pool is not notified when a connection's state changes; it has to look.
        for state in (State.READY, State.TRANSIENT_FAILURE, State.CONNECTING, State.READY):
            factory.made[0].set_state(state)
            await until(lambda state=state: seen[-1] is state)  # type: ignore[misc]
        await pool.close()
        await asyncio.wait_for(watching, 20)
        assert seen == [
            State.IDLE,
            State.CONNECTING,
            State.READY,
            State.TRANSIENT_FAILURE,
            State.CONNECTING,
            State.READY,
        ]


@in_loop
async def test_a_recovery_ends_the_wait() -> None:
    """A connection that reconnects by itself ends the wait soon, even if no request waits."""
    factory = FakeFactory()
    async with pool_over(factory, max_size=1) as pool:
        await pool.open()
        factory.made[0].set_state(State.TRANSIENT_FAILURE)
        await settle()
        changing = asyncio.create_task(pool.wait_for_state_change(State.TRANSIENT_FAILURE))
        readying = asyncio.create_task(pool.channel_ready())
        await settle()
        assert not changing.done()
        assert not readying.done()
        factory.made[0].set_state(State.READY)
        async with asyncio.timeout(5):
            await changing
            await readying


@in_loop
async def test_a_wait_for_a_past_state_returns_at_once() -> None:
    """A wait for a change from a state that is not the current one returns before the loop turns."""
    async with pool_over(FakeFactory()) as pool:
        with pytest.raises(StopIteration):
            pool.wait_for_state_change(State.READY).send(None)


@in_loop
async def test_a_change_ends_all_waits() -> None:
    """A change ends all waits, and a cancelled wait does not disturb the others."""
    async with pool_over(FakeFactory()) as pool:
        waiting = [asyncio.create_task(pool.wait_for_state_change(State.IDLE)) for _ in range(5)]
        await settle()
        waiting[2].cancel()
        await pool.open()
        await settle()
        assert all(task.done() for task in waiting)


@pytest.mark.parametrize("min_size", [0, 1, 3])
@in_loop
async def test_channel_ready_connects_and_waits(min_size: int) -> None:
    """When it returns a connection is ready, even in a pool that keeps none open; a second call returns at once."""
    factory = FakeFactory(silent)
    async with pool_over(factory, min_size=min_size) as pool:
        readying = asyncio.create_task(pool.channel_ready())
        await settle()
        assert not readying.done()
        assert len(factory.made) == max(min_size, 1)
        factory.made[0].set_state(State.READY)
        await readying
        await pool.channel_ready()
        (await pool.acquire(timeout=0)).release()
        assert len(factory.made) == max(min_size, 1)


@pytest.mark.parametrize("min_size", [0, 1])
@in_loop
async def test_channel_ready_waits_out_failures(min_size: int) -> None:
    """However often dialling fails at first, it returns once a connection is open."""
    factory = FakeFactory(fails=3)
    async with pool_over(factory, min_size=min_size) as pool:
        async with asyncio.timeout(20):
            await pool.channel_ready()
        assert factory.calls == 4


@in_loop
async def test_waiting_for_a_closed_pool_raises() -> None:
    """As with gRPC's own channel, waiting for a state of a closed pool, or for it to be ready, raises `UsageError`."""
    async with pool_over(FakeFactory()) as pool:
        await pool.close()
        assert pool.get_state(try_to_connect=True) is State.SHUTDOWN
        with pytest.raises(grpc.aio.UsageError):
            await pool.wait_for_state_change(State.READY)
        with pytest.raises(grpc.aio.UsageError):
            await pool.wait_for_state_change(State.SHUTDOWN)
        with pytest.raises(grpc.aio.UsageError):
            await pool.channel_ready()


@in_loop
async def test_an_idle_connection_is_made_to_reconnect(clock: ManualClock) -> None:
    """A connection gone idle, as after a server's GOAWAY, is found and made to connect, whether it is used or not."""
    factory = FakeFactory()
    async with pool_over(factory, max_size=1) as pool:
        await pool.open()
        factory.made[0].set_state(State.IDLE)
        for _ in range(5):
            clock.advance(1)
            await settle()
        assert factory.made[0].state is State.READY
        assert pool.get_state() is State.READY
        (await pool.acquire(timeout=0)).release()


@in_loop
async def test_a_connection_that_is_missed_later_is_reconnected_then(clock: ManualClock) -> None:
    """While it is not needed it is left alone; then it is made to connect, before it is replaced."""
    factory = FakeFactory()
    async with pool_over(factory, min_size=2, max_size=2) as pool:
        await pool.open()
        pool.resize(min_size=1)
        factory.made[0].set_state(State.IDLE)
        for _ in range(2):
            clock.advance(0.4)
            await settle()
        assert factory.made[0].state is State.IDLE
        assert pool.stats().lost == 1
        pool.resize(min_size=2)
        for _ in range(3):
            clock.advance(0.3)
            await settle()
        assert pool.stats().ready == 2
        assert factory.calls == 2


@pytest.mark.parametrize("asks", ["channel_ready", "get_state"])
@in_loop
async def test_a_lost_connection_that_nothing_uses_is_made_to_reconnect(clock: ManualClock, asks: str) -> None:
    """It is needed once a user wants the pool to be ready, although the pool keeps no connections open."""
    factory = FakeFactory()
    async with pool_over(factory, min_size=0) as pool:
        await pool.channel_ready()
        factory.made[0].set_state(State.IDLE)
        for _ in range(10):
            clock.advance(1)
            await settle()
        assert pool.stats().lost == 1
        readying = asyncio.create_task(pool.channel_ready())
        if asks == "get_state":
            readying.cancel()
            assert pool.get_state(try_to_connect=True) is State.IDLE
        await settle()
        clock.advance(0.1)
        await settle()
        assert pool.get_state() is State.READY
        if asks == "channel_ready":
            await readying


@in_loop
async def test_a_channel_closed_from_outside_is_not_leased(clock: ManualClock) -> None:
    """A channel that was closed from outside counts as lost while there is another."""
    factory = FakeFactory()
    async with pool_over(factory, min_size=2, max_size=2) as pool:
        await pool.open()
        await factory.made[0].close()
        clock.advance(1)
        await settle()
        assert {it.state for it in pool.stats().channels} == {"ready", "lost"}
        async with pool.acquire(timeout=0) as lease:
            assert lease.get_state() is State.READY


@in_loop
async def test_it_is_a_channel() -> None:
    """`ChannelPool` is a `grpc.aio.Channel`, with every member of it."""
    async with pool_over(FakeFactory()) as pool:
        assert isinstance(pool, grpc.aio.Channel)
        assert not getattr(ChannelPool, "__abstractmethods__", None)
