"""A pool belongs to the event loop of its first use; and what happens in other loops, and without one."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

import grpcpool
from grpcpool import PoolConfig, WrongEventLoopError
from grpcpool.aio import ChannelPool, Lease
from grpcpool.testing.aio import FakeFactory
from support.aio_pools import assert_nothing_left, drop, pool_over, silent, tasks_of_pools
from support.loops import in_loop, in_thread, new_loop, run, settle
from support.pools import is_collected
from support.servers import ECHO
from support.waiting import LONG, background

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("each_loop")]

State = grpc.ChannelConnectivity

# Created when no loop runs, and none has ever been created.
_MADE_AT_IMPORT = ChannelPool(FakeFactory(), PoolConfig(min_size=2), name="made at import")


async def _use(pool: ChannelPool) -> None:
    async with pool.acquire() as lease:
        assert await lease.unary_unary(ECHO)(b"a") == b"a"


# --- where it may be created ----------------------------------------------------------------------------------------


def test_creating_one_binds_and_opens_nothing() -> None:
    """A pool created at import time, or anywhere without a loop, belongs to no loop yet, and can be looked at."""
    pool = _MADE_AT_IMPORT
    assert pool._driver.loop is None
    assert (pool.stats().size, pool.closed, pool.name, pool.config.min_size) == (0, False, "made at import", 2)
    assert repr(pool).startswith("<grpcpool.aio.ChannelPool 'made at import': 0 of 10 connections open")
    assert pool.get_state() is State.IDLE


@pytest.mark.parametrize("where", ["no loop", "a thread", "another loop", "a loop that is closed"])
def test_it_may_be_created_anywhere(where: str) -> None:
    """Wherever it was created, it is used in the loop of its first use."""

    def make() -> ChannelPool:
        return ChannelPool(FakeFactory(), PoolConfig(max_size=1))

    async def make_here() -> ChannelPool:
        return make()

    if where == "no loop":
        pool = make()
    elif where == "a thread":
        pool = background(make).result(LONG)
    elif where == "another loop":
        with asyncio.Runner(loop_factory=new_loop) as runner:
            pool = runner.run(make_here())
    else:
        pool = run(make_here())

    async def main() -> None:
        await _use(pool)
        await pool.close()
        assert_nothing_left(pool)

    run(main())


def test_without_a_loop_it_cannot_be_used() -> None:
    """Where no loop runs, what needs one raises; a stub may be made, bounds changed and a refresh requested."""
    factory = FakeFactory()
    pool = ChannelPool(factory, name="orders")
    echo = pool.unary_unary(ECHO)
    with pytest.raises(RuntimeError, match="'orders': must first be used in a running event loop"):
        echo(b"a")
    with pytest.raises(RuntimeError, match="'orders'"):
        pool.get_state(try_to_connect=True)
    pool.refresh()
    pool.resize(min_size=2, max_size=3)
    assert (pool.stats().max_size, pool.config.max_size) == (3, 3)

    async def main() -> None:
        assert await echo(b"a") == b"a"
        await settle()
        assert pool.stats().ready == 2
        await pool.close()

    run(main())


def test_it_belongs_to_the_loop_through_several_runs_of_it() -> None:
    """Between two ``run_until_complete`` of one loop a pool keeps its connections, and its bounds may be changed."""
    factory = FakeFactory()
    loop = new_loop()
    pool = ChannelPool(factory)
    try:
        loop.run_until_complete(_use(pool))
        pool.resize(min_size=2)
        loop.run_until_complete(_use(pool))
        loop.run_until_complete(settle())
        assert (factory.calls, pool.stats().ready) == (2, 2)
        loop.run_until_complete(pool.close())
        assert_nothing_left_in(loop, pool)
    finally:
        loop.close()


def assert_nothing_left_in(loop: asyncio.AbstractEventLoop, pool: ChannelPool) -> None:
    """Same as `assert_nothing_left`, in a loop that is not running."""

    async def look() -> None:
        assert_nothing_left(pool)

    loop.run_until_complete(look())


# --- other loops ----------------------------------------------------------------------------------------------------


async def _block(pool: ChannelPool) -> None:
    async with pool.acquire():
        pass


_USES: dict[str, Callable[[ChannelPool], Any]] = {
    "acquire": lambda pool: pool.acquire(),
    "acquire block": _block,
    "open": lambda pool: pool.open(),
    "close": lambda pool: pool.close(),
    "block": lambda pool: pool.__aexit__(None, None, None),
    "channel_ready": lambda pool: pool.channel_ready(),
    "wait_for_state_change": lambda pool: pool.wait_for_state_change(State.READY),
    "get_state": lambda pool: pool.get_state(),
    "get_state to connect": lambda pool: pool.get_state(try_to_connect=True),
    "call": lambda pool: pool.unary_unary(ECHO)(b"a"),
    "stream": lambda pool: pool.unary_stream(ECHO)(b"a"),
    "refresh": lambda pool: pool.refresh(),
    "resize": lambda pool: pool.resize(min_size=2),
}


async def _do(use: Callable[[Any], Any], what: Any) -> None:
    done = use(what)
    if inspect.isawaitable(done):
        await done


@pytest.mark.parametrize("use", _USES.values(), ids=_USES)
@pytest.mark.parametrize("first", ["running", "not running", "closed"])
def test_another_loop_is_refused(first: str, use: Callable[[ChannelPool], Any]) -> None:
    """Every use in a second loop raises `WrongEventLoopError`, with pool, figures and remedy; nothing is changed."""
    factory = FakeFactory()
    pool = ChannelPool(factory, PoolConfig(min_size=1), name="orders")

    async def elsewhere() -> None:
        with pytest.raises(WrongEventLoopError) as caught:
            await _do(use, pool)
        assert "pool 'orders'" in str(caught.value)
        assert "connections open" in str(caught.value)
        assert "create a pool for each loop" in str(caught.value)
        assert ("closed" if first == "closed" else "another one") in str(caught.value)

    with _first_loop(first, lambda: _use(pool)) as loop:
        before = repr(pool)
        run(elsewhere())
        assert repr(pool) == before
        assert factory.calls == 1
        assert not pool.closed
        if loop is not None:
            _in(loop, _use(pool))
            _in(loop, pool.close())
            assert not factory.open


_OF_A_LEASE: dict[str, Callable[[Lease], Any]] = {
    "call": lambda lease: lease.unary_unary(ECHO)(b"a"),
    "channel_ready": lambda lease: lease.channel_ready(),
    "wait_for_state_change": lambda lease: lease.wait_for_state_change(State.READY),
    "get_state": lambda lease: lease.get_state(),
}


@pytest.mark.parametrize("use", _OF_A_LEASE.values(), ids=_OF_A_LEASE)
def test_a_lease_is_refused_in_another_loop(use: Callable[[Lease], Any]) -> None:
    """A lease is used in its pool's loop only, but may be released anywhere."""
    pool = ChannelPool(FakeFactory(), name="orders")
    taken: list[Lease] = []

    async def take() -> None:
        taken.append(await pool.acquire())

    async def elsewhere() -> None:
        with pytest.raises(WrongEventLoopError, match="'orders'"):
            await _do(use, taken[0])

    with _first_loop("running", take) as loop:
        assert loop is not None
        run(elsewhere())
        taken[0].release()
        assert pool.stats().in_flight == 0
        _in(loop, pool.close())


