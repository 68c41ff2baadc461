"""`acquire`: its forms, how long it waits, what it can request, and the order in which waiters are served."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from grpcpool import Listener, PoolClosedError, PoolExhaustedError, PoolTimeoutError
from grpcpool.aio import ChannelPool, Lease
from grpcpool.events import TimedOut
from grpcpool.testing import ManualClock
from grpcpool.testing.aio import FakeChannel, FakeFactory
from support.aio_pools import holding, pool_over, silent
from support.loops import in_loop, settle, until
from support.servers import ECHO

_READY, _DOWN = grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("each_loop")]


def _asking(pool: ChannelPool, *given: Any, **how: Any) -> asyncio.Task[Lease]:
    return asyncio.create_task(pool.acquire(*given, **how))


# --- the forms ------------------------------------------------------------------------------------------------------


async def _in_a_group(pool: ChannelPool) -> Lease:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(pool.acquire())
    return task.result()


async def _in_time(pool: ChannelPool) -> Lease:
    async with asyncio.timeout(20):
        return await pool.acquire()


async def _gathered(pool: ChannelPool) -> Lease:
    (lease,) = await asyncio.gather(pool.acquire())
    return lease


_FORMS: dict[str, Callable[[ChannelPool], Awaitable[Lease]]] = {
    "await": lambda pool: pool.acquire(),
    "create_task": _asking,
    "ensure_future": lambda pool: asyncio.ensure_future(pool.acquire()),
    "gather": _gathered,
    "wait_for": lambda pool: asyncio.wait_for(pool.acquire(), 20),
    "shield": lambda pool: asyncio.shield(pool.acquire()),
    "timeout": _in_time,
    "TaskGroup": _in_a_group,
}


@pytest.mark.parametrize("form", _FORMS.values(), ids=_FORMS)
@in_loop
async def test_it_may_be_awaited_in_every_way(form: Callable[[ChannelPool], Awaitable[Lease]]) -> None:
    """`acquire` returns a coroutine, as far as `asyncio` sees; the lease is held until it is released."""
    async with pool_over(FakeFactory()) as pool:
        for _ in range(2):  # with no connection yet, and with one that is free
            lease = await form(pool)
            assert isinstance(lease, Lease)
            assert pool.stats().in_flight == 1
            assert await lease.unary_unary(ECHO)(b"a") == b"a"
            lease.release()
            assert pool.stats().in_flight == 0


@in_loop
async def test_it_has_its_name_in_the_messages_of_asyncio() -> None:
    """In a `repr`, in that of its task, and in the warning that it was never awaited, the coroutine is `acquire`."""
    async with pool_over(FakeFactory(silent)) as pool:
        acquire = pool.acquire()
        assert "coroutine object ChannelPool.acquire " in repr(acquire)
        task = asyncio.create_task(acquire)
        await settle()
        assert "coro=<ChannelPool.acquire() running at " in repr(task)
        assert [frame.f_code.co_name for frame in task.get_stack()] == ["_acquire"]
        assert not hasattr(acquire, "gi_code")
        task.cancel()
        await asyncio.wait([task])
        acquire = pool.acquire()
        with pytest.warns(RuntimeWarning, match="coroutine 'ChannelPool.acquire' was never awaited"):
            del acquire


@in_loop
async def test_a_block_releases_the_lease() -> None:
    """``async with`` an acquire, an awaited one, or a lease releases at the end."""
    async with pool_over(FakeFactory(), max_size=1) as pool:
        async with pool.acquire() as lease:
            assert pool.stats().in_flight == 1
        assert pool.stats().in_flight == 0
        async with await pool.acquire(timeout=0) as lease:
            assert pool.stats().in_flight == 1
        lease = await pool.acquire(timeout=0)
        async with lease as same:
            assert same is lease
        assert pool.stats().in_flight == 0


@in_loop
async def test_several_requests_may_be_gathered() -> None:
    """Each of several concurrent requests gets a connection of its own."""
    factory = FakeFactory()
    async with pool_over(factory, max_size=3) as pool:
        leases = await asyncio.gather(*(pool.acquire() for _ in range(3)))
        assert (pool.stats().in_flight, len(factory.made)) == (3, 3)
        for lease in leases:
            lease.release()


@in_loop
async def test_with_room_it_does_not_wait() -> None:
    """With room the lease is there before the loop turns, even with no time to wait."""
    factory = FakeFactory()
    async with pool_over(factory, max_size=1) as pool:
        (await pool.acquire()).release()
        acquire = pool.acquire(timeout=0)
        with pytest.raises(StopIteration) as stopped:
            acquire.send(None)
        assert pool.stats().in_flight == 1
        stopped.value.value.release()
    assert factory.calls == 1


@in_loop
async def test_an_acquire_never_awaited_takes_nothing() -> None:
    """It warns as a coroutine does, and neither takes nor opens a connection."""
    factory = FakeFactory()
    async with pool_over(factory, max_size=1) as pool:
        with pytest.warns(RuntimeWarning, match="was never awaited"):
            _forget(pool)
        await settle()
        assert (factory.calls, pool.stats().waiting) == (0, 0)


def _forget(pool: ChannelPool) -> None:
    pool.acquire()
    gc.collect()


@in_loop
async def test_an_acquire_closed_before_it_is_awaited_takes_nothing() -> None:
    """Its `close()`, like a coroutine's, ends it silently."""
    factory = FakeFactory()
    async with pool_over(factory) as pool:
        pool.acquire().close()
        await settle()
        assert factory.calls == 0


