"""The world of asyncio: what callers do with a `grpcpool.aio.ChannelPool`, each in a task of its own.

The loop runs in a thread; chaos and the judge are outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from grpcpool import PoolConfig, aio
from soak.book import Book, Call
from soak.callers import CLOSED_UNDER, MANY, METHODS, BaseCaller, expected
from soak.remains import Complaints
from soak.wishes import Wish, broken, plain, wishes
from soak.world import AT_ONCE, CALLERS, REST, Setting, World
from support.loops import tasks_left
from support.servers import RECONNECT_SOON

T = TypeVar("T")

# Writing to a failed call raises this; reading it raises the reason.
_OVER_ALREADY = (asyncio.InvalidStateError,)


async def numbers(count: int, pause: float = 0.0) -> AsyncIterator[bytes]:
    """Requests, with this many seconds before each."""
    for i in range(count):
        await asyncio.sleep(pause)
        yield str(i).encode()


async def numbers_then_break() -> AsyncIterator[bytes]:
    """Requests, and then an error."""
    async for number in numbers(3):
        yield number
    broken(None)


class Caller(BaseCaller):
    """Makes calls, one after the other. It has a method for each kind of wish and each manner."""

    async def do(self, wish: Wish) -> None:
        """Does as wished."""
        await getattr(self, f"_{wish.kind}_{wish.manner}")(wish)

    def _cancellable(self, call: Call) -> contextlib.AbstractContextManager[None]:
        """During the block, chaos may cancel the task that waits for the call."""
        task = asyncio.current_task()
        assert task is not None
        return self._book.cancellable(call, task.cancel)

    # --- one request, one response --------------------------------------------------------------------------------

    def _begin(self, wish: Wish, **codecs: Any) -> Any:
        return self._pool.unary_unary(wish.method, **codecs)(wish.request, **self._how(wish))

    async def _unary_plain(self, wish: Wish) -> None:
        with self._call(wish) as call, self._cancellable(call):
            assert await self._begin(wish) == wish.request

    _unary_failing = _unary_overdue = _unary_impatient = _unary_plain

    async def _unary_unserializable(self, wish: Wish) -> None:
        with self._call(wish):
            await self._begin(wish, request_serializer=broken)

    async def _future_awaited(self, wish: Wish) -> None:
        with self._call(wish) as call:
            begun = self._begin(wish)
            with self._book.cancellable(call, begun.cancel):
                await asyncio.sleep(wish.pause)
                assert await begun == wish.request

    async def _future_notified(self, wish: Wish) -> None:
        with self._call(wish) as call, self._cancellable(call):
            begun = self._begin(wish)
            told = asyncio.Event()
            begun.add_done_callback(lambda _: told.set())
            await told.wait()
            assert await begun == wish.request

    async def _future_cancelled(self, wish: Wish) -> None:
        with self._call(wish):
            begun = self._begin(wish)
            await asyncio.sleep(wish.pause)
            begun.cancel()
            await begun

    async def _future_dropped(self, wish: Wish) -> None:
        with self._call(wish) as call:
            begun = self._begin(wish)
            await asyncio.sleep(wish.pause)
            del begun
            call.outcome = "dropped"

    # --- a stream of responses ------------------------------------------------------------------------------------

    def _stream(self, wish: Wish, **codecs: Any) -> Any:
        return self._pool.unary_stream(wish.method, **codecs)(wish.request, **self._how(wish))

    async def _stream_whole(self, wish: Wish) -> None:
        with self._call(wish) as call, self._cancellable(call):
            assert [message async for message in self._stream(wish)] == expected(wish.size)

    async def _stream_dropped(self, wish: Wish) -> None:
        with self._call(wish) as call:
            stream = self._stream(wish)
            assert [await stream.read() for _ in range(3)] == expected(3)
            del stream
            call.outcome = "dropped"

    async def _stream_unread(self, wish: Wish) -> None:
        with self._call(wish) as call:
            stream = self._stream(wish)
            await asyncio.sleep(wish.pause)
            del stream
            call.outcome = "dropped"

    async def _stream_cancelled(self, wish: Wish) -> None:
        with self._call(wish):
            stream = self._stream(wish)
            await stream.read()
            stream.cancel()
            await stream.read()

    async def _stream_undeserializable(self, wish: Wish) -> None:
        with self._call(wish):
            messages = [message async for message in self._stream(wish, response_deserializer=broken)]
            # For what it cannot deserialize, asyncio's gRPC returns None.
            assert messages == [None] * wish.size
            broken(None)

    # --- streams of requests --------------------------------------------------------------------------------------

    def _collect(self, requests: AsyncIterator[bytes] | None, wish: Wish) -> Any:
        return self._pool.stream_unary(METHODS["collect"])(requests, **self._how(wish))

    async def _collect_plain(self, wish: Wish) -> None:
        with self._call(wish) as call, self._cancellable(call):
            if wish.size % 2:
                answer = await self._collect(numbers(wish.size, wish.pause / 10), wish)
            else:
                begun = self._collect(None, wish)
                with contextlib.suppress(*_OVER_ALREADY):
                    async for number in numbers(wish.size, wish.pause / 10):
                        await begun.write(number)
                    await begun.done_writing()
                answer = await begun
            assert answer == b",".join(expected(wish.size))

    async def _collect_cancelled(self, wish: Wish) -> None:
        with self._call(wish):
            begun = self._collect(numbers(MANY, 0.01), wish)
            await asyncio.sleep(wish.pause)
            begun.cancel()
            await begun

    async def _collect_broken(self, wish: Wish) -> None:
        with self._call(wish):
            await self._collect(numbers_then_break(), wish)

    def _chat(self, requests: AsyncIterator[bytes] | None, wish: Wish) -> Any:
        return self._pool.stream_stream(METHODS["chat"])(requests, **self._how(wish))

    async def _chat_whole(self, wish: Wish) -> None:
        with self._call(wish) as call, self._cancellable(call):
            if wish.size % 2:
                stream = self._chat(numbers(wish.size, wish.pause / 10), wish)
                answers = [answer async for answer in stream]
            else:
                stream = self._chat(None, wish)
                answers = []
                with contextlib.suppress(*_OVER_ALREADY):
                    for number in expected(wish.size):
                        await stream.write(number)
                        answers.append(await stream.read())
                    await stream.done_writing()
                assert not await stream.read()
            assert answers == expected(wish.size)

    async def _chat_dropped(self, wish: Wish) -> None:
        with self._call(wish) as call:
            stream = self._chat(numbers(MANY, 0.01), wish)
            assert [await stream.read() for _ in range(2)] == expected(2)
            del stream
            call.outcome = "dropped"

    async def _chat_cancelled(self, wish: Wish) -> None:
        with self._call(wish):
            stream = self._chat(numbers(MANY, 0.01), wish)
            await stream.read()
            stream.cancel()
            await stream.read()

    # --- leases ---------------------------------------------------------------------------------------------------

    async def _ask(self, wish: Wish, streams: int | None) -> Any:
        """A lease, or `None` after a failure."""
        with self._call(wish, whole=streams is None) as call, self._cancellable(call):
            return self._granted(await self._pool.acquire(wish.timeout, streams=streams))
        return None

    async def _lease_calls(self, wish: Wish) -> None:
        lease = await self._ask(wish, self._streams(wish))
        if lease is not None:
            async with lease:
                for _ in range(2):
                    await self._use(lease, wish)
                    await asyncio.sleep(wish.pause)

    _lease_tried = _lease_calls

    async def _use(self, lease: Any, wish: Wish) -> None:
        timeout = max(wish.timeout, 1.0)
        with self._call(wish, **self._over(lease), due=time.monotonic() + timeout) as call, self._cancellable(call):
            answer = await lease.unary_unary(wish.method)(wish.request, timeout=timeout, wait_for_ready=wish.waits)
            assert answer == wish.request

    async def _lease_crowd(self, wish: Wish, *, early: bool = False) -> None:
        streams = self._streams(wish)
        lease = await self._ask(wish, streams)
        if lease is None:
            return
        async with lease:
            uses = [asyncio.create_task(self._use(lease, wish)) for _ in range(streams or 3)]
            # Lets each begin.
            await asyncio.sleep(0)
            if not early:
                await asyncio.gather(*uses)
        await asyncio.gather(*uses)

    async def _lease_early(self, wish: Wish) -> None:
        await self._lease_crowd(wish, early=True)

    async def _lease_discarded(self, wish: Wish) -> None:
        await self.discard(wish, self._streams(wish))

    async def discard(self, wish: Wish, streams: int | None) -> None:
        """Takes a lease, uses it, and discards it."""
        lease = await self._ask(wish, streams)
        if lease is not None:
            await self._use(lease, wish)
            lease.discard()

    # --- many calls, and a pool of the caller's own ---------------------------------------------------------------

    async def crowd(self, wishes: list[Wish], **how: Any) -> None:
        """Makes many calls at once."""
        await asyncio.gather(*(self._one_of_crowd(wish, how) for wish in wishes))

    async def _one_of_crowd(self, wish: Wish, how: dict[str, Any]) -> None:
        with self._call(wish, **how):
            if wish.kind == "future":
                assert await self._begin(wish) == wish.request
            else:
                assert [message async for message in self._stream(wish)] == expected(wish.size)

    async def in_pool_that_closes(self, wishes: list[Wish], grace: float) -> None:
        """Makes calls over the caller's own pool, which is closed while they run; each must end."""
        crowd = asyncio.create_task(self.crowd(wishes, **CLOSED_UNDER))
        # Lets each begin.
        await asyncio.sleep(0.001 + wishes[0].pause)
        await self._pool.close(grace)
        await crowd
        stats = self._pool.stats()
        assert (stats.in_flight, stats.waiting, stats.size) == (0, 0, 0), stats


