"""Closing a pool: `close()`, its grace, where it may be called, and what is left."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from grpcpool import LeaseReleasedError, Listener, PoolClosedError, PoolConfig
from grpcpool.aio import ChannelPool
from grpcpool.events import Closed, Opened, Opening
from grpcpool.testing import ManualClock
from grpcpool.testing.aio import FakeChannel, FakeFactory
from support.aio_pools import assert_nothing_left, drop, holding, pool_over, silent, timer_of
from support.loops import in_loop, settle
from support.servers import ECHO
from support.waiting import together

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("each_loop")]

State = grpc.ChannelConnectivity


@in_loop
async def test_nothing_is_left() -> None:
    """When `close()` returns, every connection is closed, and no task or timer of the pool is left."""
    factory = FakeFactory()
    pool = ChannelPool(factory, PoolConfig(min_size=3))
    await pool.open()
    (await pool.acquire()).release()
    assert timer_of(pool) is not None
    await pool.close()
    assert pool.closed
    assert not factory.open
    assert pool.stats().closed["pool_closed"] == 3
    assert_nothing_left(pool)
    assert asyncio.all_tasks() == {asyncio.current_task()}


@in_loop
async def test_a_closed_pool_is_not_changed() -> None:
    """`resize()` and `refresh()` do nothing once the pool is closed."""
    factory = FakeFactory()
    pool = ChannelPool(factory, PoolConfig(min_size=1))
    await pool.open()
    await pool.close()
    pool.resize(min_size=3)
    pool.refresh()
    assert pool.config.min_size == 1
    assert factory.calls == 1
    assert_nothing_left(pool)


@in_loop
async def test_a_pool_that_was_never_used_closes() -> None:
    """Closing an unused pool, with or without a grace, does nothing and opens nothing."""
    factory = FakeFactory()
    for grace in (None, 0, 1000):
        pool = ChannelPool(factory)
        await pool.close(grace)
        assert pool.closed
        assert_nothing_left(pool)
    assert factory.calls == 0


@in_loop
async def test_a_block_closes_the_pool() -> None:
    """``async with pool`` yields the pool and closes it at the end, even when the block raises."""
    factory = FakeFactory()
    pool = ChannelPool(factory)

    async def use() -> None:
        async with pool as same:
            assert same is pool
            assert factory.calls == 0
            await pool.open()
            raise KeyError

    with pytest.raises(KeyError):
        await use()
    assert not factory.open
    assert_nothing_left(pool)


@in_loop
async def test_without_grace_what_is_in_flight_is_cancelled() -> None:
    """`close()` cancels calls at once, like gRPC's own; releasing the lease later has no effect."""
    factory = FakeFactory(holding)
    async with pool_over(factory) as pool:
        lease = await pool.acquire()
        of_lease, of_pool = lease.unary_unary(ECHO)(b""), pool.unary_unary(ECHO)(b"")
        await settle()
        await pool.close()
        assert of_lease.cancelled()
        assert of_pool.cancelled()
        assert not factory.open
        assert pool.stats().in_flight == 0
        with pytest.raises(grpc.aio.UsageError):
            lease.unary_unary(ECHO)(b"")
        lease.release()
        with pytest.raises(LeaseReleasedError):
            lease.unary_unary(ECHO)(b"")
        with pytest.raises(grpc.aio.UsageError):
            pool.unary_unary(ECHO)(b"")
        assert pool.stats().in_flight == 0


class _CannotBeCancelled:
    """As gRPC's call whose interceptor has answered itself."""

    def cancel(self) -> None:
        raise AttributeError("'NoneType' object has no attribute 'cancel'")


@in_loop
async def test_what_cannot_be_cancelled_keeps_nothing_else() -> None:
    """The other calls are cancelled, and the connection is closed."""
    factory = FakeFactory(holding)
    async with pool_over(factory, max_size=1) as pool:
        calls = [pool.unary_unary(ECHO)(b"") for _ in range(5)]
        await settle()
        (slot,) = pool._driver.machine.fleet.slots
        stubborn = [_CannotBeCancelled() for _ in range(5)]
        slot.channel.running.update(stubborn)
        await pool.close(0)
        assert all(call.cancelled() for call in calls)
        assert not factory.open


