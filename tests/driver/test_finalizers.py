"""Users' finalizers may run on a thread that holds the pool's lock, at any point, and must not wait for that lock."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

import grpcpool
from grpcpool import PoolClosedError, PoolConfig
from grpcpool.aio import ChannelPool
from grpcpool.testing import FakeChannel, FakeFactory, aio
from support.loops import in_loop, settle
from support.pools import PoolMaker
from support.servers import ECHO, Server, unary
from support.waiting import LONG, background, eventually

pytestmark = pytest.mark.timeout(30)


def _is_step(frame: FrameType) -> bool:
    """Whether it is a step of the machine."""
    return str(frame.f_globals["__name__"]).startswith("grpcpool._machine.")


def _starts_thread(frame: FrameType) -> bool:
    """Whether a thread is being started."""
    return frame.f_code is threading.Thread.start.__code__


@contextlib.contextmanager
def finalizing(finalize: Callable[[], object], when: Callable[[FrameType], bool] = _is_step) -> Iterator[None]:
    """Interrupts the machine's next step, or what else `when` says, on its own thread, as a finalizer would."""
    done: list[bool] = []

    def interrupt(frame: FrameType, event: str, argument: Any) -> None:
        if not done and event == "call" and when(frame):
            done.append(True)
            sys.setprofile(None)
            finalize()

    sys.setprofile(interrupt)
    try:
        yield
    finally:
        sys.setprofile(None)
    assert done, "there was nothing to interrupt"


@pytest.mark.parametrize("end", ["release", "discard", "close"])
def test_finalizers_release_leases(make_pool: PoolMaker, end: str) -> None:
    """A lease released by a finalizer while the pool is at work returns a moment later."""
    pool = make_pool(FakeFactory(), max_size=1, max_streams=3)
    lease = pool.acquire(streams=1)
    with finalizing(getattr(lease, end)):
        other = pool.acquire(streams=1)
    other.release()
    eventually(lambda: pool.stats().in_flight == 0)


@pytest.mark.parametrize("end", ["release", "discard"])
def test_finalizers_release_leases_while_a_thread_is_started(make_pool: PoolMaker, end: str) -> None:
    """The release closes a connection, on a thread of its own, while this thread starts one for another connection."""
    factory = FakeFactory()
    pool = make_pool(factory, max_size=3)
    lease = pool.acquire()
    pool.refresh()
    eventually(lambda: (pool.stats().ready, pool.stats().draining) == (1, 1))
    with pool.acquire(), finalizing(getattr(lease, end), _starts_thread), pool.acquire():
        pass
    eventually(lambda: factory.made[0].closed and pool.stats().in_flight == 0)


def test_finalizers_cancel_calls_while_a_thread_is_started(make_pool: PoolMaker) -> None:
    """Both have callbacks, which run in turn on the thread that is being started."""
    pool = make_pool(lambda: FakeChannel(holds_calls=True), max_size=1, max_streams=1)
    pool.open()
    echo: Any = pool.unary_unary(ECHO)
    running, *waiting = [echo.future(b"") for _ in range(3)]
    done: list[object] = []
    for call in waiting:
        call.add_done_callback(done.append)
    with finalizing(waiting[1].cancel, _starts_thread):
        waiting[0].cancel()
    eventually(lambda: len(done) == 2)
    running.cancel()


@pytest.mark.parametrize("what", ["release", "close"])
def test_finalizers_run_in_a_thread_that_is_being_started(
    make_pool: PoolMaker, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The garbage collector may run in it before the thread that starts it goes on: they do not wait for each other."""
    factory = FakeFactory()
    pool = make_pool(factory, name="starting", max_size=3)
    lease = pool.acquire()
    pool.refresh()
    eventually(lambda: (pool.stats().ready, pool.stats().draining) == (1, 1))
    finalize = {"release": lease.release, "close": pool.close}[what]
    begin = threading.Thread._set_ident  # type: ignore[attr-defined]
    done: list[str] = []

    def collect(thread: threading.Thread) -> None:
        if thread.name.startswith("grpcpool-starting-open") and not done:
            done.append(thread.name)
            finalize()
        begin(thread)

    with pool.acquire():
        monkeypatch.setattr(threading.Thread, "_set_ident", collect)
        # One more connection is needed.
        with contextlib.suppress(PoolClosedError):
            background(pool.acquire).result(LONG).release()
    assert done
    lease.release()
    eventually(lambda: factory.made[0].closed)


def test_finalizers_close_pools(make_pool: PoolMaker) -> None:
    """A pool closed by a finalizer while it is at work is closed a moment later."""
    factory = FakeFactory()
    pool = make_pool(factory, max_size=1)
    pool.open()
    with finalizing(pool.close):
        pool.stats()
    eventually(lambda: pool.closed and not factory.open)


def test_finalizers_close_handles() -> None:
    """So is a handle on a shared pool. The others go on."""
    with Server() as server, grpcpool.shared_channel(server.target) as other:
        handle = grpcpool.shared_channel(server.target)
        unary(handle, ECHO, b"")
        with finalizing(handle.close):
            other.stats()
        with pytest.raises(ValueError, match="closed"):
            unary(handle, ECHO, b"")
        assert unary(other, ECHO, b"x") == b"x"


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
