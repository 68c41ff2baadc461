"""The prime runs on each new connection before it is used: its kinds, and all the ways it may fail."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from grpcpool import PoolConfig, PoolOpenError, PoolTimeoutError
from grpcpool.aio import ChannelPool
from grpcpool.testing import ManualClock
from grpcpool.testing.aio import FakeChannel, FakeFactory
from support.aio_pools import holding, pool_over
from support.loops import in_loop, new_loop, settle

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("each_loop")]

State = grpc.ChannelConnectivity


def _plain(primed: list[Any]) -> Callable[[Any], object]:
    return primed.append


def _coroutine(primed: list[Any]) -> Callable[[Any], object]:
    async def prime(channel: Any) -> None:
        await settle(3)
        primed.append(channel)

    return prime


def _returning_a_future(primed: list[Any]) -> Callable[[Any], object]:
    return lambda channel: asyncio.ensure_future(_coroutine(primed)(channel))  # type: ignore[call-overload]


_PRIMES = pytest.mark.parametrize(
    "kind", [_plain, _coroutine, _returning_a_future], ids=lambda it: it.__name__.strip("_")
)


@_PRIMES
@in_loop
async def test_the_prime_gets_each_new_channel_before_it_is_used(kind: Callable[[list[Any]], Any]) -> None:
    """A plain function, a coroutine function, or one returning an awaitable runs once on each connected channel."""
    primed: list[FakeChannel] = []
    factory = FakeFactory()
    async with (
        pool_over(factory, prime=kind(primed), max_size=2) as pool,
        pool.acquire(),
        pool.acquire(),
    ):
        assert primed == factory.made
        assert [channel.state for channel in primed] == [State.READY, State.READY]


@in_loop
async def test_a_connection_being_primed_is_not_granted() -> None:
    """A connection counts as opening until its prime has ended."""
    go = asyncio.Event()

    async def prime(channel: object) -> None:
        await go.wait()

    async with pool_over(FakeFactory(), prime=prime) as pool:
        waiting = asyncio.create_task(pool.acquire())
        await settle()
        assert (pool.stats().opening, pool.stats().ready) == (1, 0)
        go.set()
        (await waiting).release()


class Interruption(BaseException):
    """Not an `Exception`, like some tools' timeouts."""


@pytest.mark.parametrize("error", [LookupError, asyncio.CancelledError, TimeoutError, Interruption])
@pytest.mark.parametrize("asynchronous", [False, True])
@in_loop
async def test_a_prime_that_raises_fails_the_connection(error: type[BaseException], asynchronous: bool) -> None:
    """The channel is closed at once, and what the prime raised, even its own `CancelledError`, is the cause."""

    async def prime(channel: object) -> None:
        await settle(2)
        raise error

    def plain_prime(channel: object) -> None:
        raise error

    factory = FakeFactory()
    async with pool_over(factory, prime=prime if asynchronous else plain_prime) as pool:
        opening = asyncio.create_task(pool.open())
        await settle()
        assert opening.done()
        with pytest.raises(PoolOpenError) as caught:
            await opening
        assert isinstance(caught.value.__cause__, error)
        await settle()
        assert not factory.open
        assert pool.stats().size == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_prime_that_ends_the_program_ends_it(error: type[BaseException]) -> None:
    """It ends the program as in any task; if the loop goes on, waiters for the connection get the error."""

    def prime(channel: object) -> None:
        raise error

    async def close() -> None:
        with pytest.raises(PoolOpenError) as caught:
            await opening
        assert isinstance(caught.value.__cause__, error)
        await pool.close()

    loop = new_loop()
    try:
        pool = ChannelPool(FakeFactory(), PoolConfig(prime=prime))
        opening = loop.create_task(pool.open())
        with pytest.raises(error):
            loop.run_until_complete(opening)
        loop.set_exception_handler(lambda loop, context: None)
        loop.run_until_complete(close())
    finally:
        loop.close()
    # The loop has already raised the task's error; when the task is collected, it warns that its error was not read.
    gc.collect()


