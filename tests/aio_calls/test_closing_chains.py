"""What `close` and `release` do with calls that are still in interceptors of the pool or the lease."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from aio_calls.support_interceptors import append, awaits, goes_on_twice
from grpcpool import LeaseReleasedError, PoolClosedError, PoolConfig
from grpcpool._aio import driver as driver_module
from grpcpool._grpc import interceptor_chain
from grpcpool._grpc.own_chain import OWN_CHAINS
from grpcpool.aio import ChannelPool
from grpcpool.testing import ManualClock
from grpcpool.testing.aio import FakeChannel, FakeFactory
from support.aio_pools import assert_nothing_left, holding
from support.aio_ways import KINDS, UNARY, Outcome, Way, outcome_of
from support.loops import in_loop, settle

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("each_loop", "_chains")]


@pytest.fixture(params=["gRPC's", "own"])
def _chains(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interceptors are run by gRPC's classes, or by the pool's own."""
    if request.param == "own":
        monkeypatch.setattr(interceptor_chain, "_chains", lambda: OWN_CHAINS)


class _Gate:
    """An interceptor that calls on when it is let through; notes how it ended."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.ended: list[str] = []

    async def __call__(self, go_on: Any, details: Any, request: Any) -> Any:
        try:
            await self.open.wait()
            call = await go_on(details, request)
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise
        self.ended.append("call")
        return call


async def _pool(*intercepts: Any, make: Callable[[], FakeChannel] = FakeChannel) -> ChannelPool:
    pool = ChannelPool(FakeFactory(make), PoolConfig(max_size=1, max_streams=2))
    append(pool, *intercepts)
    await pool.open()
    return pool


async def _begun(way: Way, channel: Any) -> asyncio.Task[Outcome]:
    """A call that is in its interceptor."""
    task = asyncio.create_task(outcome_of(way.whole(channel, "a", timeout=None)))
    await settle()
    assert not task.done()
    return task


@pytest.mark.parametrize("way", KINDS, ids=str)
@in_loop
async def test_without_grace_they_are_cancelled(way: Way) -> None:
    """As with gRPC's own channel; nothing of them is left."""
    gate = _Gate()
    pool = await _pool(gate)
    call = await _begun(way, pool)
    await pool.close()
    assert await call == ("cancelled",)
    assert gate.ended == ["CancelledError"]
    assert_nothing_left(pool)


@pytest.mark.parametrize("way", KINDS, ids=str)
@in_loop
async def test_within_the_grace_they_go_on(clock: ManualClock, way: Way) -> None:
    """`close` waits for them, and they get their place and their answer. New calls and leases are refused meanwhile."""
    gate = _Gate()
    pool = await _pool(gate)
    call = await _begun(way, pool)
    closing = asyncio.create_task(pool.close(5))
    await settle()
    assert pool.closed
    assert not closing.done()
    late = await _begun(way, pool)
    with pytest.raises(PoolClosedError):
        await pool.acquire()
    gate.open.set()
    assert (await call)[0] == "answer"
    assert (await late)[0] is grpc.aio.UsageError
    await closing
    assert gate.ended == ["call", "UsageError"]
    assert_nothing_left(pool)


@pytest.mark.parametrize("way", KINDS, ids=str)
@in_loop
async def test_at_the_end_of_the_grace_they_are_cancelled(clock: ManualClock, way: Way) -> None:
    """Also those that the interceptor has gone on with."""
    gate = _Gate()
    pool = await _pool(awaits, gate, make=holding)
    first = await _begun(way, pool)
    gate.open.set()
    await settle()
    gate.open.clear()
    second = await _begun(way, pool)
    closing = asyncio.create_task(pool.close(5))
    await settle()
    clock.advance(4.9)
    await asyncio.sleep(0.12)
    assert not closing.done()
    clock.advance(0.2)
    await closing
    assert [await first, await second] == [("cancelled",)] * 2
    assert gate.ended == ["call", "CancelledError"]
    assert_nothing_left(pool)


@in_loop
async def test_the_refusal_of_a_waiter_serves_no_other(clock: ManualClock) -> None:
    """While `close` waits for a call in its interceptors, all that wait for leases are refused, and none is served."""
    gate = _Gate()
    pool = await _pool(gate)
    lease = await pool.acquire(streams=1)
    # The second waits for nothing but the first, for which the connection is reserved.
    waiting = [asyncio.create_task(pool.acquire(streams=streams)) for streams in (None, 1)]
    call = await _begun(UNARY, pool)
    closing = asyncio.create_task(pool.close(5))
    await settle()
    assert (pool.stats().in_flight, pool.stats().waiting) == (1, 0)
    for each in waiting:
        with pytest.raises(PoolClosedError):
            await each
    lease.release()
    gate.open.set()
    assert (await call)[0] == "answer"
    await closing
    assert_nothing_left(pool)