class Tasks(World):
    """`grpcpool.aio`, and callers that are tasks."""

    name = "asyncio"

    def __init__(self, setting: Setting, book: Book, complaints: Complaints) -> None:
        """Starts a loop in a thread; the pool is not used yet."""
        super().__init__(setting, book)
        self.pool = aio.insecure_channel(
            setting.target, RECONNECT_SOON, config=setting.config, name="soak", listeners=[setting.listener]
        )
        self._over = False
        self._running: set[asyncio.Task[None]] = set()
        self._left: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(complaints.uncaught)
        self._thread = threading.Thread(target=self._loop.run_forever, name="soak-loop", daemon=True)
        self._thread.start()

    def _in_loop(self, work: Coroutine[Any, Any, T], within: float = AT_ONCE) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(within)

    def start_callers(self, round_: int) -> None:
        """Starts the callers."""
        self._over = False
        for i in range(CALLERS):
            self._run(self._wish_on(f"caller {i}", round_))
        self._run(self._close_pools(round_))

    def stop_callers(self, within: float) -> bool:
        """Lets each caller end its call; returns whether all ended in time."""
        self._over = True
        return self._in_loop(self._wait_for_callers(within), within + AT_ONCE)

    async def _wait_for_callers(self, within: float) -> bool:
        if not self._running:
            return True
        _, late = await asyncio.wait(self._running, timeout=within)
        return not late

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        async def start() -> None:
            task = asyncio.create_task(work)
            self._running.add(task)
            task.add_done_callback(self._running.discard)

        self._in_loop(start())

    async def _wish_on(self, name: str, round_: int) -> None:
        caller, rng = Caller(name, self.pool, self.book), self.dice(name, round_)
        for wish in wishes(rng):
            await caller.do(wish)
            if self._over:
                return
            await asyncio.sleep(rng.expovariate(1 / REST))

    async def _close_pools(self, round_: int) -> None:
        rng = self.dice("closer", round_)
        while not self._over:
            await self._close_a_pool(rng)
            await asyncio.sleep(rng.uniform(0, 0.5))

    async def _close_a_pool(self, rng: random.Random) -> None:
        config = PoolConfig(min_size=1, max_size=2, max_streams=4)
        pool = aio.insecure_channel(self.setting.target, RECONNECT_SOON, config=config, name="short-lived")
        kinds = [rng.choice(["future", "stream"]) for _ in range(rng.randint(1, 12))]
        caller = Caller("closer", pool, self.book)
        await caller.in_pool_that_closes([plain(rng, kind=kind) for kind in kinds], rng.choice([0.0, 0.0, 0.1]))

    def background(self, name: str, wishes: list[Wish]) -> None:
        """Starts all these calls at once."""
        self._run(Caller(name, self.pool, self.book).crowd(wishes))

    def discard(self, name: str, wish: Wish, streams: int | None) -> None:
        """Acquires and discards a lease, in a task of its own."""
        self._run(Caller(name, self.pool, self.book).discard(wish, streams))

    def cancel(self, call: Call, cancel: Callable[[], object]) -> None:
        """Cancels a call, or the task that awaits it, in the loop."""

        async def in_loop() -> None:
            # Otherwise the task may have begun its next call.
            if any(call is other for other, _ in self.book.cancellables()):
                call.cancelled_by_chaos = True
                cancel()

        self._in_loop(in_loop())

    def do(self, work: Callable[[Any], object]) -> None:
        """Does it in the loop."""

        async def in_loop() -> None:
            work(self.pool)

        self._in_loop(in_loop())

    def close(self) -> None:
        """Closes the pool, and the loop."""
        self._in_loop(self.pool.close(), 2 * AT_ONCE)
        self._left = [f"task left: {task}" for task in self._in_loop(tasks_left(), 2 * AT_ONCE)]
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(AT_ONCE)
        self._loop.close()

    def left(self) -> list[str]:
        """Tasks that were left when the loop was closed."""
        return self._left
