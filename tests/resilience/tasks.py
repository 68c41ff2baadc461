"""The world of asyncio: a loop that runs in a thread of its own, controlled from outside."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc

from grpcpool import PoolConfig, aio, isolated
from grpcpool.testing.aio import FakeChannel, FakeFactory
from resilience.worlds import Load, Options, Subject, World
from support.loops import not_of_poller, tasks_left
from support.servers import RECONNECT_SOON
from support.waiting import LONG

T = TypeVar("T")


class LoopThread:
    """A loop in a thread; at the end, none of its tasks may be left, and no error uncaught."""

    def __init__(self) -> None:
        """Does not run yet."""
        self.loop = asyncio.new_event_loop()
        self.uncaught: list[str] = []
        self.loop.set_exception_handler(lambda loop, context: self.uncaught.append(str(context)))
        self._thread = threading.Thread(target=self.loop.run_forever, name="test-loop", daemon=True)

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Starts `work` in the loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, T], timeout: float = 3 * LONG) -> T:
        """Runs `work` in the loop, and waits for its end."""
        return self.begin(work).result(timeout)

    def __enter__(self) -> Self:
        """Starts the loop."""
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Stops the loop and closes it."""
        left = self.run(tasks_left())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(LONG)
        self.loop.close()
        # Calls that errors still refer to keep gRPC's connections open.
        gc.collect()
        assert exc_type is not None or (left, not_of_poller(self.uncaught)) == (set(), [])


class TaskLoad(Load):
    """Each caller is a task."""

    def __init__(self, callers: int, loop: LoopThread, call: Callable[[], Awaitable[object]]) -> None:
        """This many callers of `call`."""
        super().__init__(callers)
        self._loop = loop
        self._call = call

    def start(self) -> list[Future[None]]:
        """Starts the tasks."""
        return [self._loop.begin(self._run(i)) for i in range(self.callers)]

    async def _run(self, caller: int) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            try:
                answer = await self._call()
            except (grpc.RpcError, asyncio.CancelledError) as error:
                self.note(caller, began, error)
            else:
                self.note(caller, began, None, answer)


class TaskSubject(Subject):
    """A `grpcpool.aio.ChannelPool`."""

    pool: aio.ChannelPool
    kinds = ("unary", "stream")

    def __init__(self, pool: aio.ChannelPool, loop: LoopThread) -> None:
        """A pool in this loop."""
        super().__init__(pool)
        self._loop = loop

    def open(self, timeout: float | None = None) -> None:
        """Opens the pool."""
        self._loop.run(self.pool.open(timeout))

    def begin(self, method: str, request: bytes, *, kind: str | None = None, **how: Any) -> Future[bytes]:
        """Makes a call in a task of its own."""
        how.setdefault("timeout", LONG)
        call = self._stream if kind == "stream" else self._unary
        return self._loop.begin(call(method, request, how))

    async def _unary(self, method: str, request: bytes, how: dict[str, Any]) -> bytes:
        answer: bytes = await self.pool.unary_unary(method)(request, **how)
        return answer

    async def _stream(self, method: str, request: bytes, how: dict[str, Any]) -> bytes:
        return b",".join([message async for message in self.pool.unary_stream(method)(request, **how)])

    def acquire(self, **how: Any) -> Future[Any]:
        """Leases in a task of its own."""
        return self._loop.begin(self._acquire(how))

    async def _acquire(self, how: dict[str, Any]) -> aio.Lease:
        return await self.pool.acquire(**how)

    def release(self, lease: Any) -> None:
        """Releases it, in the loop."""
        self.do(lambda _: lease.release())

    def do(self, work: Callable[[Any], object]) -> None:
        """Does it in the loop."""

        async def in_loop() -> None:
            work(self.pool)

        self._loop.run(in_loop())

    def load(self, callers: int, method: str, request: bytes, **how: Any) -> Load:
        """Tasks that await calls."""
        how.setdefault("timeout", LONG)
        return TaskLoad(callers, self._loop, lambda: self._unary(method, request, how))

    def close(self) -> None:
        """Closes the pool."""
        self._loop.run(self.pool.close(0))


class Tasks(World):
    """`grpcpool.aio`."""

    name = "asyncio"

    def __init__(self, loop: LoopThread) -> None:
        """Pools live in this loop."""
        self._loop = loop

    def channel_maker(self, target: str) -> Callable[[], grpc.aio.Channel]:
        """A factory of `grpc.aio.Channel`s."""
        return lambda: grpc.aio.insecure_channel(target, isolated(RECONNECT_SOON))

    def fake_maker(self, **how: Any) -> FakeFactory:
        """A factory of fakes."""
        return FakeFactory(lambda: FakeChannel(**how))

    def _over_target(self, target: str, options: Options, config: PoolConfig, **how: Any) -> Subject:
        channel = aio.secure_channel if "credentials" in how else aio.insecure_channel
        return TaskSubject(channel(target, options=options, config=config, **how), self._loop)

    def _over_factory(self, factory: Callable[[], Any], config: PoolConfig) -> Subject:
        return TaskSubject(aio.ChannelPool(factory, config), self._loop)
