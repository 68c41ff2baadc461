"""What the errors say: which pool, how full it is, and what to do about it. The sync pool's errors say the same."""

from __future__ import annotations

import asyncio
import re

import pytest

from grpcpool import LeaseReleasedError, PoolClosedError, PoolExhaustedError, PoolOpenError, PoolTimeoutError
from grpcpool.testing import ManualClock
from grpcpool.testing.aio import FakeFactory
from support.aio_pools import pool_over, silent
from support.fakes import failing_factory
from support.loops import in_loop, settle

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("each_loop")]


@in_loop
async def test_a_timeout_says_how_full_the_pool_is(clock: ManualClock) -> None:
    """The message has the pool's name, its current figures, the time waited, and the remedy."""
    async with pool_over(FakeFactory(), name="orders", max_size=1) as pool, pool.acquire():
        waiting = asyncio.create_task(pool.acquire(timeout=2.5))
        await settle()
        clock.advance(2.5)
        with pytest.raises(PoolTimeoutError) as caught:
            await waiting
    assert str(caught.value) == (
        "pool 'orders': timed out waiting for a place "
        "(asked for a whole connection; 1 of 1 connections open, 1 in flight, 0 waiting, waited 2.500 s); "
        "release leases sooner, raise max_size, or wait longer"
    )
    assert caught.value.__cause__ is None


@in_loop
async def test_a_rejection_says_how_many_wait(clock: ManualClock) -> None:
    """The error of a rejected request has the pool's figures and the remedy, too."""
    async with pool_over(FakeFactory(), name="orders", max_size=1, max_waiters=0) as pool:
        await pool.open()
        async with pool.acquire():
            with pytest.raises(PoolExhaustedError) as caught:
                await pool.acquire()
    assert str(caught.value) == (
        "pool 'orders': the queue is full "
        "(asked for a whole connection; 1 of 1 connections open, 1 in flight, 0 waiting);"
        " shed load, or raise max_size, max_streams or max_waiters"
    )


@in_loop
async def test_a_closed_pool_says_so(clock: ManualClock) -> None:
    """The error of a request to a closed pool has the pool's figures and a remedy, too."""
    async with pool_over(FakeFactory(), name="orders") as pool:
        await pool.close()
        with pytest.raises(PoolClosedError) as caught:
            await pool.acquire()
    assert str(caught.value) == (
        "pool 'orders': the pool is closed (0 of 10 connections open, 0 in flight, 0 waiting); "
        "create a new pool; a closed one cannot be reopened"
    )


@in_loop
async def test_a_timeout_carries_the_connect_error(clock: ManualClock) -> None:
    """A timeout while no connection could be opened has the last connect error as its cause, and in its message."""
    async with pool_over(failing_factory, name="orders") as pool:
        waiting = asyncio.create_task(pool.acquire(timeout=1))
        await settle()
        clock.advance(1)
        with pytest.raises(PoolTimeoutError) as caught:
            await waiting
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)
        assert "; last connect error: this factory always fails; " in str(caught.value)


@in_loop
async def test_a_past_connect_error_is_not_the_cause(clock: ManualClock) -> None:
    """Once connections have been opened again, a timeout has no connect error as its cause."""
    async with pool_over(FakeFactory(fails=1), max_size=1) as pool:
        waiting = asyncio.create_task(pool.acquire())
        await settle()
        clock.advance(1)
        async with await waiting:
            with pytest.raises(PoolTimeoutError) as caught:
                await pool.acquire(timeout=0)
        assert caught.value.__cause__ is None
        assert "connect error" not in str(caught.value)


@in_loop
async def test_a_failed_open_says_why() -> None:
    """`open()` raises `PoolOpenError`, whose cause is what the factory raised."""
    async with pool_over(failing_factory, name="orders") as pool:
        with pytest.raises(PoolOpenError) as caught:
            await pool.open()
    assert str(caught.value).startswith("pool 'orders': no connection could be opened (0 of 10 connections open")
    assert str(caught.value).endswith(
        "; last connect error: this factory always fails; see the cause, check the target and its credentials"
    )


@in_loop
async def test_an_open_that_takes_too_long_does_not_mention_leases(clock: ManualClock) -> None:
    """A timeout of `open(timeout)` mentions connections; it does not advise releasing leases sooner."""
    async with pool_over(FakeFactory(silent), name="orders") as pool:
        opening = asyncio.create_task(pool.open(timeout=0.01))
        await settle()
        clock.advance(1)
        with pytest.raises(PoolOpenError, match="'orders'") as caught:
            await opening
        assert "lease" not in str(caught.value)


@in_loop
async def test_a_released_lease_says_so() -> None:
    """The error of a call after the release has name, figures and remedy."""
    async with pool_over(FakeFactory(), name="orders") as pool:
        lease = await pool.acquire()
        lease.release()
        with pytest.raises(LeaseReleasedError) as caught:
            lease.unary_unary("/a/b")
    assert re.fullmatch(
        r"pool 'orders': the lease has been released \(1 of 10 connections open, 0 in flight, 0 waiting.*\); "
        r"acquire a new one",
        str(caught.value),
    )


@in_loop
async def test_the_repr_is_a_small_dashboard() -> None:
    """The repr shows the pool's name, its connections, and what is in flight and waiting."""
    async with pool_over(FakeFactory(), name="orders", max_size=1) as pool:
        assert repr(pool) == "<grpcpool.aio.ChannelPool 'orders': 0 of 1 connections open, 0 in flight, 0 waiting>"
        async with pool.acquire():
            waiting = asyncio.create_task(pool.acquire(None))
            await settle()
            assert repr(pool) == "<grpcpool.aio.ChannelPool 'orders': 1 of 1 connections open, 1 in flight, 1 waiting>"
            waiting.cancel()
            await settle()
        await pool.close()
        assert repr(pool) == (
            "<grpcpool.aio.ChannelPool 'orders': closed, 0 of 1 connections open, 0 in flight, 0 waiting>"
        )
