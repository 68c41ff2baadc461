"""What the asyncio tests share: pools, waiting, and tasks that call without a pause."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import grpc

from components.programs import Program
from grpcpool import PoolConfig, aio
from support.loops import until
from support.servers import RECONNECT_SOON
from support.waiting import LONG


@contextlib.asynccontextmanager
async def pool_of(served: Program, **config: Any) -> AsyncIterator[aio.ChannelPool]:
    """A pool over a program; when the block ends no call is in flight. `config` are fields of `PoolConfig`."""
    async with aio.insecure_channel(served.target, RECONNECT_SOON, config=PoolConfig(**config)) as pool:
        yield pool
        await until(lambda: pool.stats().in_flight == 0 == pool.stats().waiting, timeout=5)


class Load:
    """As `components.load.Load`, with tasks."""

    def __init__(self, callers: int, call: Callable[[], Awaitable[bytes]]) -> None:
        """Starts `callers` tasks; each makes one call after another."""
        self._callers = callers
        self._call = call
        self._over = False
        self._answers: Counter[bytes] = Counter()
        self._tasks: list[asyncio.Task[None]] = []
        self.errors: list[grpc.RpcError] = []

    async def answers_to_come(self, number: int = 100) -> Counter[bytes]:
        """Waits for `number` answers from now on; returns how often each came."""
        self._answers.clear()
        await until(lambda: self._answers.total() >= number)
        return self._answers.copy()

    async def wait_for_answers_of(self, names: set[bytes]) -> None:
        """Waits until the answers are these and no others."""
        async with asyncio.timeout(LONG):
            while set(await self.answers_to_come()) != names:
                pass

    async def _run(self) -> None:
        while not self._over:
            try:
                self._answers[await self._call()] += 1
            except grpc.RpcError as error:
                self.errors.append(error)

    async def __aenter__(self) -> Self:
        """Begins."""
        self._tasks = [asyncio.create_task(self._run()) for _ in range(self._callers)]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Ends it when the calls that run have ended; raises whatever was not a failed call."""
        self._over = True
        await asyncio.gather(*self._tasks)
