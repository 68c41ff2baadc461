"""How connections are opened: `open()`, the factory, the connect; and all the ways they fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from grpcpool import PoolClosedError, PoolOpenError, PoolTimeoutError
from grpcpool.events import OpenFailed
from grpcpool.testing import FakeChannel as SyncFakeChannel
from grpcpool.testing import ManualClock
from grpcpool.testing.aio import FakeChannel, FakeFactory
from support.aio_pools import pool_over, silent
from support.fakes import ConstantFactory, failing_factory
from support.loops import in_loop, settle
from support.pools import Recorder

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("each_loop")]

State = grpc.ChannelConnectivity


# --- open() ---------------------------------------------------------------------------------------------------------


@in_loop
async def test_open_opens_min_size_connections() -> None:
    """When `open()` returns, `min_size` connections are ready; a second `open()` has nothing left to do."""
    factory = FakeFactory()
    async with pool_over(factory, min_size=3) as pool:
        await pool.open()
        assert (pool.stats().ready, len(factory.made)) == (3, 3)
        await pool.open()
        assert len(factory.made) == 3


@in_loop
async def test_open_without_minimum_does_nothing() -> None:
    """With `min_size=0`, `open()` returns at once and opens nothing."""
    factory = FakeFactory()
    async with pool_over(factory, min_size=0) as pool:
        await pool.open()
        await settle()
    assert factory.calls == 0


@in_loop
async def test_connections_are_opened_side_by_side() -> None:
    """All connections of `open()` are being opened at once, not one after the other."""
    factory = FakeFactory(silent)
    async with pool_over(factory, min_size=3) as pool:
        opening = asyncio.create_task(pool.open())
        await settle()
        assert len(factory.made) == 3
        for channel in factory.made:
            assert not opening.done()
            channel.set_state(State.READY)
            await settle()
        assert opening.done()


@in_loop
async def test_several_may_open_at_once() -> None:
    """Several tasks in `open()` share the same connections, and each returns when these are ready."""
    factory = FakeFactory()
    async with pool_over(factory, min_size=2) as pool:
        await asyncio.gather(*(pool.open() for _ in range(3)))
        assert factory.calls == 2


@in_loop
async def test_a_failed_open_closes_what_it_had_opened(clock: ManualClock) -> None:
    """When one of three connections fails, the other two are closed, and the pool can still be used."""
    factory = FakeFactory(silent)
    async with pool_over(factory, min_size=3) as pool:
        opening = asyncio.create_task(pool.open())
        await settle()
        one, two, three = factory.made
        one.set_state(State.READY)
        two.set_state(State.READY)
        await settle()
        assert pool.stats().ready == 2
        three.set_state(State.TRANSIENT_FAILURE)
        with pytest.raises(PoolOpenError) as caught:
            await opening
        assert caught.value.__cause__ is not None
        await settle()
        assert not factory.open
        assert pool.stats().size == 0
        asking = asyncio.create_task(pool.acquire())
        # The next attempt comes after the backoff.
        clock.advance(1)
        await settle()
        for channel in factory.open:
            channel.set_state(State.READY)
        (await asking).release()


@in_loop
async def test_a_failed_open_may_be_tried_again() -> None:
    """Once the failure is over, `open()` succeeds, without waiting for the backoff."""
    async with pool_over(FakeFactory(fails=1)) as pool:
        with pytest.raises(PoolOpenError):
            await pool.open()
        await pool.open()
        assert pool.stats().ready == 1


@pytest.mark.parametrize("by", ["given", "configured"])
@in_loop
async def test_open_keeps_its_timeout(clock: ManualClock, by: str) -> None:
    """`open(timeout)` raises `PoolOpenError` at its timeout, or at `connect_timeout`; everything is closed again."""
    factory = FakeFactory(silent)
    async with pool_over(factory, min_size=2, connect_timeout=3 if by == "configured" else 10) as pool:
        opening = asyncio.create_task(pool.open(3) if by == "given" else pool.open())
        await settle()
        clock.advance(2.9)
        await settle()
        assert not opening.done()
        clock.advance(0.2)
        with pytest.raises(PoolOpenError, match="not ready within") as caught:
            await opening
        assert "lease" not in str(caught.value)
        await settle()
        assert not factory.open
        assert pool.stats().size == 0


@in_loop
async def test_open_times_out_by_the_real_clock() -> None:
    """`open(timeout)` is kept even if nothing else happens."""
    factory = FakeFactory(silent)
    async with pool_over(factory) as pool:
        with pytest.raises(PoolOpenError):
            await pool.open(timeout=0.01)
        with pytest.raises(PoolOpenError):
            await pool.open(timeout=0)
        await settle()
        assert not factory.open


@pytest.mark.parametrize("timeout", [-1, float("nan"), True, "1"], ids=repr)
@in_loop
async def test_open_refuses_an_invalid_timeout(timeout: float) -> None:  # noqa: ASYNC109 -- a value to be refused
    """A timeout that is negative or not a number raises `ValueError`, and nothing is opened."""
    factory = FakeFactory()
    async with pool_over(factory) as pool:
        with pytest.raises(ValueError, match="timeout = "):
            await pool.open(timeout)
        assert factory.calls == 0


@in_loop
async def test_a_closed_pool_does_not_open() -> None:
    """`open()` of a closed pool raises `PoolClosedError`; so does an `open()` during which the pool is closed."""
    factory = FakeFactory(silent)
    async with pool_over(factory) as pool:
        opening = asyncio.create_task(pool.open())
        await settle()
        await pool.close()
        with pytest.raises(PoolClosedError):
            await opening
        with pytest.raises(PoolClosedError):
            await pool.open()
        assert not factory.open


# --- the factory ----------------------------------------------------------------------------------------------------


@in_loop
async def test_the_factory_is_called_without_the_lock_and_in_the_loop() -> None:
    """A factory may look at the pool, and even request a lease; it runs in the loop, as gRPC's channels require."""
    seen: list[tuple[int, asyncio.AbstractEventLoop]] = []
    asked: list[asyncio.Task[Any]] = []

    def factory() -> FakeChannel:
        seen.append((pool.stats().opening, asyncio.get_running_loop()))
        asked.append(asyncio.create_task(pool.acquire(timeout=0)))
        return FakeChannel()

    async with pool_over(factory, max_size=1) as pool:
        (await pool.acquire()).release()
        with pytest.raises(PoolTimeoutError):
            await asked[0]
    assert seen == [(1, asyncio.get_running_loop())]


