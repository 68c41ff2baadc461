"""A lease: a channel for a limited time, released once."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
import pytest

from grpcpool import LeaseReleasedError, PoolTimeoutError
from grpcpool.aio import Lease
from grpcpool.testing import ManualClock
from grpcpool.testing.aio import FakeFactory
from support.aio_pools import drop, holding, pool_over
from support.loops import in_loop, in_thread, settle
from support.servers import CHAT, COLLECT, COUNT, ECHO
from support.waiting import LONG, background

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("each_loop")]

State = grpc.ChannelConnectivity


def _numbers(count: int) -> Iterator[bytes]:
    return (str(i).encode() for i in range(count))


# --- releasing ------------------------------------------------------------------------------------------------------


@in_loop
async def test_later_releases_do_nothing() -> None:
    """After a release, `release`, `close`, `discard` and the end of a block do nothing to the next lease."""
    factory = FakeFactory()
    async with pool_over(factory, max_size=1) as pool:
        async with pool.acquire() as first:
            first.release()
            async with pool.acquire(timeout=0):
                first.release()
                await first.close()
                first.discard()
                async with first:
                    pass
                assert pool.stats().in_flight == 1
                assert not factory.made[0].closed
        assert pool.stats().in_flight == 0


_WAYS: dict[str, Callable[[Lease], Awaitable[None] | None]] = {
    "release": lambda lease: lease.release(),
    "close": lambda lease: lease.close(),
    "close with grace": lambda lease: lease.close(1000),
    "discard": lambda lease: lease.discard(),
    "block": lambda lease: lease.__aexit__(None, None, None),
}
_every_way = pytest.mark.parametrize("way", _WAYS.values(), ids=_WAYS)


@_every_way
@in_loop
async def test_each_way_releases_it(way: Callable[[Lease], Awaitable[None] | None]) -> None:
    """Release, close, discard and the end of the block release the connection at once, and serve the waiter."""
    async with pool_over(FakeFactory(), max_size=1) as pool:
        lease = await pool.acquire()
        waiting = asyncio.create_task(pool.acquire())
        await settle()
        given = way(lease)
        if given is not None:
            await given
        (await waiting).release()
        assert pool.stats().in_flight == 0


@in_loop
async def test_another_thread_may_release() -> None:
    """A release or discard on a thread without a loop serves the waiter in the loop."""
    async with pool_over(FakeFactory(), max_size=1) as pool:
        for end in (Lease.release, Lease.discard):
            lease = await pool.acquire()
            waiting = asyncio.create_task(pool.acquire())
            await settle()
            await in_thread(lambda end=end, lease=lease: end(lease))  # type: ignore[misc]
            (await waiting).release()
        assert pool.stats().in_flight == 0


@in_loop
async def test_leaving_the_block_releases_it_whatever_happens() -> None:
    """An exception in the block is passed on, and the lease is released."""
    async with pool_over(FakeFactory()) as pool:
        with pytest.raises(KeyError):
            async with pool.acquire():
                raise KeyError
        assert pool.stats().in_flight == 0


@in_loop
async def test_discarding_a_whole_connection_closes_it_at_once() -> None:
    """The connection is closed, its calls are cancelled, and the next lease gets a new one."""
    factory = FakeFactory(holding)
    async with pool_over(factory, max_size=1) as pool:
        lease = await pool.acquire()
        call = lease.unary_unary(ECHO)(b"")
        lease.discard()
        lease.release()
        await settle()
        assert factory.made[0].closed
        assert call.cancelled()
        assert (pool.stats().closed["discarded"], pool.stats().in_flight) == (1, 0)
        (await pool.acquire()).release()
        assert len(factory.open) == 1


@in_loop
async def test_discarding_a_share_closes_when_the_others_have_ended() -> None:
    """The connection takes nothing new, and is closed with the last of the leases and calls that share it."""
    factory = FakeFactory()
    async with pool_over(factory, max_size=1, max_streams=3) as pool:
        one, two = await pool.acquire(streams=1), await pool.acquire(streams=1)
        one.discard()
        await settle()
        assert factory.made[0] in factory.open
        assert pool.stats().draining == 1
        async with pool.acquire(streams=1):
            assert len(factory.made) == 2, "the draining connection takes nothing new"
        assert await two.unary_unary(ECHO)(b"a") == b"a"
        two.release()
        await settle()
        assert factory.open == factory.made[1:]
        assert pool.stats().in_flight == 0


@in_loop
async def test_a_discard_with_calls_running_releases_once() -> None:
    """Calls of a discarded share that end later do not release it a second time."""
    factory = FakeFactory(holding)
    async with pool_over(factory, max_size=1, max_streams=3) as pool:
        one, two = await pool.acquire(streams=1), await pool.acquire(streams=2)
        call = one.unary_unary(ECHO)(b"")
        one.discard()
        assert pool.stats().in_flight == 2
        factory.made[0].calls[0].finish([b""])
        await call
        assert pool.stats().in_flight == 2
        two.release()
        assert pool.stats().in_flight == 0


# --- its calls ------------------------------------------------------------------------------------------------------

# The stubs have no type for a multicallable without serializers: channels are `Any` here.
_CALLS: dict[str, Callable[[Any], Any]] = {
    "unary": lambda channel: channel.unary_unary(ECHO)(b""),
    "stream": lambda channel: channel.unary_stream(COUNT)(b"1,0"),
    "collect": lambda channel: channel.stream_unary(COLLECT)(_numbers(2)),
    "collect written": lambda channel: channel.stream_unary(COLLECT)(),
    "chat": lambda channel: channel.stream_stream(CHAT)(_numbers(2)),
    "chat written": lambda channel: channel.stream_stream(CHAT)(),
}
_every_call = pytest.mark.parametrize("call", _CALLS.values(), ids=_CALLS)


@_every_call
@in_loop
async def test_a_call_after_the_release_is_refused(call: Callable[[Any], Any]) -> None:
    """It raises `LeaseReleasedError`, which names the pool, and does not reach the connection."""
    factory = FakeFactory()
    async with pool_over(factory, name="orders") as pool:
        for end in (Lease.release, Lease.discard):
            lease = await pool.acquire()
            end(lease)
            with pytest.raises(LeaseReleasedError, match="'orders'"):
                call(lease)
        assert not any(channel.calls for channel in factory.made)


@in_loop
async def test_a_stub_made_before_the_release_is_refused_after_it() -> None:
    """What was made from the lease while it was held cannot be used after its release; nor can its state be read."""
    async with pool_over(FakeFactory()) as pool:
        async with pool.acquire() as lease:
            echo, count = lease.unary_unary(ECHO), lease.unary_stream(COUNT)
            assert await echo(b"a") == b"a"
        for begin in (echo, count):
            with pytest.raises(LeaseReleasedError):
                begin(b"a")
        with pytest.raises(LeaseReleasedError):
            lease.get_state()
        with pytest.raises(LeaseReleasedError):
            await lease.wait_for_state_change(State.READY)
        with pytest.raises(LeaseReleasedError):
            await lease.channel_ready()


@_every_call
@in_loop
async def test_a_call_running_at_the_release_keeps_the_connection(call: Callable[[Any], Any]) -> None:
    """The connection is not free while the call runs, and free when it ends."""
    factory = FakeFactory(holding)
    async with pool_over(factory, max_size=1) as pool:
        lease = await pool.acquire()
        running = call(lease)
        await settle()
        lease.release()
        assert pool.stats().in_flight == 1
        with pytest.raises(PoolTimeoutError):
            await pool.acquire(timeout=0)
        factory.made[0].calls[0].finish()
        await settle()
        assert pool.stats().in_flight == 0
        assert running.done()
        (await pool.acquire(timeout=0)).release()


@in_loop
async def test_the_last_of_several_calls_frees_the_connection() -> None:
    """Of several calls running at the release, only the end of the last frees the connection, however each ends."""
    factory = FakeFactory(holding)
    async with pool_over(factory, max_size=1) as pool:
        async with pool.acquire() as lease:
            calls = [lease.unary_unary(ECHO)(b"") for _ in range(3)]
        native = factory.made[0].calls
        assert pool.stats().in_flight == 1
        native[0].finish([b""])
        native[1].fail(grpc.StatusCode.UNAVAILABLE)
        await settle()
        assert pool.stats().in_flight == 1
        calls[2].cancel()
        await settle()
        assert pool.stats().in_flight == 0


@in_loop
async def test_a_call_that_ends_before_the_release_frees_nothing() -> None:
    """While the lease is held it keeps its connection, however many calls begin and end."""
    async with pool_over(FakeFactory(), max_size=1) as pool:
        async with pool.acquire() as lease:
            for _ in range(3):
                await lease.unary_unary(ECHO)(b"")
            assert pool.stats().in_flight == 1
        assert pool.stats().in_flight == 0


@_every_call
@in_loop
async def test_a_call_that_does_not_begin_keeps_nothing(call: Callable[[Any], Any]) -> None:
    """When gRPC raises instead of beginning a call, the call does not count as running."""
    factory = FakeFactory()
    async with pool_over(factory, max_size=1) as pool:
        lease = await pool.acquire()
        await factory.made[0].close()
        with pytest.raises(grpc.aio.UsageError):
            call(lease)
        lease.release()
        assert pool.stats().in_flight == 0


# --- dropped --------------------------------------------------------------------------------------------------------


@in_loop
async def test_a_dropped_lease_is_released_with_a_warning() -> None:
    """A lease that is collected unreleased returns to the pool, with a `ResourceWarning` that names the pool."""
    async with pool_over(FakeFactory(), name="orders", max_size=1) as pool:
        held = [await pool.acquire()]
        with pytest.warns(ResourceWarning, match="'orders' was dropped without release"):
            drop(held)
        assert pool.stats().in_flight == 0
        (await pool.acquire(timeout=0)).release()


async def _drop_here(work: Callable[[], None]) -> None:
    work()


@pytest.mark.parametrize("where", ["this thread", "another thread"])
@in_loop
async def test_a_dropped_lease_serves_a_waiter(where: str) -> None:
    """What a collected lease held goes to the waiter, whatever thread collects it, without other use of the pool."""
    async with pool_over(FakeFactory(), max_size=1) as pool:
        held = [await pool.acquire()]
        waiting = asyncio.create_task(pool.acquire())
        await settle()
        with pytest.warns(ResourceWarning, match="was dropped without release"):
            await (_drop_here if where == "this thread" else in_thread)(lambda: drop(held))
        async with asyncio.timeout(20):
            (await waiting).release()


@in_loop
async def test_a_lease_in_a_cycle_collected_by_another_thread_is_released() -> None:
    """The collector may run on a thread that does not use the pool."""

    class Holder:
        me: Holder
        lease: Lease

    async with pool_over(FakeFactory(), max_size=1) as pool:
        gc.disable()
        try:
            holder = Holder()
            holder.me, holder.lease = holder, await pool.acquire()
            del holder
            waiting = asyncio.create_task(pool.acquire())
            await settle()
            assert not waiting.done()
            with pytest.warns(ResourceWarning):
                background(gc.collect).result(LONG)
        finally:
            gc.enable()
        async with asyncio.timeout(20):
            (await waiting).release()


@in_loop
async def test_a_lease_in_the_result_of_a_dropped_task_is_released() -> None:
    """A task that is dropped with its result drops the lease in it."""
    async with pool_over(FakeFactory(), max_size=1) as pool:
        tasks = [asyncio.create_task(pool.acquire())]
        await settle()
        assert tasks[0].done()
        with pytest.warns(ResourceWarning):
            drop(tasks)
        assert pool.stats().in_flight == 0


@in_loop
async def test_a_released_lease_is_collected_silently() -> None:
    """A lease that was released or discarded causes no warning when collected."""
    async with pool_over(FakeFactory()) as pool:
        for end in (Lease.release, Lease.discard):
            lease = await pool.acquire()
            end(lease)
            del lease
            gc.collect()
        assert pool.stats().in_flight == 0


@in_loop
async def test_a_stub_keeps_its_lease() -> None:
    """A stub keeps its lease, which is dropped when the stub is."""
    async with pool_over(FakeFactory()) as pool:
        held = [(await pool.acquire()).unary_unary(ECHO)]
        gc.collect()
        assert await held[0](b"a") == b"a"
        assert pool.stats().in_flight == 1
        with pytest.warns(ResourceWarning):
            drop(held)
        assert pool.stats().in_flight == 0


@in_loop
async def test_a_running_call_keeps_a_dropped_lease() -> None:
    """A dropped lease whose call still runs is not released before the call ends."""
    factory = FakeFactory(holding)
    async with pool_over(factory, max_size=1) as pool:
        calls = [(await pool.acquire()).unary_unary(ECHO)(b"")]
        gc.collect()
        assert pool.stats().in_flight == 1
        with pytest.warns(ResourceWarning):
            await _finish_and_drop(factory, calls)
        assert pool.stats().in_flight == 0


async def _finish_and_drop(factory: FakeFactory, calls: list[Any]) -> None:
    factory.made[0].calls[0].finish([b"a"])
    assert await calls[0] == b"a"
    drop(calls)


# --- being a channel ------------------------------------------------------------------------------------------------


@in_loop
async def test_it_is_a_channel_for_stubs() -> None:
    """A lease is a `grpc.aio.Channel`; serializer, deserializer, and the flag of generated code are passed on."""
    async with pool_over(FakeFactory()) as pool, pool.acquire() as lease:
        assert isinstance(lease, grpc.aio.Channel)
        echo = lease.unary_unary(ECHO, str.encode, bytes.decode, _registered_method=True)
        assert await echo("text") == "text"
        # A different serializer for the same method needs a different multicallable.
        assert await lease.unary_unary(ECHO)(b"bytes") == b"bytes"


@in_loop
async def test_it_reports_the_state_of_its_own_connection() -> None:
    """Its state, and waits for changes of it, are those of the leased connection, not of the pool."""
    factory = FakeFactory()
    async with pool_over(factory, min_size=2, max_size=2) as pool:
        await pool.open()
        async with pool.acquire() as lease:
            (mine,) = [made for made, it in zip(factory.made, pool.stats().channels, strict=True) if it.in_flight]
            assert lease.get_state() is State.READY
            changed = asyncio.create_task(lease.wait_for_state_change(State.READY))
            await settle()
            assert not changed.done()
            mine.set_state(State.TRANSIENT_FAILURE)
            await changed
            assert lease.get_state() is State.TRANSIENT_FAILURE
            assert pool.get_state() is State.READY
            ready = asyncio.create_task(lease.channel_ready())
            await settle()
            assert not ready.done()
            mine.set_state(State.READY)
            await ready


@in_loop
async def test_it_can_make_an_idle_connection_connect() -> None:
    """`get_state(try_to_connect=True)` is passed on to the connection."""
    factory = FakeFactory()
    async with pool_over(factory, max_size=1) as pool, pool.acquire() as lease:
        factory.made[0].set_state(State.IDLE)
        assert lease.get_state() is State.IDLE
        assert lease.get_state(try_to_connect=True) is State.IDLE
        assert lease.get_state() is State.READY


@in_loop
async def test_its_times_are_aware_dates(clock: ManualClock) -> None:
    """`created_at` is when the connection was opened, `used_at` when it was last returned before this lease."""
    async with pool_over(FakeFactory(), max_size=1) as pool:
        async with pool.acquire() as first:
            assert first.created_at.tzinfo is not None
            assert first.used_at.tzinfo is not None
            assert first.used_at == first.created_at
            clock.advance(100)
        clock.advance(10)
        async with pool.acquire() as second:
            clock.advance(1)
            assert (second.used_at - second.created_at).total_seconds() == pytest.approx(100, abs=1)
            assert second.created_at == first.created_at


@in_loop
async def test_after_a_wait_used_at_is_the_last_return(clock: ManualClock) -> None:
    """Even for a lease that was waited for, `used_at` is the return before it."""
    async with pool_over(FakeFactory(), max_size=1) as pool:
        held = await pool.acquire()
        waiting = asyncio.create_task(pool.acquire())
        await settle()
        clock.advance(7)
        held.release()
        async with await waiting as lease:
            assert (lease.used_at - lease.created_at).total_seconds() == pytest.approx(7, abs=1)


@in_loop
async def test_its_repr() -> None:
    """The repr names the pool and the connection, what was leased, and whether it is still held."""
    async with pool_over(FakeFactory(), name="orders") as pool:
        async with pool.acquire() as lease:
            assert repr(lease) == "<grpcpool.aio.Lease of all of channel 1 of pool 'orders': held>"
        assert repr(lease) == "<grpcpool.aio.Lease of all of channel 1 of pool 'orders': released>"
        async with pool.acquire(streams=2) as lease:
            assert repr(lease) == "<grpcpool.aio.Lease of 2 streams of channel 1 of pool 'orders': held>"