@pytest.mark.parametrize("grace", [0, 1000])
@in_loop
async def test_waiters_are_refused(grace: float) -> None:
    """Waiters for a lease, in `open()` or for a state get their answer at once, even with a grace."""
    async with pool_over(FakeFactory(silent), max_size=1) as pool:
        asking, opening = asyncio.create_task(pool.acquire()), asyncio.create_task(pool.open())
        await settle()
        changing = asyncio.create_task(pool.wait_for_state_change(State.CONNECTING))
        readying = asyncio.create_task(pool.channel_ready())
        await settle()
        closing = asyncio.create_task(pool.close(grace))
        await settle()
        for task in (asking, opening):
            assert isinstance(task.done() and task.exception(), PoolClosedError)
        assert changing.done()
        assert pool.get_state() is State.SHUTDOWN
        with pytest.raises(grpc.aio.UsageError):
            await readying
        await closing


@pytest.mark.parametrize("grace", [0, 1000])
@in_loop
async def test_a_waiting_call_is_cancelled(grace: float) -> None:
    """When the pool is full of leases, a waiting call is cancelled at once."""
    async with pool_over(FakeFactory(), max_size=1) as pool:
        held = await pool.acquire()
        call = pool.unary_unary(ECHO)(b"")
        await settle()
        closing = asyncio.create_task(pool.close(grace))
        await settle()
        assert call.done()
        assert await call.code() is grpc.StatusCode.CANCELLED
        held.release()
        await closing


@in_loop
async def test_a_first_connection_in_the_grace_is_for_calls_only() -> None:
    """A call waiting for the very first connection counts as in flight, as in gRPC; later requests are refused."""
    factory = FakeFactory(silent)
    async with pool_over(factory, max_size=2) as pool:
        call = pool.unary_unary(ECHO)(b"a")
        asking = asyncio.create_task(pool.acquire())
        await settle()
        closing = asyncio.create_task(pool.close(1000))
        await settle()
        for late in (pool.acquire(), pool.acquire(timeout=0, streams=1), pool.open()):
            with pytest.raises(PoolClosedError):
                await asyncio.wait_for(late, 5)
        made = factory.calls
        for channel in factory.made:
            channel.set_state(State.READY)
        # In the turn in which the connection becomes ready.
        with pytest.raises(PoolClosedError):
            await asyncio.wait_for(pool.acquire(), 5)
        assert await call == b"a"
        await asyncio.wait_for(closing, 5)
        assert isinstance(asking.exception(), PoolClosedError)
        assert factory.calls == made


@in_loop
async def test_waiting_for_a_first_connection_ends_with_the_grace() -> None:
    """A call that still waits for the first connection is cancelled at the end of the grace."""
    async with pool_over(FakeFactory(silent)) as pool:
        call = pool.unary_unary(ECHO)(b"a")
        await settle()
        await asyncio.wait_for(pool.close(0.05), 5)
        assert await call.code() is grpc.StatusCode.CANCELLED


@in_loop
async def test_closing_an_unused_pool_ends_waits_for_its_state() -> None:
    """Waits for a state change end even in a pool without connections."""
    pool = ChannelPool(FakeFactory())
    changing = asyncio.create_task(pool.wait_for_state_change(State.IDLE))
    await settle()
    await pool.close()
    await settle()
    assert changing.done()


@in_loop
async def test_with_grace_it_waits_for_leases() -> None:
    """`close(grace)` returns when the last lease is released, long before the grace is over; nothing is left."""
    factory = FakeFactory()
    pool = ChannelPool(factory, PoolConfig(max_streams=2))
    one, two = await pool.acquire(streams=1), await pool.acquire(streams=1)
    closing = asyncio.create_task(pool.close(grace=1000))
    await settle()
    one.release()
    await settle()
    assert await two.unary_unary(ECHO)(b"a") == b"a"
    assert not closing.done()
    two.release()
    await closing
    assert not factory.open
    assert_nothing_left(pool)


