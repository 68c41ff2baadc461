"""Whatever thread drops or cancels a call, what follows happens on the loop of its pool."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from aio_calls.support_interceptors import of_all_kinds, passes
from grpcpool import PoolConfig
from grpcpool._aio.interceptors import add_interceptors
from grpcpool.aio import ChannelPool
from grpcpool.testing.aio import FakeChannel, FakeFactory
from support.aio_pools import assert_nothing_left
from support.aio_ways import END_DROPPED, END_UNREAD, KINDS, STREAM, WAYS, Way
from support.call_server import CallServer
from support.loops import in_loop, in_thread, run, settle, until

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("each_loop")]


class _Noting(FakeChannel):
    """Calls that run until they are cancelled; notes the threads that do it, and those that free the calls."""

    def __init__(self) -> None:
        super().__init__(holds_calls=True)
        self.threads: list[str] = []
        self.freed: list[str] = []

    def admit(self, make: Callable[[], Any]) -> Any:
        call = super().admit(make)
        # Nothing else holds it, as nothing holds gRPC's.
        self.calls.clear()
        call.add_done_callback(lambda _: self.threads.append(threading.current_thread().name))
        weakref.finalize(call, lambda: self.freed.append(threading.current_thread().name)).atexit = False
        return call


class _Cycle:
    """Held by itself alone, once it is dropped."""

    def __init__(self, *held: Any) -> None:
        self.me = self
        self.held = held


_HERE = "MainThread"


async def _pool(*, intercepted: bool, streams: int = 1) -> tuple[ChannelPool, _Noting]:
    factory = FakeFactory(_Noting)
    pool = ChannelPool(factory, PoolConfig(max_size=1, max_streams=streams))
    if intercepted:
        add_interceptors(pool, of_all_kinds(passes))
    await pool.open()
    channel: Any = factory.made[0]
    return pool, channel


def _collect_and_look(pool: ChannelPool) -> None:
    """As a thread that reports metrics may do; on its own thread, even in asyncio's debug mode."""
    gc.collect()
    for _ in range(3):
        pool.stats()


@pytest.mark.usefixtures("_not_collecting")
@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("over", ["pool", "intercepted", "lease"])
@pytest.mark.parametrize("way", END_DROPPED, ids=str)
@in_loop
async def test_a_running_call_collected_by_another_thread(way: Way, over: str, debug: bool) -> None:
    """It is cancelled, freed, and its done callbacks are called on the loop; its place is free then."""
    asyncio.get_running_loop().set_debug(debug)
    pool, channel = await _pool(intercepted=over == "intercepted")
    lease = await pool.acquire() if over == "lease" else None
    call = way.begin(lease or pool, timeout=None)
    if lease is not None:
        lease.release()
    del lease
    await settle()
    called: list[str] = []
    if way.streams_out:
        call.add_done_callback(lambda _: called.append(threading.current_thread().name))
    assert pool.stats().in_flight == 1
    _Cycle(call)
    del call
    await in_thread(lambda: _collect_and_look(pool))
    await settle()
    assert channel.threads == [_HERE]
    assert called == [_HERE] * way.streams_out
    assert pool.stats().in_flight == 0
    gc.collect()
    assert channel.freed == [_HERE]
    await pool.close()
    assert_nothing_left(pool)


@pytest.mark.usefixtures("_not_collecting")
@pytest.mark.parametrize("over", ["pool", "intercepted", "lease"])
@pytest.mark.parametrize("way", END_UNREAD, ids=str)
@in_loop
async def test_a_call_that_goes_on_collected_by_another_thread(way: Way, over: str) -> None:
    """It goes on, and is cancelled and freed on the loop when its pool is closed."""
    pool, channel = await _pool(intercepted=over == "intercepted")
    lease = await pool.acquire() if over == "lease" else None
    call = way.begin(lease or pool, timeout=None)
    if lease is not None:
        lease.release()
    del lease
    await settle()
    _Cycle(call)
    del call
    await in_thread(lambda: _collect_and_look(pool))
    await settle()
    assert channel.threads == []
    assert pool.stats().in_flight == 1
    await pool.close()
    assert channel.threads == [_HERE]
    gc.collect()
    assert channel.freed == [_HERE]
    assert_nothing_left(pool)


