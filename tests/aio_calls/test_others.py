"""What a call is to others than its caller: tasks of interceptors, other callers of the pool, a closed coroutine."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import grpc
import pytest

import grpcpool.aio
from aio_calls.support_interceptors import append
from grpcpool import PoolConfig
from grpcpool.aio import ChannelPool
from grpcpool.testing.aio import FakeChannel, FakeFactory
from support.aio_ways import KINDS, UNARY, Way, outcome_of
from support.call_server import CallServer
from support.loops import in_loop, settle, until
from support.servers import ECHO

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("each_loop")]

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("WHO", default="nobody")


class _Coalescing:
    """An interceptor that sends equal requests once."""

    def __init__(self) -> None:
        self._sent: dict[bytes, asyncio.Task[Any]] = {}

    async def __call__(self, go_on: Any, details: Any, request: bytes) -> Any:
        async def send() -> Any:
            return await (await go_on(details, request))

        task = self._sent.get(request)
        if task is None:
            task = self._sent[request] = asyncio.create_task(send())
        return await asyncio.shield(task)


@in_loop
async def test_what_a_task_of_an_interceptor_began_goes_on() -> None:
    """A caller that is cancelled ends its own interceptors, and no call that a task of theirs has begun for others."""
    factory = FakeFactory(lambda: FakeChannel(holds_calls=True))
    async with ChannelPool(factory) as pool:
        append(pool, _Coalescing())
        echo: Any = pool.unary_unary(ECHO)
        first, second = (asyncio.ensure_future(outcome_of(echo(b"same"))) for _ in range(2))
        await until(lambda: factory.made and factory.made[0].calls)
        first.cancel()
        await settle()
        (call,) = factory.made[0].calls
        assert not call.done()
        call.finish([b"same"])
        assert b"same" in await second


class _Later:
    """An interceptor that makes another call when the test wants it, in a task of its own."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.later: asyncio.Task[Any]

    async def __call__(self, go_on: Any, details: Any, request: bytes) -> Any:
        async def call_later() -> Any:
            await self.go.wait()
            return await (await go_on(details, request))

        self.later = asyncio.create_task(call_later())
        return await go_on(details, request)


@pytest.mark.parametrize("world", ["pool", "handle"])
@in_loop
async def test_a_task_of_an_interceptor_outlives_the_close(calls: CallServer, world: str) -> None:
    """What it begins after `close()` is refused, as on a channel."""
    make = grpcpool.aio.shared_channel if world == "handle" else grpcpool.aio.insecure_channel
    later = _Later()
    channel = make(calls.target)
    append(channel, later)
    await UNARY.whole(channel, "ok", timeout=20)
    await channel.close()
    later.go.set()
    with pytest.raises(grpc.aio.UsageError):
        await later.later


@pytest.mark.parametrize("way", KINDS, ids=str)
@pytest.mark.parametrize("ended_by", ["deadline", "close"])
@in_loop
async def test_callbacks_of_a_refused_call(way: Way, ended_by: str) -> None:
    """They see the context variables of their call, whatever refuses it, and change them for no other."""
    seen: list[str] = []

    def callback(_: object) -> None:
        seen.append(WHO.get())
        WHO.set("a callback")

    async def begin(name: str) -> Any:
        WHO.set(name)
        call = way.begin(pool, "a", timeout=0.05 if ended_by == "deadline" else None)
        call.add_done_callback(callback)
        return call

    pool = ChannelPool(FakeFactory(), PoolConfig(max_size=1, max_streams=1))
    lease = await pool.acquire()
    # In tasks, with contexts of their own.
    waiting = [await asyncio.create_task(begin(name)) for name in ("one", "two")]
    if ended_by == "close":
        await asyncio.create_task(pool.close(0))
    await until(lambda: len(seen) == 2)
    assert sorted(seen) == ["one", "two"]
    assert all(call.done() for call in waiting)
    lease.release()
    await pool.close()


@pytest.mark.parametrize("metadata", [grpc.aio.Metadata(), None], ids=["empty", "none"])
@in_loop
async def test_empty_metadata_stays_empty(metadata: Any) -> None:
    """What an interceptor adds for one call is not there for the next, as with gRPC."""
    sent: list[int] = []

    async def add(go_on: Any, details: Any, request: bytes) -> Any:
        details.metadata.add("token", "secret")
        sent.append(len(details.metadata))
        return await go_on(details, request)

    async with ChannelPool(FakeFactory()) as pool:
        append(pool, add)
        echo: Any = pool.unary_unary(ECHO)
        for _ in range(3):
            await echo(b"", metadata=metadata)
    assert sent == [1, 1, 1]
    assert not metadata


@pytest.mark.parametrize("waits", [False, True], ids=["running", "waiting"])
@in_loop
async def test_a_closed_coroutine_ends_nothing(waits: bool) -> None:
    """One that is closed, not cancelled, while it awaits a call: others may await the same call."""
    factory = FakeFactory(lambda: FakeChannel(holds_calls=True))
    async with ChannelPool(factory, PoolConfig(max_size=1, max_streams=1)) as pool:
        lease = await pool.acquire()
        if not waits:
            lease.release()
        call: Any = pool.unary_unary(ECHO)(b"")

        async def use() -> Any:
            return await call

        other = asyncio.ensure_future(use())
        await settle()
        closed = use()
        closed.send(None)
        closed.close()
        lease.release()
        await until(lambda: factory.made[0].calls)
        factory.made[0].calls[0].finish([b"answer"])
        assert await other == b"answer"


@pytest.mark.parametrize("ended_by", ["its task", "cancel", "close"])
@in_loop
async def test_a_stream_that_never_began_fails_once(ended_by: str) -> None:
    """Whatever ended it while it waited: as with gRPC, a second read of the same iterator finds its end."""
    pool = ChannelPool(FakeFactory(), PoolConfig(max_size=1, max_streams=1))
    lease = await pool.acquire()
    call: Any = pool.unary_stream(ECHO)(b"")
    responses = aiter(call)
    reading = asyncio.ensure_future(_next(responses))
    await settle()
    if ended_by == "its task":
        reading.cancel()
    elif ended_by == "cancel":
        call.cancel()
    else:
        await pool.close(0)
    assert await outcome_of(reading) in (("cancelled",), ("error", grpc.StatusCode.CANCELLED, "Channel closed!"))
    with pytest.raises(StopAsyncIteration):
        await anext(responses)
    lease.release()
    await pool.close()


async def _next(responses: Any) -> Any:
    return await anext(responses)


@in_loop
async def test_what_the_interceptor_awaited_by_a_task_ends_with_it() -> None:
    """`asyncio.wait_for` may run the continuation in a task of its own, which is over when the call has begun."""
    factory = FakeFactory(lambda: FakeChannel(holds_calls=True))

    async def go_on_in_time(go_on: Any, details: Any, request: bytes) -> Any:
        call = await asyncio.wait_for(asyncio.ensure_future(go_on(details, request)), 20)
        kept.append(call)
        await call.code()
        return call

    kept: list[Any] = []
    async with ChannelPool(factory) as pool:
        append(pool, go_on_in_time)
        outer: Any = pool.unary_unary(ECHO)(b"")
        task = asyncio.ensure_future(outcome_of(outer))
        await until(lambda: kept and factory.made[0].calls)
        await settle()
        task.cancel()
        await until(kept[0].done)
        assert pool.stats().in_flight == 0