@pytest.mark.parametrize("value", [None, 3, "channel", object], ids=lambda it: type(it).__name__)
@in_loop
async def test_a_factory_that_does_not_return_a_channel_fails_the_connection(value: object) -> None:
    """The connection fails without using up `max_size`, and the error says what was returned."""
    factory: Callable[[], Any] = ConstantFactory(value)
    async with pool_over(factory, max_size=1) as pool:
        with pytest.raises(PoolOpenError) as caught:
            await pool.open()
        assert isinstance(caught.value.__cause__, TypeError)
        assert f"{type(value).__name__}, not a grpc.aio.Channel" in str(caught.value.__cause__)
        assert pool.stats().size == 0


@in_loop
async def test_a_factory_of_the_sync_world_fails_with_the_remedy() -> None:
    """A factory that returns a `grpc.Channel` fails the connection; the error names the pool to use."""
    factory: Callable[[], Any] = ConstantFactory(SyncFakeChannel())
    async with pool_over(factory, max_size=1) as pool:
        with pytest.raises(PoolOpenError) as caught:
            await pool.open()
        assert isinstance(caught.value.__cause__, TypeError)
        assert str(caught.value.__cause__) == "this factory returns a grpc.Channel: use grpcpool.ChannelPool"
        assert str(caught.value.__cause__) in str(caught.value)
        assert pool.stats().size == 0


@in_loop
async def test_a_factory_must_not_be_a_coroutine_function() -> None:
    """A coroutine function fails the connection with an error that says what it returned."""

    async def make() -> FakeChannel:
        return FakeChannel()

    made: list[Any] = []

    def factory() -> Any:
        made.append(make())
        return made[-1]

    async with pool_over(factory) as pool:
        with pytest.raises(PoolOpenError) as caught:
            await pool.open()
        assert "coroutine, not a grpc.aio.Channel" in str(caught.value.__cause__)
    for coroutine in made:
        coroutine.close()


@in_loop
async def test_a_factory_that_returns_the_same_channel_again_is_detected() -> None:
    """A channel that is already in the pool is refused, and stays open for its first user."""
    channel = FakeChannel()
    async with pool_over(ConstantFactory(channel), max_size=2) as pool:
        async with pool.acquire():
            waiting = asyncio.create_task(pool.acquire())
            await settle()
            assert pool.stats().open_failures == 1
            waiting.cancel()
        assert [channel.closed] == [0]
    assert [channel.closed] == [1]