def test_two_loops_have_a_pool_each() -> None:
    """The remedy works: pools of two loops that run at the same time do not affect each other."""
    barrier = threading.Barrier(2)

    def work() -> None:
        async def main() -> None:
            async with pool_over(FakeFactory(), max_size=2) as pool:
                barrier.wait(LONG)
                await asyncio.gather(*(_use(pool) for _ in range(20)))

        run(main())

    threads = [background(work) for _ in range(2)]
    for thread in threads:
        thread.result(LONG)


# --- other threads --------------------------------------------------------------------------------------------------


@in_loop
async def test_it_may_be_looked_at_from_any_thread_and_loop() -> None:
    """`stats()`, `repr()`, `closed`, `name` and `config` are the same on a thread, and in another loop."""
    async with pool_over(FakeFactory(), name="orders") as pool, pool.acquire():

        def look() -> tuple[Any, ...]:
            return pool.stats(), repr(pool), pool.closed, pool.name, pool.config

        async def look_in_a_loop() -> tuple[Any, ...]:
            return look()

        assert await in_thread(look) == look()
        assert await in_thread(lambda: run(look_in_a_loop())) == look()


@in_loop
async def test_a_thread_may_refresh_and_resize() -> None:
    """A thread without a loop may change the pool, which does the rest in its own loop."""
    factory = FakeFactory()
    async with pool_over(factory, min_size=1) as pool:
        await pool.open()
        await in_thread(pool.refresh)
        await settle()
        assert [channel.closed for channel in factory.made] == [1, 0]
        await in_thread(lambda: pool.resize(min_size=3))
        await settle()
        assert pool.stats().ready == 3
        await in_thread(lambda: pool.resize(min_size=1, max_size=1))
        await settle()
        assert (pool.stats().size, len(factory.open)) == (1, 1)
        assert pool.config.max_size == 1