@pytest.mark.parametrize("of", ["lease", "pool"])
@in_loop
async def test_with_grace_it_waits_for_calls(of: str) -> None:
    """A call that runs, on a released lease or on the pool, is waited for, too."""
    factory = FakeFactory(holding)
    pool = ChannelPool(factory)
    await pool.open()
    if of == "lease":
        async with pool.acquire() as lease:
            call = lease.unary_unary(ECHO)(b"")
    else:
        call = pool.unary_unary(ECHO)(b"")
    await settle()
    closing = asyncio.create_task(pool.close(grace=1000))
    await settle()
    assert not call.done()
    assert not closing.done()
    factory.made[0].calls[0].finish([b"a"])
    await closing
    assert await call == b"a"
    assert not factory.open
    assert_nothing_left(pool)


@pytest.mark.parametrize(("given", "seconds"), [({}, 7.0), ({"grace": 3.0}, 3.0)])
@in_loop
async def test_after_the_grace_it_cancels(clock: ManualClock, given: dict[str, float], seconds: float) -> None:
    """At the end of the given or configured grace, what still runs is cancelled."""
    factory = FakeFactory(holding)
    async with pool_over(factory, close_grace=7.0) as pool:
        lease = await pool.acquire()
        call = lease.unary_unary(ECHO)(b"")
        closing = asyncio.create_task(pool.close(**given))
        await settle()
        clock.advance(seconds - 0.01)
        await settle()
        assert not call.done()
        clock.advance(0.02)
        await closing
        assert call.cancelled()
        assert not factory.open
        lease.release()


@in_loop
async def test_the_grace_ends_by_the_real_clock() -> None:
    """The grace ends even if the pool is not used meanwhile."""
    async with pool_over(FakeFactory(holding)) as pool:
        async with pool.acquire() as lease:
            call = lease.unary_unary(ECHO)(b"")
        await pool.close(grace=0.02)
        assert call.cancelled()


@in_loop
async def test_a_release_after_close_closes() -> None:
    """During the grace, each connection is closed as soon as its own lease is released or dropped."""
    factory = FakeFactory()
    async with pool_over(factory, max_size=3) as pool:
        one, two = await pool.acquire(), await pool.acquire()
        held = [await pool.acquire()]
        closing = asyncio.create_task(pool.close(grace=1000))
        await settle()
        one.release()
        await settle()
        assert len(factory.open) == 2
        two.discard()
        await settle()
        assert len(factory.open) == 1
        with pytest.warns(ResourceWarning, match="dropped without release"):
            drop(held)
        await closing
        assert not factory.open


@in_loop
async def test_in_the_grace_nothing_is_served() -> None:
    """From the start of `close(grace)` requests are refused, even when a release makes room."""
    async with pool_over(FakeFactory(), max_size=1, max_streams=2) as pool:
        held = await pool.acquire()
        waiting = asyncio.create_task(pool.acquire())
        await settle()
        closing = asyncio.create_task(pool.close(grace=1000))
        with pytest.raises(PoolClosedError):
            await waiting
        with pytest.raises(PoolClosedError):
            await pool.acquire(streams=1)
        with pytest.raises(PoolClosedError):
            await pool.open()
        held.release()
        await closing


@in_loop
async def test_closing_again_has_no_effect() -> None:
    """Each connection is closed once, however often and by however many tasks `close()` is called."""
    factory = FakeFactory()
    async with pool_over(factory, min_size=2) as pool:
        await pool.open()
        await asyncio.gather(*(pool.close() for _ in range(5)))
        await pool.close()
        async with pool:
            pass
        assert [channel.closed for channel in factory.made] == [1, 1]
        assert pool.stats().closed["pool_closed"] == 2


@in_loop
async def test_every_closer_waits_for_the_end() -> None:
    """No `close()` returns while a connection is still being closed by another."""
    go = asyncio.Event()

    class Slow(FakeChannel):
        async def close(self, grace: float | None = None) -> None:
            await go.wait()
            await super().close(grace)

    factory = FakeFactory(Slow)
    async with pool_over(factory) as pool:
        await pool.open()
        closers = [asyncio.create_task(pool.close()) for _ in range(3)]
        await settle()
        assert not any(closer.done() for closer in closers)
        go.set()
        await asyncio.gather(*closers)
        assert not factory.open


@in_loop
async def test_a_later_close_may_shorten_the_grace() -> None:
    """A second `close` with less grace ends the first one's wait; one with more does not extend it."""
    async with pool_over(FakeFactory()) as pool, pool.acquire():
        patient = asyncio.create_task(pool.close(grace=1000))
        await settle()
        more_patient = asyncio.create_task(pool.close(grace=100000))
        await settle()
        assert not patient.done()
        await pool.close(grace=0)
        await asyncio.gather(patient, more_patient)


