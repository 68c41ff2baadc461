"""In which order requests are served, what makes room for them, and how many may wait."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable

import pytest

from aio_pool.test_acquire import _DOWN, _READY, _asking
from grpcpool import PoolClosedError, PoolExhaustedError, PoolTimeoutError
from grpcpool.aio import ChannelPool, Lease
from grpcpool.testing import ManualClock
from grpcpool.testing.aio import FakeChannel, FakeFactory
from support.aio_pools import holding, pool_over, silent
from support.loops import in_loop, settle
from support.servers import ECHO

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("each_loop")]


# --- the order ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streams", [None, 1])
@in_loop
async def test_first_come_first_served(streams: int | None) -> None:
    """Waiters are served in order of arrival, even when some between them give up."""
    served: list[int] = []
    async with pool_over(FakeFactory(), max_size=1, max_streams=1) as pool:

        async def use(number: int) -> None:
            async with pool.acquire(streams=streams):
                served.append(number)
                await asyncio.sleep(0)

        held = await pool.acquire()
        tasks = []
        for number in range(20):
            tasks.append(asyncio.create_task(use(number)))
            await asyncio.sleep(0)
        for number in (3, 4, 11, 19):
            tasks[number].cancel()
        held.release()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert served == [number for number in range(20) if number not in (3, 4, 11, 19)]


@in_loop
async def test_a_newcomer_does_not_overtake_a_waiter() -> None:
    """What is released goes to the waiter, even if a newcomer requests it before the waiter's task runs."""
    async with pool_over(FakeFactory(), max_size=1) as pool:
        held = await pool.acquire()
        first = _asking(pool)
        await settle()
        held.release()
        with pytest.raises(PoolTimeoutError):
            await pool.acquire(timeout=0)
        (await first).release()


@in_loop
async def test_a_waiter_for_a_whole_connection_does_not_block_streams() -> None:
    """Equal requests queue among themselves; a stream is granted while another request waits for a whole connection."""
    async with pool_over(FakeFactory(), min_size=2, max_size=2, max_streams=3) as pool:
        await pool.open()
        held = [await pool.acquire(streams=1) for _ in range(2)]
        whole = _asking(pool)
        await settle()
        async with pool.acquire(timeout=0, streams=1):
            pass
        for lease in held:
            lease.release()
        (await whole).release()


async def _release(pool: ChannelPool, held: Lease, factory: FakeFactory) -> None:
    held.release()


async def _discard(pool: ChannelPool, held: Lease, factory: FakeFactory) -> None:
    held.discard()


async def _grow(pool: ChannelPool, held: Lease, factory: FakeFactory) -> None:
    pool.resize(max_size=2)


_FREES = {"release": _release, "discard": _discard, "resize": _grow}


@pytest.mark.parametrize("free", _FREES.values(), ids=_FREES)
@in_loop
async def test_whatever_makes_room_serves_the_head_of_the_queue(
    free: Callable[[ChannelPool, Lease, FakeFactory], Awaitable[None]],
) -> None:
    """A release, a discard and a resize serve the head of the queue, and only the head."""
    factory = FakeFactory()
    async with pool_over(factory, max_size=1) as pool:
        held = await pool.acquire()
        first, second = _asking(pool), _asking(pool)
        await settle()
        await free(pool, held, factory)
        await settle()
        assert (first.done(), second.done()) == (True, False)
        (await first).release()
        (await second).release()
        held.release()


@in_loop
async def test_connections_are_opened_for_waiters_and_serve_them() -> None:
    """One connection for each waiter is opened, all at once; each serves the first in the queue when it is ready."""
    factory = FakeFactory(silent)
    async with pool_over(factory, max_size=2) as pool:
        first, second = _asking(pool), _asking(pool)
        await settle()
        assert len(factory.made) == 2
        factory.made[1].set_state(_READY)
        await settle()
        assert (first.done(), second.done()) == (True, False)
        factory.made[0].set_state(_READY)
        for task in (first, second):
            (await task).release()