@pytest.mark.parametrize("use", ["call", "stream", "get_state to connect"])
@in_loop
async def test_a_thread_cannot_call(use: str) -> None:
    """What begins something in the loop raises `WrongEventLoopError` on a thread without one, while the loop runs."""
    factory = FakeFactory(silent) if use.startswith("get_state") else FakeFactory()
    async with pool_over(factory, name="orders") as pool:
        pool.get_state(try_to_connect=True)
        await settle()
        with pytest.raises(WrongEventLoopError, match="'orders'"):
            await in_thread(lambda: _USES[use](pool))
        assert pool.stats().in_flight == 0


@in_loop
async def test_a_thread_that_resizes_serves_a_waiter() -> None:
    """More room allowed by a thread serves a waiter in the loop, without any other use of the pool."""
    async with pool_over(FakeFactory(), max_size=1) as pool, pool.acquire():
        waiting = asyncio.create_task(pool.acquire())
        await settle()
        await in_thread(lambda: pool.resize(max_size=2))
        async with asyncio.timeout(20):
            (await waiting).release()


@in_loop
async def test_many_threads_may_change_and_look_while_the_loop_works() -> None:
    """Under refreshes, resizes, releases and snapshots from threads, with load, nothing is lost and nothing is left."""
    factory = FakeFactory()
    async with pool_over(factory, min_size=1, max_size=4, max_streams=4, idle_timeout=None) as pool:
        over = threading.Event()

        def change(number: int) -> None:
            while not over.is_set():
                if number % 2:
                    pool.refresh()
                else:
                    pool.resize(min_size=1 + number % 3, max_size=4)
                stats = pool.stats()
                assert stats.in_flight == sum(it.in_flight for it in stats.channels)
                assert repr(pool)
                over.wait(0.001)

        threads = [background(lambda i=i: change(i)) for i in range(4)]  # type: ignore[misc]
        for _ in range(20):
            await asyncio.gather(*(_use(pool) for _ in range(10)))
            lease = await pool.acquire(streams=2)
            await in_thread(lease.release)
        over.set()
        for thread in threads:
            await asyncio.wrap_future(thread)
        await settle()
        assert pool.stats().in_flight == 0
    assert not factory.open


# --- after the loop -------------------------------------------------------------------------------------------------


def test_after_the_loop_has_gone_it_can_be_looked_at() -> None:
    """Once its loop has been closed, looking at a pool neither raises nor warns, whatever is left of it."""
    factory = FakeFactory()
    pool = ChannelPool(factory, PoolConfig(max_size=2))
    held: list[Lease] = []

    async def main() -> None:
        held.extend([await pool.acquire(), await pool.acquire()])
        waiting = asyncio.create_task(pool.acquire())
        await settle()
        waiting.cancel()
        await settle()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())
    for look in (pool.stats, lambda: repr(pool), lambda: pool.closed, lambda: pool.config, pool.stats):
        look()
    held[0].release()
    held[1].discard()
    held.clear()
    gc.collect()
    assert pool.stats().in_flight == 0


@pytest.mark.parametrize("use", ["refresh", "resize", "get_state to connect", "call"])
def test_after_the_loop_has_gone_it_cannot_be_used(use: str) -> None:
    """What needs the closed loop raises `WrongEventLoopError`, even where no loop runs."""
    pool = ChannelPool(FakeFactory(), name="orders")
    run_unclosed(pool)
    with pytest.raises(WrongEventLoopError, match=r"'orders'.*closed"):
        _USES[use](pool)
    gc.collect()
    assert pool.stats().opening == 0


