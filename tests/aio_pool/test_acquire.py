"""`acquire`: its forms, how long it waits, and what it can request."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from grpcpool import Listener, PoolTimeoutError
from grpcpool.aio import ChannelPool, Lease
from grpcpool.events import TimedOut
from grpcpool.testing import ManualClock
from grpcpool.testing.aio import FakeFactory
from support.aio_pools import pool_over, silent
from support.loops import in_loop, settle, until
from support.servers import ECHO
from support.signals import TimeLimitError

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


@in_loop
async def test_two_signal_handlers_that_raise_cost_no_waiter_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first as a release serves the waiter, the second as the pool repairs that: the loop completes it."""

    def interrupted(*_: object) -> None:
        raise TimeLimitError

    async with pool_over(FakeFactory(), max_size=1) as pool:
        lease = await pool.acquire()
        waiting = _asking(pool, timeout=None)
        await until(lambda: pool.stats().waiting == 1)
        with monkeypatch.context() as patch:
            patch.setattr(pool._driver.machine, "settle", interrupted)
            patch.setattr(pool._driver.machine, "repair", interrupted)
            with pytest.raises(TimeLimitError):
                lease.release()
        (await waiting).release()
        assert pool.stats().in_flight == 0