@in_loop
async def test_a_close_without_grace_ends_one_with_grace(clock: ManualClock) -> None:
    """The second close cancels the calls that the first one waits for."""
    gate = _Gate()
    pool = await _pool(gate)
    call = await _begun(UNARY, pool)
    first = asyncio.create_task(pool.close(500))
    await settle()
    await pool.close(0)
    assert await call == ("cancelled",)
    await first
    assert_nothing_left(pool)


@in_loop
async def test_an_interceptor_that_calls_twice(clock: ManualClock) -> None:
    """An interceptor that repeats its call may do so within the grace."""
    gate = _Gate()
    pool = await _pool(goes_on_twice, gate, make=holding)
    call = await _begun(UNARY, pool)
    closing = asyncio.create_task(pool.close(500))
    gate.open.set()
    await settle()
    channel: Any = next(iter(pool._driver.machine.fleet.slots)).channel.channel
    channel.calls[-1].fail(grpc.StatusCode.ABORTED)
    await settle()
    channel.calls[-1].finish([b"ok"])
    assert await call == ("answer", b"ok")
    await closing
    assert_nothing_left(pool)


@pytest.mark.parametrize("grace", [0, 500])
@in_loop
async def test_an_interceptor_may_close_the_pool(grace: float) -> None:
    """It does not wait for itself, and is not cancelled; its call comes too late."""
    closed: list[bool] = []

    async def closes(go_on: Any, details: Any, request: Any) -> Any:
        await pool.close(grace)
        closed.append(pool.closed)
        return await go_on(details, request)

    pool = await _pool(closes)
    assert (await outcome_of(UNARY.whole(pool)))[0] is grpc.aio.UsageError
    assert closed == [True]
    assert_nothing_left(pool)


@in_loop
async def test_an_interceptor_that_does_not_end_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """`close` does not wait without limit for one that goes on after its cancellation."""
    monkeypatch.setattr(driver_module, "_JOIN_TIMEOUT", 0.01)
    go = asyncio.Event()

    async def stays(go_on: Any, details: Any, request: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            await go.wait()

    pool = await _pool(stays)
    call = await _begun(UNARY, pool)
    with pytest.warns(ResourceWarning, match="an interceptor .* still runs"):
        await pool.close()
    go.set()
    assert await call == ("cancelled",)


# --- leases ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", KINDS, ids=str)
@in_loop
async def test_a_released_lease_keeps_its_place_for_them(way: Way) -> None:
    """Like calls that run: they go on after the release, and the last one frees the place. New calls are refused."""
    gate = _Gate()
    pool = await _pool(gate)
    lease = await pool.acquire()
    call = await _begun(way, lease)
    lease.release()
    assert pool.stats().in_flight == 1
    with pytest.raises(LeaseReleasedError):
        way.begin(lease)
    gate.open.set()
    assert (await call)[0] == "answer"
    await settle()
    assert pool.stats().in_flight == 0
    await pool.close()
    assert_nothing_left(pool)


@in_loop
async def test_a_call_of_a_lease_is_cancelled_with_the_pool(clock: ManualClock) -> None:
    """A call that is in an interceptor of a lease when its pool's grace ends is cancelled."""
    gate = _Gate()
    pool = await _pool(gate)
    lease = await pool.acquire()
    call = await _begun(UNARY, lease)
    lease.release()
    closing = asyncio.create_task(pool.close(5))
    await settle()
    assert not closing.done()
    clock.advance(5.1)
    await closing
    assert await call == ("cancelled",)
    assert_nothing_left(pool)


@in_loop
async def test_a_cancelled_interceptor_ends_its_call() -> None:
    """A call that an interceptor waits for, instead of returning it, ends with the interceptor."""
    pool = await _pool(awaits, make=holding)
    for way in KINDS:
        call = await _begun(way, pool)
        assert pool.stats().in_flight == 1
        call.cancel()
        await asyncio.wait([call])
        await settle()
        assert pool.stats().in_flight == 0
    await pool.close()
    assert_nothing_left(pool)
