"""A grant, a cancel and a timeout that happen in one turn of the loop, in every order."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from functools import partial

import grpc
import pytest

from grpcpool import PoolClosedError, PoolConfig, PoolOpenError, PoolTimeoutError
from grpcpool.aio import ChannelPool, Lease
from grpcpool.testing import ManualClock
from grpcpool.testing.aio import FakeChannel, FakeFactory
from support.aio_pools import assert_nothing_left, pool_over, silent
from support.loops import in_loop, settle
from support.servers import ECHO
from support.waiting import together

_READY, _DOWN = grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("each_loop")]


def _in_order(*what: Callable[[], object]) -> None:
    for it in what:
        it()


_ORDERS = pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["grant first", "grant last"])


@_ORDERS
@pytest.mark.parametrize("streams", [None, 2])
@in_loop
async def test_a_grant_to_a_cancelled_waiter_goes_to_the_next(order: tuple[int, int], streams: int | None) -> None:
    """With a release and a cancel in the same turn, in either order, one waiter is cancelled and the next is served."""
    async with pool_over(FakeFactory(), max_size=1, max_streams=2) as pool:
        held = await pool.acquire()
        first, second = (asyncio.create_task(pool.acquire(streams=streams)) for _ in range(2))
        await settle()
        acts = (held.release, first.cancel)
        _in_order(*(acts[number] for number in order))
        await settle()
        assert first.cancelled()
        assert pool.stats().in_flight == (streams or 1)
        (await second).release()
        assert pool.stats().in_flight == 0


@_ORDERS
@in_loop
async def test_a_grant_to_a_cancelled_waiter_is_released(order: tuple[int, int]) -> None:
    """If there is no other waiter, the connection is free again."""
    async with pool_over(FakeFactory(), max_size=1) as pool:
        held = await pool.acquire()
        waiting = asyncio.create_task(pool.acquire())
        await settle()
        acts = (held.release, waiting.cancel)
        _in_order(*(acts[number] for number in order))
        await settle()
        assert waiting.cancelled()
        assert pool.stats().in_flight == 0
        (await pool.acquire(timeout=0)).release()


@in_loop
async def test_a_thousand_cancelled_waiters_pass_the_grant_on() -> None:
    """Each is granted in turn what the cancelled one before it did not take; the last waiter gets it."""
    async with pool_over(FakeFactory(), max_size=1, max_waiters=None) as pool:
        held = await pool.acquire()
        waiting = [asyncio.create_task(pool.acquire()) for _ in range(1000)]
        last = asyncio.create_task(pool.acquire())
        await settle()
        held.release()
        for task in waiting:
            task.cancel()
        await settle()
        assert all(task.cancelled() for task in waiting)
        (await last).release()


@_ORDERS
@in_loop
async def test_a_connection_that_is_ready_as_its_waiter_is_cancelled_is_kept(order: tuple[int, int]) -> None:
    """A connection that becomes ready as its waiter is cancelled serves the next request."""
    factory = FakeFactory(silent)
    async with pool_over(factory, max_size=1) as pool:
        waiting = asyncio.create_task(pool.acquire())
        await settle()
        acts: tuple[Callable[[], object], ...] = (lambda: factory.made[0].set_state(_READY), waiting.cancel)
        _in_order(*(acts[number] for number in order))
        await settle()
        assert waiting.cancelled()
        (await pool.acquire(timeout=0)).release()
        assert factory.calls == 1


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
@in_loop
async def test_grant_timeout_and_cancel_in_one_turn(clock: ManualClock, order: tuple[int, ...]) -> None:
    """Whichever comes first decides: the waiter ends once, the grant is passed on, and nothing is lost."""
    async with pool_over(FakeFactory(), max_size=1) as pool:
        held = await pool.acquire()
        waiting = asyncio.create_task(pool.acquire(timeout=1))
        await settle()
        acts: tuple[Callable[[], object], ...] = (held.release, lambda: clock.advance(2), waiting.cancel)
        _in_order(*(acts[number] for number in order))
        await settle()
        assert waiting.cancelled()
        assert pool.stats().in_flight == 0
        (await pool.acquire(timeout=0)).release()


@pytest.mark.parametrize("order", list(itertools.permutations(range(2))), ids=str)
@in_loop
async def test_grant_and_timeout_in_one_turn(clock: ManualClock, order: tuple[int, ...]) -> None:
    """A waiter granted first has its lease; one that timed out first gets nothing, and the connection is free."""
    async with pool_over(FakeFactory(), max_size=1) as pool:
        held = await pool.acquire()
        waiting = asyncio.create_task(pool.acquire(timeout=1))
        await settle()
        acts: tuple[Callable[[], object], ...] = (held.release, lambda: clock.advance(2))
        _in_order(*(acts[number] for number in order))
        if order[0] == 0:
            (await waiting).release()
        else:
            with pytest.raises(PoolTimeoutError):
                await waiting
        assert pool.stats().in_flight == 0


async def _within(scope: asyncio.Timeout, pool: ChannelPool) -> None:
    async with scope, pool.acquire():
        await settle(8)


@_ORDERS
@in_loop
async def test_a_timeout_scope_that_ends_as_the_grant_comes_loses_nothing(order: tuple[int, int]) -> None:
    """When ``asyncio.timeout`` ends in the turn of the grant, in either order, the connection is released."""
    loop = asyncio.get_running_loop()
    async with pool_over(FakeFactory(), max_size=1) as pool:
        for turns in range(4):
            held = await pool.acquire()
            scope = asyncio.timeout(None)
            task = asyncio.create_task(_within(scope, pool))
            await settle()
            acts: tuple[Callable[[], object], ...] = (held.release, partial(scope.reschedule, loop.time()))
            acts[order[0]]()
            await settle(turns)
            acts[order[1]]()
            (ended,) = await asyncio.gather(task, return_exceptions=True)
            assert ended is None or isinstance(ended, TimeoutError)
            assert pool.stats().in_flight == 0
            (await pool.acquire(timeout=0)).release()


@pytest.mark.parametrize("early", [False, True])
@in_loop
async def test_a_wait_for_that_ends_as_the_grant_comes_loses_nothing(early: bool) -> None:
    """``asyncio.wait_for`` returns the lease, or raises `TimeoutError` and the connection is free."""
    loop = asyncio.get_running_loop()
    async with pool_over(FakeFactory(), max_size=1) as pool:
        ends = set()
        for number in range(60):
            held = await pool.acquire()
            waiting = asyncio.create_task(asyncio.wait_for(pool.acquire(), 0.001))
            await settle(2)
            # Close to the timeout; which of the two comes first is left to the loop.
            loop.call_later(0.001 - 0.0002 * early + 0.00001 * (number % 10 - 5), held.release)
            (ended,) = await asyncio.gather(waiting, return_exceptions=True)
            ends.add(type(ended))
            if isinstance(ended, Lease):
                ended.release()
            held.release()
            await settle()
            assert pool.stats().in_flight == 0
            assert pool.stats().waiting == 0
        assert ends <= {Lease, TimeoutError}


@pytest.mark.parametrize("kill", ["cancel", "timeout"])
@in_loop
async def test_a_cancel_while_another_thread_grants(kill: str) -> None:
    """What another thread releases while the waiter is cancelled, or times out, is not lost."""
    async with pool_over(FakeFactory(), max_size=1) as pool:
        loop = asyncio.get_running_loop()
        for _ in range(60):
            held = await pool.acquire()
            timeout = 0.001 if kill == "timeout" else None
            waiting = asyncio.create_task(pool.acquire(timeout))
            await settle(2)
            releaser = loop.run_in_executor(None, held.release)
            await asyncio.sleep(0)
            if kill == "cancel":
                waiting.cancel()
            await releaser
            (ended,) = await asyncio.gather(waiting, return_exceptions=True)
            assert isinstance(ended, Lease | PoolTimeoutError | asyncio.CancelledError)
            if isinstance(ended, Lease):
                ended.release()
            await settle(3)
            assert pool.stats().in_flight == 0
            (await pool.acquire(timeout=0)).release()


@_ORDERS
@in_loop
async def test_a_grant_posted_by_another_thread_to_a_cancelled_waiter_is_passed_on(
    order: tuple[int, int],
) -> None:
    """A grant posted by a thread to a waiter that is cancelled before it arrives goes to the next waiter."""
    async with pool_over(FakeFactory(), max_size=1) as pool:
        held = await pool.acquire()
        first, second = (asyncio.create_task(pool.acquire()) for _ in range(2))
        await settle()
        # The loop does not turn until the thread is finished: the grant is posted, not delivered.
        acts: tuple[Callable[[], object], ...] = (lambda: together(1, lambda _: held.release()), first.cancel)
        _in_order(*(acts[number] for number in order))
        assert pool.stats().waiting == 1
        await settle()
        assert first.cancelled()
        (await second).release()
        assert pool.stats().in_flight == 0


@_ORDERS
@in_loop
async def test_close_and_cancel_in_one_turn(order: tuple[int, int]) -> None:
    """A waiter cancelled in the turn in which the pool is closed ends by one or the other."""
    pool = ChannelPool(FakeFactory(), PoolConfig(max_size=1))
    held = await pool.acquire()
    waiting = asyncio.create_task(pool.acquire())
    await settle()
    closing = pool.close()
    acts: tuple[Callable[[], object], ...] = (lambda: closing.send(None), waiting.cancel)
    _in_order(*(acts[number] for number in order))
    (ended,) = await asyncio.gather(waiting, return_exceptions=True)
    assert isinstance(ended, PoolClosedError | asyncio.CancelledError)
    closing.close()
    await pool.close()
    held.release()
    assert_nothing_left(pool)


@_ORDERS
@in_loop
async def test_an_open_cancelled_as_it_succeeds_leaves_the_pool_usable(order: tuple[int, int]) -> None:
    """The connection is either kept or closed, and a kept one is used."""
    factory = FakeFactory(silent)
    async with pool_over(factory, max_size=1) as pool:
        opening = asyncio.create_task(pool.open())
        await settle()
        acts: tuple[Callable[[], object], ...] = (lambda: factory.made[0].set_state(_READY), opening.cancel)
        _in_order(*(acts[number] for number in order))
        await settle()
        assert opening.done()
        assert len(factory.open) == pool.stats().size
        asking = asyncio.create_task(pool.acquire())
        await settle()
        factory.made[-1].set_state(_READY)
        async with await asking as lease:
            assert await lease.unary_unary(ECHO)(b"a") == b"a"


@in_loop
async def test_one_of_two_opens_may_be_cancelled() -> None:
    """The connections that another `open()` waits for are not closed; cancelling the last one closes them."""
    factory = FakeFactory(silent)
    async with pool_over(factory, min_size=2) as pool:
        one, two = (asyncio.create_task(pool.open()) for _ in range(2))
        await settle()
        one.cancel()
        await settle()
        assert len(factory.open) == 2
        two.cancel()
        await settle()
        assert not factory.open
        assert pool.stats().size == 0


@in_loop
async def test_an_open_that_fails_and_is_cancelled_in_one_turn_ends_once() -> None:
    """It ends by one or the other, and closes what it had opened."""
    factory = FakeFactory(silent)
    async with pool_over(factory, min_size=2) as pool:
        opening = asyncio.create_task(pool.open())
        await settle()
        one, other = factory.made
        one.set_state(_READY)
        await settle()
        other.set_state(_DOWN)
        for _ in range(3):
            await asyncio.sleep(0)
        opening.cancel()
        (ended,) = await asyncio.gather(opening, return_exceptions=True)
        assert isinstance(ended, PoolOpenError | asyncio.CancelledError)
        await settle()
        assert not factory.open


@in_loop
async def test_a_lease_whose_block_is_cancelled_is_released() -> None:
    """Cancelling a block releases its lease, whatever the block waits for."""
    factory = FakeFactory(lambda: FakeChannel(holds_calls=True))
    async with pool_over(factory, max_size=1) as pool:

        async def call() -> None:
            async with pool.acquire() as lease:
                await lease.unary_unary(ECHO)(b"a")

        task = asyncio.create_task(call())
        await settle()
        task.cancel()
        await settle()
        assert factory.made[0].calls[0].cancelled()
        assert pool.stats().in_flight == 0
        (await pool.acquire(timeout=0)).release()