@in_loop
async def test_beyond_max_waiters_it_fails_at_once() -> None:
    """When `max_waiters` wait, the next request raises `PoolExhaustedError`, and the others keep waiting."""
    async with pool_over(FakeFactory(), max_size=1, max_waiters=2) as pool:
        held = await pool.acquire()
        waiting = [_asking(pool) for _ in range(2)]
        await settle()
        with pytest.raises(PoolExhaustedError):
            await pool.acquire()
        assert pool.stats().rejected == 1
        held.release()
        for task in waiting:
            (await task).release()


@in_loop
async def test_a_closed_pool_refuses() -> None:
    """After `close()`, `acquire` raises `PoolClosedError`."""
    async with pool_over(FakeFactory()) as pool:
        (await pool.acquire()).release()
        await pool.close()
        with pytest.raises(PoolClosedError):
            await pool.acquire()
        with pytest.raises(PoolClosedError):
            await pool.acquire(timeout=0, streams=1)


@in_loop
async def test_many_at_once_leave_nothing() -> None:
    """Hundreds of tasks that acquire, give up and release in every order never hold more than there is."""
    factory = FakeFactory()
    async with pool_over(factory, max_size=3, max_streams=4, max_waiters=None) as pool:

        async def use(number: int) -> None:
            ask = (None, 1, 3)[number % 3]
            timeout = 0 if number % 7 == 0 else None
            try:
                async with pool.acquire(timeout, streams=ask) as lease:
                    assert await lease.unary_unary(ECHO)(b"a") == b"a"
                    stats = pool.stats()
                    assert all(0 <= it.in_flight <= it.limit for it in stats.channels)
                    assert stats.size <= 3
            except PoolTimeoutError:
                assert timeout == 0

        tasks = [asyncio.create_task(use(number)) for number in range(300)]
        for number in range(0, 300, 11):
            await asyncio.sleep(0)
            tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        stats = pool.stats()
        assert (stats.in_flight, stats.waiting) == (0, 0)
        assert 1 <= stats.ready == len(factory.open) <= 3


_caller = contextvars.ContextVar("_caller", default="unset")


@in_loop
async def test_a_connection_is_not_opened_in_the_context_of_the_request() -> None:
    """Factory and prime see none of the context variables of the task that happened to request first."""
    seen: list[str] = []

    def factory() -> FakeChannel:
        seen.append(_caller.get())
        return holding()

    async def prime(channel: object) -> None:
        seen.append(_caller.get())

    async with pool_over(factory, prime=prime) as pool:
        _caller.set("request")
        (await pool.acquire()).release()
        pool.refresh()
        await settle()
    assert seen == ["unset"] * 4


@in_loop
async def test_the_deadline_of_a_request_is_not_that_of_its_connection(clock: ManualClock) -> None:
    """A connection that was dialled for a waiter that gave up is still opened, for the next."""
    factory = FakeFactory(silent)
    async with pool_over(factory, max_size=1) as pool:
        with pytest.raises(PoolTimeoutError):
            await pool.acquire(timeout=0)
        await settle()
        factory.made[0].set_state(_READY)
        await settle()
        (await pool.acquire(timeout=0)).release()
        assert factory.calls == 1


@in_loop
async def test_a_connection_found_down_is_not_leased() -> None:
    """Before the pool has noticed a loss, a request gets another connection, or waits."""
    factory = FakeFactory()
    async with pool_over(factory, min_size=2, max_size=2) as pool:
        await pool.open()
        dead, alive = factory.made
        dead.set_state(_DOWN)
        async with pool.acquire(timeout=0) as lease:
            await lease.unary_unary(ECHO)(b"a")
            assert (len(alive.calls), len(dead.calls)) == (1, 0)
            with pytest.raises(PoolTimeoutError):
                await pool.acquire(timeout=0)
            waiting = _asking(pool)
            await settle()
            assert pool.stats().waiting == 1
            dead.set_state(_READY)
            (await waiting).release()
        assert pool.stats().in_flight == 0
