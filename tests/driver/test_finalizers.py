"""Finalizers of users: they may run in the midst of a thread that holds the pool's lock, and are not to wait for it."""

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
    """Has the machine, the next time that it does something, be interrupted on its thread, as by a finalizer."""
    done: list[bool] = []

    def interrupt(frame: FrameType, event: str, argument: Any) -> None:
        if (
            not done
            and event == "call"
            and frame.f_globals["__name__"] in ("grpcpool._machine.machine", "grpcpool._machine.places")
        ):
            done.append(True)
            sys.setprofile(None)
            finalize()

    sys.setprofile(interrupt)
    try:
        yield
    finally:
        sys.setprofile(None)
    assert done, "the machine had nothing to do"


@pytest.mark.parametrize("give_back", ["release", "discard", "close"])
def test_they_give_leases_back(make_pool: PoolMaker, give_back: str) -> None:
    """The lease of an object that is collected while the pool is at work comes back a moment later."""
    pool = make_pool(FakeFactory(), max_size=1, max_streams=3)
    lease = pool.acquire(streams=1)
    with finalizing(getattr(lease, give_back)):
        other = pool.acquire(streams=1)
    other.release()
    eventually(lambda: pool.stats().in_flight == 0)


@pytest.mark.parametrize("waits", [False, True], ids=["running", "waiting"])
def test_they_cancel_calls(make_pool: PoolMaker, *, waits: bool) -> None:
    """A call of theirs, whether it runs or waits, is cancelled a moment later."""
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


@pytest.mark.parametrize("give_back", ["release", "discard"])
@in_loop
async def test_they_give_leases_back_on_asyncio(give_back: str) -> None:
    """The same on asyncio."""
    async with ChannelPool(aio.FakeFactory(), PoolConfig(max_size=1, max_streams=3)) as pool:
        lease = await pool.acquire(streams=1)
        with finalizing(getattr(lease, give_back)):
            other = await pool.acquire(streams=1)
        other.release()
        await settle()
        assert pool.stats().in_flight == 0


@pytest.mark.parametrize("waits", [False, True], ids=["running", "waiting"])
@in_loop
async def test_they_cancel_calls_on_asyncio(waits: bool) -> None:
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