@in_loop
async def test_it_is_awaited_once() -> None:
    """Like a coroutine it cannot be awaited again, and trying takes nothing."""
    async with pool_over(FakeFactory()) as pool:
        acquire = pool.acquire()
        (await acquire).release()
        with pytest.raises(RuntimeError, match="already awaited"):
            await acquire
        with pytest.raises(RuntimeError, match="already awaited"):
            async with acquire:
                raise AssertionError("entered")
        assert pool.stats().in_flight == 0


# --- how long to wait -----------------------------------------------------------------------------------------------


@in_loop
async def test_timeout_zero_tries_once() -> None:
    """Without room, `timeout=0` raises `PoolTimeoutError` and leaves no waiter behind."""
    async with pool_over(FakeFactory(), max_size=1) as pool, pool.acquire():
        with pytest.raises(PoolTimeoutError):
            await pool.acquire(timeout=0)
        assert pool.stats().waiting == 0


@in_loop
async def test_timeout_none_waits_without_limit(clock: ManualClock) -> None:
    """`timeout=None` waits past the configured timeout and any other, until there is room."""
    async with pool_over(FakeFactory(), max_size=1, acquire_timeout=1.0) as pool:
        held = await pool.acquire()
        waiting = _asking(pool, None)
        await settle()
        clock.advance(10 * 365 * 86400)
        assert pool.stats().waiting == 1
        held.release()
        (await waiting).release()


@pytest.mark.parametrize(("given", "seconds"), [({}, 30.0), ({"timeout": 2.5}, 2.5)])
@in_loop
async def test_it_waits_for_the_given_or_configured_timeout(
    clock: ManualClock, given: dict[str, Any], seconds: float
) -> None:
    """It waits exactly as long as the given or configured timeout, and then raises."""
    async with pool_over(FakeFactory(), max_size=1) as pool:
        async with pool.acquire():
            waiting = _asking(pool, **given)
            await settle()
            clock.advance(seconds - 0.01)
            assert pool.stats().waiting == 1
            clock.advance(0.02)
            with pytest.raises(PoolTimeoutError):
                await waiting
        assert pool.stats().timeouts == 1


@in_loop
async def test_by_the_real_clock_it_times_out_by_itself() -> None:
    """A timeout is kept even if the pool is not used meanwhile."""
    async with pool_over(FakeFactory(), max_size=1) as pool, pool.acquire():
        with pytest.raises(PoolTimeoutError):
            await pool.acquire(timeout=0.02)


@in_loop
async def test_a_timeout_comes_after_one_whose_listener_raised() -> None:
    """An exception that hooks must not swallow stops no timer of the pool: the next deadlines are kept, too."""

    class Abrupt(Listener):
        def timed_out(self, event: TimedOut) -> None:
            raise GeneratorExit("abrupt listener")

    loop = asyncio.get_running_loop()
    errors: list[Any] = []
    handler = loop.get_exception_handler()
    loop.set_exception_handler(lambda loop, context: errors.append(context["exception"]))
    async with pool_over(FakeFactory(), listeners=[Abrupt()], max_size=1) as pool, pool.acquire():
        waiting = [_asking(pool, seconds) for seconds in (0.02, 0.04, 0.06)]
        for one in waiting:
            with pytest.raises(PoolTimeoutError):
                await asyncio.wait_for(one, 20)
        await until(lambda: len(errors) == len(waiting))
    loop.set_exception_handler(handler)
    assert {type(error) for error in errors} == {GeneratorExit}


_INVALID_TIMEOUTS = [-1, -0.001, float("nan"), float("inf"), True, "1", []]


@pytest.mark.parametrize("timeout", _INVALID_TIMEOUTS, ids=repr)
@in_loop
async def test_an_invalid_timeout_is_refused(timeout: float) -> None:  # noqa: ASYNC109 -- a value to be refused
    """A timeout that is negative, infinite or not a number raises at once, with and without room, and takes nothing."""
    async with pool_over(FakeFactory(), max_size=1) as pool:
        async with pool.acquire():
            with pytest.raises(ValueError, match="timeout = "):
                pool.acquire(timeout)
        with pytest.raises(ValueError, match="timeout = "):
            pool.acquire(timeout)
        assert pool.stats().in_flight == 0


# --- what to request ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streams", [0, -1, 1.0, True, "1", 91], ids=repr)
@in_loop
async def test_an_invalid_number_of_streams_is_refused(streams: int) -> None:
    """`streams` must be from 1 to `max_streams`; anything else raises `ValueError` at once and opens nothing."""
    factory = FakeFactory()
    async with pool_over(factory) as pool:
        with pytest.raises(ValueError, match="streams = ") as caught:
            pool.acquire(streams=streams)
        assert repr(streams) in str(caught.value)
        assert factory.calls == 0


@in_loop
async def test_streams_share_a_connection_up_to_its_limit() -> None:
    """Leases of streams share one connection up to `max_streams`; a request for more than is free waits."""
    factory = FakeFactory()
    async with pool_over(factory, max_size=1, max_streams=4) as pool:
        three, one = await pool.acquire(streams=3), await pool.acquire(streams=1)
        assert (pool.stats().in_flight, factory.calls) == (4, 1)
        waiting = _asking(pool, streams=2)
        await settle()
        one.release()
        assert pool.stats().waiting == 1
        three.release()
        (await waiting).release()
        assert pool.stats().in_flight == 0


@in_loop
async def test_a_whole_connection_is_exclusive() -> None:
    """A whole connection is not leased while a stream of it is, nor a stream while the whole is."""
    async with pool_over(FakeFactory(), max_size=1) as pool:
        for held, asked in ((1, None), (None, 1)):
            async with pool.acquire(streams=held):
                with pytest.raises(PoolTimeoutError):
                    await pool.acquire(timeout=0, streams=asked)


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