@in_loop
async def test_calls_that_a_prime_leaves_running_are_cancelled_with_the_channel() -> None:
    """The prime gets the factory's own channel; its calls do not count in the pool, and end with the channel."""
    factory = FakeFactory(holding)
    calls: list[Any] = []

    async def prime(channel: Any) -> None:
        calls.append(channel.unary_unary("/shop.Orders/Warm")(b""))

    async with pool_over(factory, prime=prime) as pool:
        await pool.open()
        assert pool.stats().in_flight == 0
        assert len(factory.made[0].calls) == 1
    assert calls[0].cancelled()


@in_loop
async def test_a_prime_that_hangs_is_cancelled(clock: ManualClock) -> None:
    """After `connect_timeout` the attempt has failed, the prime is cancelled, and the channel closed."""
    ends: list[str] = []

    async def prime(channel: object) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    factory = FakeFactory()
    async with pool_over(factory, prime=prime, connect_timeout=10) as pool:
        opening = asyncio.create_task(pool.open())
        await settle()
        clock.advance(10)
        with pytest.raises(PoolOpenError) as caught:
            await opening
        assert "connect_timeout" in str(caught.value.__cause__)
        await settle()
        assert ends == ["cancelled"]
        assert not factory.open
        assert pool.stats().size == 0


@in_loop
async def test_a_prime_that_resists_cancellation_keeps_no_connection(clock: ManualClock) -> None:
    """The channel is closed, the next attempt is made, and what the prime does later has no effect."""
    go = asyncio.Event()

    async def prime(channel: object) -> None:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    factory = FakeFactory()
    async with pool_over(factory, prime=prime, connect_timeout=10) as pool:
        opening = asyncio.create_task(pool.open())
        await settle()
        clock.advance(10)
        with pytest.raises(PoolOpenError):
            await opening
        await settle()
        assert factory.made[0].closed == 1
        go.set()
        await settle()
        await pool.open()
        assert pool.stats().ready == 1
        assert factory.made[0].closed == 1


@in_loop
async def test_while_one_is_primed_another_serves() -> None:
    """A release serves a waiter, whatever the prime of another connection does."""
    go = asyncio.Event()
    primed: list[object] = []

    async def prime(channel: object) -> None:
        primed.append(channel)
        if len(primed) > 1:
            await go.wait()

    async with pool_over(FakeFactory(), max_size=2, prime=prime) as pool:
        held = await pool.acquire()
        waiting = asyncio.create_task(pool.acquire())
        await settle()
        assert pool.stats().opening == 1
        held.release()
        (await waiting).release()


@pytest.mark.parametrize("error", [LookupError, asyncio.CancelledError, TimeoutError, Interruption])
@in_loop
async def test_a_prime_that_raises_when_the_connection_is_back(
    clock: ManualClock, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    """It is logged, even its own `CancelledError`; the connection stays out of service until a prime succeeds."""
    fails = False

    async def prime(channel: object) -> None:
        if fails:
            raise error("as the test wants")

    factory = FakeFactory()
    async with pool_over(factory, name="orders", prime=prime, min_size=1, max_size=1) as pool:
        await pool.open()
        factory.made[0].set_state(State.TRANSIENT_FAILURE)
        clock.advance(1.0)
        assert pool.stats().lost == 1
        fails = True
        factory.made[0].set_state(State.READY)
        clock.advance(0.25)
        await settle()
        assert pool.stats().lost == 1
        assert "connection 1 is back, but prime failed" in caplog.text
        fails = False
        clock.advance(0.25)
        await settle()
        clock.advance(1.0)
        await settle()
        assert pool.stats().ready == 1


@in_loop
async def test_a_prime_may_use_the_pool() -> None:
    """It may look at the pool and lease what is free, but cannot wait for its own connection."""
    seen: list[int] = []
    pool: ChannelPool

    async def prime(channel: object) -> None:
        seen.append(pool.stats().opening)
        with pytest.raises(PoolTimeoutError):
            await pool.acquire(timeout=0)

    async with pool_over(FakeFactory(), prime=prime, max_size=1) as pool:
        await pool.open()
    assert seen == [1]