@pytest.mark.usefixtures("_not_collecting")
@pytest.mark.parametrize("way", KINDS, ids=str)
@in_loop
async def test_a_waiting_call_collected_by_another_thread(way: Way) -> None:
    """A stream leaves the queue, and its done callbacks are called on the loop. Others begin when it is their turn."""
    pool, channel = await _pool(intercepted=False)
    lease = await pool.acquire()
    call = way.begin(pool, timeout=None)
    called: list[str] = []
    if way.streams_out:
        call.add_done_callback(lambda _: called.append(threading.current_thread().name))
    _Cycle(call)
    del call
    await in_thread(lambda: _collect_and_look(pool))
    await settle()
    assert called == [_HERE] * way.streams_out
    assert pool.stats().waiting == way.ends_unread
    lease.release()
    del lease
    assert pool.stats().in_flight == way.ends_unread
    await pool.close()
    assert channel.threads == [_HERE] * way.ends_unread


@pytest.mark.usefixtures("_not_collecting")
@pytest.mark.parametrize("intercepted", [False, True])
@in_loop
async def test_an_iterator_collected_by_another_thread(intercepted: bool) -> None:
    """A stream that is being iterated is cancelled on the loop."""
    pool, channel = await _pool(intercepted=intercepted)
    responses = aiter(STREAM.begin(pool, timeout=None))
    reading = asyncio.ensure_future(anext(responses))
    await settle()
    reading.cancel()
    await asyncio.wait([reading])
    _Cycle(responses, reading)
    del responses, reading
    await in_thread(lambda: _collect_and_look(pool))
    await settle()
    assert channel.threads == [_HERE]
    assert pool.stats().in_flight == 0
    await pool.close()


@pytest.mark.usefixtures("_not_collecting")
@pytest.mark.parametrize("way", [KINDS[0], KINDS[2]], ids=str)
@in_loop
async def test_a_call_in_a_coroutine_collected_by_another_thread(way: Way) -> None:
    """A coroutine that awaits a call and is collected does not end the call, as with gRPC."""
    pool, channel = await _pool(intercepted=False)
    work: Any = way.whole(pool, timeout=None)
    work.send(None)
    await settle()
    _Cycle(work)
    del work
    await in_thread(lambda: _collect_and_look(pool))
    await settle()
    assert channel.threads == []
    await pool.close()
    assert channel.threads == [_HERE]


@pytest.mark.usefixtures("_not_collecting")
@in_loop
async def test_an_acquire_collected_by_another_thread() -> None:
    """A coroutine that waits for a lease leaves the queue when it is collected, also while the pool's lock is held."""
    pool, _ = await _pool(intercepted=False)
    lease = await pool.acquire()
    waiting = pool.acquire()
    waiting.send(None)
    assert pool.stats().waiting == 1
    _Cycle(waiting)
    del waiting

    def collect() -> None:
        with pool._driver.lock:
            gc.collect()

    await in_thread(collect)
    await settle()
    assert pool.stats().waiting == 0
    lease.release()
    await pool.close()


@pytest.mark.parametrize("way", KINDS, ids=str)
@in_loop
async def test_a_call_cancelled_by_another_thread(way: Way) -> None:
    """As a finalizer of the user's may do: it is cancelled soon, on the loop."""
    pool, channel = await _pool(intercepted=False)
    call = way.begin(pool, timeout=None)
    assert await in_thread(call.cancel) is True
    await settle()
    assert channel.threads == [_HERE]
    assert call.cancelled()
    await pool.close()


def test_a_call_dropped_while_the_loop_stands() -> None:
    """A loop that does not run belongs to the thread where the pool was first used; others leave the work for it."""
    with asyncio.Runner() as runner:
        pool, channel = runner.run(_pool(intercepted=False, streams=2))

        async def begin() -> Any:
            return STREAM.begin(pool, timeout=None)

        held = [runner.run(begin()), runner.run(begin())]
        held.pop()
        assert pool.stats().in_flight == 1
        held.pop()
        thread = threading.Thread(target=pool.stats)
        thread.start()
        thread.join()
        assert channel.threads == [_HERE]
        runner.run(settle())
        assert channel.threads == [_HERE] * 2
        assert pool.stats().in_flight == 0
        runner.run(pool.close())


@in_loop
async def test_with_grpcs_own_calls_in_debug_mode(calls: CallServer) -> None:
    """In asyncio's debug mode gRPC's calls must not be cancelled on another thread: then the loop would not end."""
    target = calls.target

    async def main() -> None:
        asyncio.get_running_loop().set_debug(True)
        pool = ChannelPool(lambda: grpc.aio.insecure_channel(target))
        await pool.open()
        held = [way.begin(pool, "ok" if way.ends_unread else "hold:nobody") for way in WAYS]
        await asyncio.sleep(0.01)
        held.clear()
        await in_thread(lambda: _collect_and_look(pool))
        await until(lambda: pool.stats().in_flight == 0)
        await pool.close()

    await in_thread(lambda: run(main()))
