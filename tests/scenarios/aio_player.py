"""The pool for asyncio as a world: whatever waits is a task, in a loop that runs whenever something is done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import grpc

from grpcpool import PoolConfig
from grpcpool.aio import ChannelPool
from grpcpool.testing import manual_clock
from grpcpool.testing.aio import FakeCall, FakeChannel, FakeFactory

from .driver_player import METHOD, WHO, DriverPlayer
from .log import Log, status_text

C = TypeVar("C", bound=FakeCall)

# Nothing that is done takes more turns of the loop than this to have all its effects.
_TURNS = 50


class _Channel(FakeChannel):
    """Connects when told to; its calls run until told otherwise."""

    def __init__(self, admitted: Callable[[object, FakeCall], None]) -> None:
        super().__init__(connects=False, holds_calls=True)
        self._admitted = admitted

    def admit(self, make: Callable[[], C]) -> C:
        call = super().admit(make)
        self._admitted(self, call)
        return call


class AioPlayer(DriverPlayer):
    """Drives a `grpcpool.aio.ChannelPool`."""

    def __init__(self, config: PoolConfig, log: Log) -> None:
        """Makes an unused pool, and a loop."""
        self._factory = FakeFactory(lambda: _Channel(self.admitted))
        with manual_clock() as clock:
            pool = ChannelPool(self._factory, config, name="story", listeners=[log])
        super().__init__(pool, clock, log)
        self._pool: ChannelPool = pool
        self._runner = asyncio.Runner()
        self._uncaught: list[str] = []
        self._runner.get_loop().set_exception_handler(lambda _, context: self._uncaught.append(str(context)))
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._begun: dict[str, Any] = {}

    def _do(self, work: Callable[[], object]) -> None:
        async def do() -> None:
            work()

        self._runner.run(do())

    def _in_background(self, who: str, work: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            WHO.set(who)
            try:
                await work
            except asyncio.CancelledError:
                self._log.answer(who, status_text(grpc.StatusCode.CANCELLED))
            except Exception as error:  # noqa: BLE001 -- the log tells
                self.failed(who, error)

        self._tasks[who] = self._runner.get_loop().create_task(run())

    # --- operations that wait -----------------------------------------------------------------------------------

    def acquire(self, who: str, streams: int | None = None, **timeout: float | None) -> None:
        """Somebody asks for a lease."""

        async def work() -> None:
            self.leased(who, await self._pool.acquire(**timeout, streams=streams))

        self._in_background(who, work())

    def call(self, who: str, on: str | None = None, **how: Any) -> None:
        """Somebody makes a call, and waits for its end."""
        self._in_background(who, self._call(who, self._pool if on is None else self._leases[on], how))

    def begin(self, who: str, **how: Any) -> None:
        """Somebody begins a call, which here is the same."""
        self.call(who, **how)

    async def _call(self, who: str, channel: Any, how: dict[str, Any]) -> None:
        self._begun[who] = channel.unary_unary(METHOD)(b"", **how)
        await self._begun[who]
        self._log.answer(who, "OK")

    def cancel(self, who: str) -> None:
        """He gives up the call that he has begun, or the lease that he waits for."""
        self._do(self._begun[who].cancel if who in self._begun else self._tasks[who].cancel)

    def open(self, who: str, timeout: float | None = None) -> None:
        """Somebody calls `open()`."""

        async def work() -> None:
            await self._pool.open(timeout)
            self._log.answer(who, "open")

        self._in_background(who, work())

    def close(self, who: str, grace: float | None = None) -> None:
        """Somebody calls `close()`."""

        async def work() -> None:
            await self._pool.close(grace)
            self._log.answer(who, "closed")

        self._in_background(who, work())

    def up(self, number: int) -> None:
        """That connection is up again; a lost one is asked within a second whether it is."""
        self._set_state(number, grpc.ChannelConnectivity.READY)
        self.advance(1)

    # --- what is seen -------------------------------------------------------------------------------------------

    def settle(self, is_so: Callable[[], bool]) -> None:
        """Lets the loop turn until all is quiet: there is nothing here that has to be waited for."""

        async def turn() -> None:
            for _ in range(_TURNS):
                await asyncio.sleep(0)

        self._runner.run(turn())

    def end(self) -> None:
        """Closes the pool, and gives back what is still held; no task and no channel is left."""

        async def close() -> None:
            await self._pool.close(0)
            for lease in self._leases.values():
                lease.release()

        self._runner.run(close())
        self.settle(lambda: True)
        left = asyncio.all_tasks(self._runner.get_loop())
        self._runner.close()
        assert left == set()
        assert self._factory.open == []
        assert self._uncaught == []
