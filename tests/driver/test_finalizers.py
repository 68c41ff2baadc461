"""Users' finalizers may run on a thread that holds the pool's lock, at any point, and must not wait for that lock."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from grpcpool import PoolConfig
from grpcpool.aio import ChannelPool
from grpcpool.testing import FakeChannel, FakeFactory, aio
from support.loops import in_loop, settle
from support.pools import PoolMaker
from support.servers import ECHO
from support.waiting import eventually

pytestmark = pytest.mark.timeout(30)


@contextlib.contextmanager
def finalizing(finalize: Callable[[], object]) -> Iterator[None]:
    """Interrupts the machine's next step on its own thread, as a finalizer would."""
    done: list[bool] = []

    def interrupt(frame: FrameType, event: str, argument: Any) -> None:
        if not done and event == "call" and frame.f_globals["__name__"].startswith("grpcpool._machine."):
            done.append(True)
            sys.setprofile(None)
            finalize()

    sys.setprofile(interrupt)
    try:
        yield
    finally:
        sys.setprofile(None)
    assert done, "the machine had nothing to do"


@pytest.mark.parametrize("end", ["release", "discard", "close"])
def test_finalizers_release_leases(make_pool: PoolMaker, end: str) -> None:
    """A lease released by a finalizer while the pool is at work returns a moment later."""
    pool = make_pool(FakeFactory(), max_size=1, max_streams=3)
    lease = pool.acquire(streams=1)
    with finalizing(getattr(lease, end)):
        other = pool.acquire(streams=1)
    other.release()
    eventually(lambda: pool.stats().in_flight == 0)


@pytest.mark.parametrize("waits", [False, True], ids=["running", "waiting"])
def test_finalizers_cancel_calls(make_pool: PoolMaker, *, waits: bool) -> None:
    """A call cancelled by a finalizer, running or waiting, ends a moment later."""
    pool = make_pool(lambda: FakeChannel(holds_calls=True), max_size=1, max_streams=2)
    pool.open()
    echo: Any = pool.unary_unary(ECHO)
    calls = [echo.future(b"") for _ in range(3 if waits else 1)]
    with finalizing(calls[-1].cancel):
        pool.stats()
    eventually(calls[-1].cancelled)
    for call in calls:
        call.cancel()
    eventually(lambda: pool.stats().in_flight == 0)


@pytest.mark.parametrize("look", [ChannelPool.stats, repr], ids=["stats", "repr"])
def test_finalizers_look_at_the_pool(make_pool: PoolMaker, look: Callable[[Any], object]) -> None:
    """A finalizer that asks for figures while the pool is at work gets them, and goes on."""
    pool = make_pool(FakeFactory(), max_size=1, max_streams=3)
    pool.open()
    seen: list[object] = []
    with finalizing(lambda: seen.append(look(pool))):
        pool.acquire(streams=1).release()
    assert len(seen) == 1
    assert pool.stats().in_flight == 0


@pytest.mark.parametrize("end", ["release", "discard"])
@in_loop
async def test_finalizers_release_leases_on_asyncio(end: str) -> None:
    """The same on asyncio."""
    async with ChannelPool(aio.FakeFactory(), PoolConfig(max_size=1, max_streams=3)) as pool:
        lease = await pool.acquire(streams=1)
        with finalizing(getattr(lease, end)):
            other = await pool.acquire(streams=1)
        other.release()
        await settle()
        assert pool.stats().in_flight == 0


@pytest.mark.parametrize("waits", [False, True], ids=["running", "waiting"])
@in_loop
async def test_finalizers_cancel_calls_on_asyncio(waits: bool) -> None:
    """The same on asyncio, where gRPC's intercepted calls do it themselves."""
    config = PoolConfig(max_size=1, max_streams=2)
    async with ChannelPool(lambda: aio.FakeChannel(holds_calls=True), config) as pool:
        await pool.open()
        calls = [pool.unary_unary(ECHO)(b"") for _ in range(3 if waits else 1)]
        with finalizing(calls[-1].cancel):
            pool.stats()
        await settle()
        assert calls[-1].cancelled()
        for call in calls:
            call.cancel()
        await settle()
        assert pool.stats().in_flight == 0
