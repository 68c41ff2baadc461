"""Each public coroutine, cancelled at each turn of the loop, while opening succeeds, fails, is slow or never ends.

The matrix has each of {ok, error, slow, never} at each await point of opening. Whatever is cancelled, and whenever:
nothing is lost or stuck, nothing is left over, and the pool still works.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import grpc
import pytest

from grpcpool import PoolClosedError, PoolConfig, PoolError
from grpcpool.aio import ChannelPool, Lease
from grpcpool.testing import ManualClock
from grpcpool.testing.aio import FakeChannel, FakeFactory
from support.aio_pools import assert_nothing_left, tasks_of_pools
from support.loops import in_loop, settle
from support.servers import COUNT, ECHO

pytestmark = pytest.mark.timeout(60)

State = grpc.ChannelConnectivity

_MOST_TURNS = 30
"""More turns than any of these operations needs if it ends by itself."""


class Stages(NamedTuple):
    """The outcome of each stage of opening a connection. The factory is a plain function: it returns or raises."""

    factory: str
    connect: str
    prime: str


_OUTCOMES = [
    Stages("ok", "ok", "ok"),
    Stages("error", "ok", "ok"),
    Stages("ok", "error", "ok"),
    Stages("ok", "slow", "ok"),
    Stages("ok", "never", "ok"),
    Stages("ok", "ok", "error"),
    Stages("ok", "ok", "slow"),
    Stages("ok", "ok", "never"),
    Stages("ok", "slow", "error"),
    Stages("ok", "slow", "slow"),
    Stages("ok", "slow", "never"),
]


class Script:
    """A factory and a prime that behave as the stages say, until `heal` is called."""

    def __init__(self, stages: Stages) -> None:
        """Behaves as `stages` say."""
        self._stages = stages
        self.factory = FakeFactory(self._make)

    def heal(self) -> None:
        """Makes everything that begins from now on succeed."""
        self._stages = Stages("ok", "ok", "ok")

    def _make(self) -> FakeChannel:
        if self._stages.factory == "error":
            raise ConnectionRefusedError("the factory fails")
        channel = FakeChannel(connects=self._stages.connect == "ok")
        if self._stages.connect == "slow":
            _later(6, lambda: channel.set_state(State.READY))
        elif self._stages.connect == "error":
            _later(3, lambda: channel.set_state(State.TRANSIENT_FAILURE))
        return channel

    async def prime(self, channel: grpc.aio.Channel) -> None:
        """Succeeds, raises, is slow, or never ends."""
        stage = self._stages.prime
        await settle(1)
        if stage == "error":
            raise LookupError("the prime fails")
        if stage == "slow":
            await settle(5)
        elif stage == "never":
            await asyncio.Event().wait()


def _later(turns: int, work: Callable[[], object]) -> None:
    if turns:
        asyncio.get_running_loop().call_soon(_later, turns - 1, work)
    else:
        work()


# --- what is cancelled ----------------------------------------------------------------------------------------------


async def _acquire(pool: ChannelPool) -> None:
    lease = await pool.acquire()
    lease.release()


async def _acquire_block(pool: ChannelPool) -> None:
    async with pool.acquire(streams=2):
        await settle(3)


async def _acquire_in_time(pool: ChannelPool) -> None:
    lease = await asyncio.wait_for(pool.acquire(), 30)
    lease.release()


async def _open(pool: ChannelPool) -> None:
    await pool.open()


async def _close(pool: ChannelPool) -> None:
    await pool.close()


async def _close_with_grace(pool: ChannelPool) -> None:
    # The grace is for this call, unless the connection is not open yet.
    call = pool.unary_unary(ECHO)(b"a")
    await pool.close(5)
    with contextlib.suppress(grpc.RpcError):
        await call


async def _pool_block(pool: ChannelPool) -> None:
    async with pool:
        await pool.open()
        await settle(3)


async def _channel_ready(pool: ChannelPool) -> None:
    await pool.channel_ready()


async def _wait_for_state_change(pool: ChannelPool) -> None:
    await pool.wait_for_state_change(State.IDLE)
    await pool.wait_for_state_change(State.CONNECTING)


async def _call(pool: ChannelPool) -> None:
    await pool.unary_unary(ECHO)(b"a")


async def _stream(pool: ChannelPool) -> None:
    async for _ in pool.unary_stream(COUNT)(b"a"):
        await settle(2)


async def _call_of_a_lease(pool: ChannelPool) -> None:
    async with pool.acquire() as lease:
        await lease.unary_unary(ECHO)(b"a")


_OPERATIONS = [
    _acquire,
    _acquire_block,
    _acquire_in_time,
    _open,
    _close,
    _close_with_grace,
    _pool_block,
    _channel_ready,
    _wait_for_state_change,
    _call,
    _stream,
    _call_of_a_lease,
]
_every_outcome = pytest.mark.parametrize("stages", _OUTCOMES, ids="-".join)
_every_operation = pytest.mark.parametrize("operation", _OPERATIONS, ids=lambda it: it.__name__.strip("_"))


@_every_outcome
@_every_operation
@in_loop
async def test_a_cancel_at_any_turn_leaves_the_pool_intact(
    clock: ManualClock, operation: Callable[[ChannelPool], Awaitable[None]], stages: Stages
) -> None:
    """At each turn the cancelled task ends at once, a rival is served, nothing stays in flight, and nothing is left."""
    for turns in itertools.count():
        if not await _cancelled_after(turns, clock, operation, Script(stages)) or turns > _MOST_TURNS:
            break


@_every_outcome
@_every_operation
@in_loop
async def test_an_operation_that_is_not_cancelled_ends(
    clock: ManualClock, operation: Callable[[ChannelPool], Awaitable[None]], stages: Stages
) -> None:
    """After recovery or its timeout, an operation that is not cancelled ends, with success or an error."""
    assert not await _cancelled_after(None, clock, operation, Script(stages))


async def _cancelled_after(
    turns: int | None, clock: ManualClock, operation: Callable[[ChannelPool], Awaitable[None]], script: Script
) -> bool:
    """Cancels `operation` after `turns` turns of the loop; says whether it still ran by then."""
    pool = ChannelPool(script.factory, PoolConfig(min_size=1, max_size=2, prime=script.prime, max_streams=2))
    task = asyncio.ensure_future(operation(pool))
    await settle(2 if turns is None else min(turns, 2))
    rival = asyncio.create_task(pool.acquire(None))
    await settle(_MOST_TURNS if turns is None else max(turns - 2, 0))
    ran = turns is not None and not task.done()
    if ran:
        task.cancel()
        await settle()
        assert task.done(), "the cancelled task does not end"
    await _recover(script, clock)
    assert task.done(), "the task does not end"
    with contextlib.suppress(PoolError, grpc.RpcError, grpc.aio.UsageError, asyncio.CancelledError):
        task.result()
    await _check_served(rival, pool)
    await _check_intact(pool)
    await pool.close()
    assert_nothing_left(pool)
    assert not script.factory.open
    assert asyncio.all_tasks() == {asyncio.current_task()}
    return ran


async def _recover(script: Script, clock: ManualClock) -> None:
    await settle()
    script.heal()
    # A hanging attempt fails at `connect_timeout`; the next one comes after the backoff.
    for _ in range(2):
        clock.advance(15)
        await settle()


async def _check_served(rival: asyncio.Task[Lease], pool: ChannelPool) -> None:
    assert rival.done(), f"the rival is stuck: {pool}"
    if not pool.closed:
        rival.result().release()
    else:
        # The pool may have been closed after the rival was served.
        with contextlib.suppress(PoolClosedError):
            rival.result().release()
    await settle()


async def _check_intact(pool: ChannelPool) -> None:
    stats = pool.stats()
    assert (stats.in_flight, stats.waiting, stats.opening) == (0, 0, 0), pool
    if pool.closed:
        assert stats.size == 0
        assert not tasks_of_pools()
        return
    for streams in (None, 1):
        async with pool.acquire(timeout=0, streams=streams) as lease:
            assert await lease.unary_unary(ECHO)(b"b") == b"b"
    assert pool.stats().in_flight == 0