@in_loop
async def test_a_factory_that_raises_fails_the_connection() -> None:
    """What it raised is the cause, and a listener is notified."""
    recorder = Recorder()
    async with pool_over(failing_factory, name="orders", listeners=[recorder]) as pool:
        with pytest.raises(PoolOpenError, match=r"'orders'.*last connect error: this factory always fails") as caught:
            await pool.open()
        (failed,) = recorder.of(OpenFailed)
        assert caught.value.__cause__ is failed.error
        assert isinstance(failed.error, ConnectionRefusedError)


@in_loop
async def test_a_factory_that_always_fails_leaves_nothing(clock: ManualClock) -> None:
    """However often it is tried, no connection is counted and no task is left."""
    async with pool_over(failing_factory, max_size=2) as pool:
        for attempt in range(1, 20):
            with pytest.raises(PoolTimeoutError):
                await pool.acquire(timeout=0)
            await settle()
            assert pool.stats().open_failures == attempt
            clock.advance(20)
        await settle()
        assert pool.stats().opening <= 1


@in_loop
async def test_it_is_tried_again_until_it_succeeds(clock: ManualClock) -> None:
    """The first attempt that succeeds serves the waiter; each further attempt comes after the backoff."""
    factory = FakeFactory(fails=5)
    async with pool_over(factory) as pool:
        waiting = asyncio.create_task(pool.acquire(None))
        for _ in range(6):
            await settle()
            clock.advance(20)
        (await waiting).release()
        assert factory.calls == 6


# --- the connect ----------------------------------------------------------------------------------------------------


@in_loop
async def test_a_connection_is_granted_once_it_is_ready() -> None:
    """A connection that is still connecting is not granted."""
    factory = FakeFactory(silent)
    async with pool_over(factory) as pool:
        waiting = asyncio.create_task(pool.acquire())
        await settle()
        (channel,) = factory.made
        assert channel.state is State.CONNECTING
        with pytest.raises(PoolTimeoutError):
            await pool.acquire(timeout=0)
        assert not waiting.done()
        channel.set_state(State.READY)
        (await waiting).release()


@in_loop
async def test_a_connection_that_fails_is_closed() -> None:
    """A transient failure during opening fails the connection at once, even if a call might succeed; it is closed."""
    factory = FakeFactory(silent)
    async with pool_over(factory) as pool:
        opening = asyncio.create_task(pool.open())
        await settle()
        (channel,) = factory.made
        channel.set_state(State.TRANSIENT_FAILURE)
        await settle()
        assert opening.done()
        with pytest.raises(PoolOpenError) as caught:
            await opening
        assert "TRANSIENT_FAILURE" in str(caught.value.__cause__)
        assert channel.closed
        assert channel.subscribers == 0
        assert len(channel.calls) <= 1


@in_loop
async def test_a_connection_that_fails_says_why() -> None:
    """The cause is gRPC's own reason, if it gives one."""

    class Refused(FakeChannel):
        def unary_unary(self, *arguments: Any, **how: Any) -> Any:
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.UNAVAILABLE,
                grpc.aio.Metadata(),
                grpc.aio.Metadata(),
                "refused by the test",
            )

    factory = FakeFactory(lambda: Refused(connects=False))
    async with pool_over(factory) as pool:
        opening = asyncio.create_task(pool.open())
        await settle()
        factory.made[0].set_state(State.TRANSIENT_FAILURE)
        with pytest.raises(PoolOpenError, match="last connect error: refused by the test"):
            await opening


@in_loop
async def test_a_channel_whose_state_cannot_be_read_is_closed() -> None:
    """Whatever goes wrong after the factory has made a channel, the channel is closed."""

    class Mute(FakeChannel):
        def get_state(self, try_to_connect: bool = False) -> State:
            raise RuntimeError("no state here")

    factory = FakeFactory(Mute)
    async with pool_over(factory) as pool:
        with pytest.raises(PoolOpenError):
            await pool.open()
        await settle()
        assert not factory.open


@in_loop
async def test_a_channel_that_fails_to_close_disturbs_nothing() -> None:
    """An error of a channel's `close` is logged, and goes no further."""

    class Sticky(FakeChannel):
        async def close(self, grace: float | None = None) -> None:
            await super().close(grace)
            raise RuntimeError("does not close")

    factory = FakeFactory(Sticky)
    async with pool_over(factory) as pool:
        await pool.open()
    assert not factory.open
