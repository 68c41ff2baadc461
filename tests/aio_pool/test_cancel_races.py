"""A grant, a cancel and a timeout that meet in one turn of the loop, in every order."""

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
async def test_a_place_granted_to_who_is_cancelled_goes_to_the_next(
    order: tuple[int, int], streams: int | None
) -> None:
    """A release and a cancel in the same turn, in both orders: the one is cancelled, the next is served."""
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
async def test_a_place_granted_to_who_is_cancelled_comes_back(order: tuple[int, int]) -> None:
    """When nobody else waits, it is free."""
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
async def test_a_thousand_who_are_all_cancelled_pass_the_place_on() -> None:
    """Each in turn is granted what the one before him had no use for, and has none either; the last one gets it."""
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
async def test_a_connection_that_is_ready_when_who_asked_is_cancelled_is_kept(order: tuple[int, int]) -> None:
    """It is not the asker's, and serves the next."""
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
    """Whatever comes first decides: the waiter has one end, the place is passed on, and nothing is lost."""
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
    """Who is granted his place first has it; who is timed out first has none, and the place is free."""
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
    """``asyncio.timeout`` around an acquire, over in the turn of the grant, in both orders: the place comes back."""
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
    """``asyncio.wait_for`` has its lease, or a `TimeoutError` and the place is free: never neither."""
    loop = asyncio.get_running_loop()
    async with pool_over(FakeFactory(), max_size=1) as pool:
        ends = set()
        for number in range(60):
            held = await pool.acquire()
            waiting = asyncio.create_task(asyncio.wait_for(pool.acquire(), 0.001))
            await settle(2)
            # The closer to the timeout, the better; which of the two comes first is left to the loop.
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
    """A place that another thread gives back while the waiter is cancelled, or timed out, is lost to nobody."""
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
async def test_an_answer_on_its_way_from_another_thread_reaches_who_has_gone(order: tuple[int, int]) -> None:
    """A thread has decided the grant, the loop has not heard of it yet, and the waiter is cancelled: it comes back."""
    async with pool_over(FakeFactory(), max_size=1) as pool:
        held = await pool.acquire()
        first, second = (asyncio.create_task(pool.acquire()) for _ in range(2))
        await settle()
        # The loop does not turn until the thread is through: the grant is posted, not delivered.
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
    """A waiter who is cancelled in the turn in which the pool is closed ends by the one or the other."""
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
    """The connection is either kept or closed, and what is kept is used."""
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
async def test_of_two_who_open_one_may_be_cancelled() -> None:
    """The connections that another waits for are not closed; cancelling the last closes them."""
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
    """It ends by the one or by the other, and closes what it had opened."""
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
async def test_a_lease_that_is_cancelled_in_its_block_is_given_back() -> None:
    """Whatever the block waits for: a call that runs, or anything else."""
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
