"""The world of asyncio: a loop that runs in a thread of its own, told from outside what to do."""

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
from support.servers import RECONNECT_SOON
from support.waiting import LONG

T = TypeVar("T")

_TO_END = 5.0


class LoopThread:
    """A loop in a thread; when it is left, no task of it may be there, and nothing may have gone uncaught."""

    def __init__(self) -> None:
        """Is not running yet."""
        self.loop = asyncio.new_event_loop()
        self.uncaught: list[str] = []
        self.loop.set_exception_handler(lambda loop, context: self.uncaught.append(str(context)))
        self._thread = threading.Thread(target=self.loop.run_forever, name="test-loop", daemon=True)

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Has it run `work`."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, T], timeout: float = 3 * LONG) -> T:
        """Has it run `work`, and waits for that."""
        return self.begin(work).result(timeout)

    async def _tasks_left(self) -> list[str]:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            # gRPC's own end when its thread has told them.
            _, left = await asyncio.wait(left, timeout=_TO_END)
        return [str(task) for task in left]

    def __enter__(self) -> Self:
        """Runs."""
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Stops the loop and closes it."""
        left = self.run(self._tasks_left())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(LONG)
        self.loop.close()
        # Calls that errors still refer to keep gRPC's connections open.
        gc.collect()
        # gRPC's poller is told of events by several loops, and complains of those that another one has taken.
        uncaught = [error for error in self.uncaught if "PollerCompletionQueue" not in error]
        assert exc_type is not None or (left, uncaught) == ([], [])


class TaskLoad(Load):
    """Each caller is a task."""

    def __init__(self, callers: int, loop: LoopThread, call: Callable[[], Awaitable[object]]) -> None:
        """So many callers of `call`."""
        super().__init__(callers)
        self._loop = loop
        self._call = call

    def start(self) -> list[Future[None]]:
        """Has the tasks begin."""
        return [self._loop.begin(self._run(i)) for i in range(self.callers)]

    async def _run(self, caller: int) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            try:
                await self._call()
            except (grpc.RpcError, asyncio.CancelledError) as error:
                self.note(caller, began, error)
            else:
                self.note(caller, began, None)


class TaskSubject(Subject):
    """A `grpcpool.aio.ChannelPool`."""

    pool: aio.ChannelPool
    kinds = ("unary", "stream")

    def __init__(self, pool: aio.ChannelPool, loop: LoopThread) -> None:
        """In this loop."""
        super().__init__(pool)
        self._loop = loop

    def open(self, timeout: float | None = None) -> None:
        """Opens it."""
        self._loop.run(self.pool.open(timeout))

    def begin(self, method: str, request: bytes, *, kind: str | None = None, **how: Any) -> Future[bytes]:
        """In a task of its own."""
        how.setdefault("timeout", LONG)
        call = self._stream if kind == "stream" else self._unary
        return self._loop.begin(call(method, request, how))

    async def _unary(self, method: str, request: bytes, how: dict[str, Any]) -> bytes:
        answer: bytes = await self.pool.unary_unary(method)(request, **how)
        return answer

    async def _stream(self, method: str, request: bytes, how: dict[str, Any]) -> bytes:
        return b",".join([message async for message in self.pool.unary_stream(method)(request, **how)])

    def acquire(self, **how: Any) -> Future[Any]:
        """In a task of its own."""
        return self._loop.begin(self._acquire(how))

    async def _acquire(self, how: dict[str, Any]) -> aio.Lease:
        return await self.pool.acquire(**how)

    def release(self, lease: Any) -> None:
        """Gives it back, in the loop."""
        self.do(lambda _: lease.release())

    def do(self, work: Callable[[Any], object]) -> None:
        """In the loop."""

        async def in_loop() -> None:
            work(self.pool)

        self._loop.run(in_loop())

    def load(self, callers: int, method: str, request: bytes, **how: Any) -> Load:
        """Tasks that await calls."""
        how.setdefault("timeout", LONG)
        return TaskLoad(callers, self._loop, lambda: self._unary(method, request, how))

    def close(self) -> None:
        """Closes it."""
        self._loop.run(self.pool.close(0))


class Tasks(World):
    """`grpcpool.aio`."""

    name = "asyncio"

    def __init__(self, loop: LoopThread) -> None:
        """Lives in this loop."""
        self._loop = loop

    def channel_maker(self, target: str) -> Callable[[], grpc.aio.Channel]:
        """Makes `grpc.aio.Channel`s."""
        return lambda: grpc.aio.insecure_channel(target, isolated(RECONNECT_SOON))

    def fake_maker(self, **how: Any) -> FakeFactory:
        """Makes fakes."""
        return FakeFactory(lambda: FakeChannel(**how))

    def _over_target(self, target: str, options: Options, config: PoolConfig) -> Subject:
        return TaskSubject(aio.insecure_channel(target, options, config=config), self._loop)

    def _over_factory(self, factory: Callable[[], Any], config: PoolConfig) -> Subject:
        return TaskSubject(aio.ChannelPool(factory, config), self._loop)