@pytest.mark.parametrize("grace", [-1, float("nan"), True, "1"], ids=repr)
@in_loop
async def test_an_invalid_grace_is_refused(grace: float) -> None:
    """A grace that is negative or not a number raises `ValueError`, and the pool stays open."""
    async with pool_over(FakeFactory()) as pool:
        with pytest.raises(ValueError, match="grace = "):
            await pool.close(grace)
        assert not pool.closed


@in_loop
async def test_what_is_being_opened_is_closed() -> None:
    """A connection that is still connecting, or has not even begun to, is closed with the pool."""
    for turns in range(6):
        factory = FakeFactory(silent)
        async with pool_over(factory, min_size=2) as pool:
            waiting = asyncio.create_task(pool.acquire())
            await settle(turns)
            await pool.close()
            assert not factory.open
            made = factory.calls
            await settle()
            assert factory.calls == made, "a connection was made after close() had returned"
            with pytest.raises(PoolClosedError):
                await waiting


@in_loop
async def test_what_another_thread_requested_is_not_opened_after_the_close() -> None:
    """A thread may request a connection just before the loop closes the pool, which learns of it only afterwards."""
    for change in ("resize", "refresh"):
        factory = FakeFactory()
        async with pool_over(factory, min_size=1, max_size=3) as pool:
            await pool.open()
            # The loop does not turn until the thread is finished.
            work = (lambda: pool.resize(min_size=2)) if change == "resize" else pool.refresh
            together(1, lambda _, work=work: work())  # type: ignore[misc]
            await pool.close()
            await settle()
            assert factory.calls == 1
            assert asyncio.all_tasks() == {asyncio.current_task()}


@in_loop
async def test_a_close_that_is_cancelled_goes_on_in_the_background() -> None:
    """After the task that called `close()` is cancelled, the pool still closes, and nothing of it is left."""
    factory = FakeFactory()
    pool = ChannelPool(factory, PoolConfig(min_size=2))
    lease = await pool.acquire()
    closing = asyncio.create_task(pool.close(grace=1000))
    await settle()
    closing.cancel()
    await settle()
    assert closing.cancelled()
    assert len(factory.open) == 1
    lease.release()
    await settle()
    assert not factory.open
    assert_nothing_left(pool)


@in_loop
async def test_a_close_may_be_cancelled_and_called_again() -> None:
    """At whatever turn the first call is cancelled, the second one closes the pool."""
    for turns in range(8):
        factory = FakeFactory()
        async with pool_over(factory, min_size=2) as pool:
            await pool.open()
            closing = asyncio.create_task(pool.close())
            await settle(turns)
            closing.cancel()
            await pool.close()
            assert [channel.closed for channel in factory.made] == [1, 1]
            await settle(3)
            assert closing.done()


# --- what is reported -----------------------------------------------------------------------------------------------


@in_loop
async def test_the_closing_is_reported() -> None:
    """When a pool closes, its listeners get an event for each connection, with the number of calls cancelled."""
    events: list[Closed] = []

    class Recording(Listener):
        def closed(self, event: Closed) -> None:
            events.append(event)

    async with pool_over(FakeFactory(), listeners=[Recording()], max_size=1) as pool:
        leases = [await pool.acquire(streams=1) for _ in range(3)]
        await pool.close()
        assert [event.cancelled for event in events] == [3]
        for lease in leases:
            lease.release()


@pytest.mark.parametrize("error", [LookupError, asyncio.CancelledError])
@in_loop
async def test_a_listener_that_raises_disturbs_nothing(error: type[BaseException]) -> None:
    """What a hook raises is logged and counted; the pool goes on, and its user is not taken for cancelled."""

    class Raising(Listener):
        def opening(self, event: Opening) -> None:
            raise error

        def opened(self, event: Opened) -> None:
            raise error

        def closed(self, event: Closed) -> None:
            raise error

    factory = FakeFactory()
    async with pool_over(factory, listeners=[Raising()]) as pool:
        (await pool.acquire()).release()
    assert not factory.open