@pytest.mark.parametrize("used", [True, False])
def test_a_closed_pool_may_be_closed_again_anywhere(used: bool) -> None:
    """A closed pool may be closed again when its loop is gone, for example by an exit handler in a loop of its own."""

    async def use(pool: ChannelPool) -> None:
        async with pool:
            if used:
                (await pool.acquire()).release()

    pool = ChannelPool(FakeFactory())
    run(use(pool))
    run(pool.close())
    assert pool.closed


def run_unclosed(pool: ChannelPool) -> None:
    """Uses a pool in a loop that is closed without closing the pool."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_use(pool))


@pytest.mark.parametrize("draining", [False, True])
def test_a_lease_dropped_after_the_loop_has_gone_is_silent(draining: bool, caplog: pytest.LogCaptureFixture) -> None:
    """It causes only its `ResourceWarning`: nothing is left that it could serve."""
    pool = ChannelPool(FakeFactory(), PoolConfig(max_size=1))
    held: list[Lease] = []

    async def take() -> None:
        held.append(await pool.acquire())
        if draining:
            pool.refresh()
            await settle()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(take())
    with pytest.warns(ResourceWarning, match="dropped without release"):
        drop(held)
    assert pool.stats().in_flight == 0
    assert not [record for record in caplog.records if record.name == "grpcpool" and record.levelname != "INFO"]


@pytest.mark.parametrize("closed", [False, True])
def test_a_lease_dropped_after_the_loop_has_gone_keeps_nothing(closed: bool) -> None:
    """Its pool is collected with it."""
    pools = [ChannelPool(FakeFactory(), name="without a loop")]
    held: list[Lease] = []

    async def take() -> None:
        held.append(await pools[0].acquire())
        if closed:
            await pools[0].close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(take())
    pools.clear()
    with pytest.warns(ResourceWarning, match="dropped without release"):
        drop(held)
    assert is_collected("without a loop")


def test_a_pool_dropped_after_the_loop_has_gone_is_silent() -> None:
    """It is collected, with what it had."""
    pools = [ChannelPool(FakeFactory())]
    run_unclosed(pools[0])
    pools.clear()
    gc.collect()


@in_loop
async def test_a_pool_at_rest_has_no_task() -> None:
    """A pool has one task for each connection being opened, and none when all are open."""
    factory = FakeFactory(silent)
    async with pool_over(factory, min_size=3) as pool:
        opening = asyncio.create_task(pool.open())
        await settle()
        assert len(tasks_of_pools()) == 3
        for channel in factory.made:
            channel.set_state(State.READY)
        await opening
        await settle()
        assert asyncio.all_tasks() == {asyncio.current_task()}


def test_the_error_is_public() -> None:
    """`WrongEventLoopError` is a `PoolError`."""
    assert issubclass(grpcpool.WrongEventLoopError, grpcpool.PoolError)


# --- helpers --------------------------------------------------------------------------------------------------------


class _first_loop:  # noqa: N801 -- a context manager
    """Uses something in a first loop, which inside the block runs on a thread, stands still, or is closed."""

    def __init__(self, how: str, use: Callable[[], Any]) -> None:
        self._how = how
        self._use = use
        self._loop = new_loop()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> asyncio.AbstractEventLoop | None:
        self._loop.run_until_complete(self._use())
        if self._how == "closed":
            self._end()
            return None
        if self._how == "running":
            self._thread = threading.Thread(target=self._loop.run_forever)
            self._thread.start()
        return self._loop

    def __exit__(self, *raised: object) -> None:
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(LONG)
        if not self._loop.is_closed():
            self._end()

    def _end(self) -> None:
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self._loop.run_until_complete(asyncio.wait(tasks))
        self._loop.close()


def _in(loop: asyncio.AbstractEventLoop, main: Any) -> None:
    if loop.is_running():
        asyncio.run_coroutine_threadsafe(main, loop).result(LONG)
    else:
        loop.run_until_complete(main)


@pytest.fixture(autouse=True)
def _no_current_loop() -> Iterator[None]:
    """The thread has no current loop, so nothing can use one silently."""
    asyncio.set_event_loop(None)
    yield
    asyncio.set_event_loop(None)
