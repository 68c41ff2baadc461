"""The asyncio pool as a world: what waits is a task, in a loop that runs after each operation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import grpc

from grpcpool import PoolConfig
from grpcpool._shared.targets import TargetFactory, recipe_of
from grpcpool.aio import ChannelPool
from grpcpool.testing import manual_clock
from grpcpool.testing.aio import FakeCall, FakeChannel, FakeFactory

from .driver_player import CALLER, METHOD, DriverPlayer
from .log import Log, status_text

C = TypeVar("C", bound=FakeCall)

# No operation needs more turns of the loop than this for all its effects.
_TURNS = 50


class _Channel(FakeChannel):
    """Connects only on request; its calls run until they are finished from outside."""

    def __init__(self, admitted: Callable[[object, FakeCall], None]) -> None:
        super().__init__(connects=False, holds_calls=True)
        self._admitted = admitted

    def admit(self, make: Callable[[], C]) -> C:
        call = super().admit(make)
        self._admitted(self, call)
        return call


class AioPlayer(DriverPlayer):
    """Drives a `grpcpool.aio.ChannelPool`."""

    def __init__(self, config: PoolConfig, log: Log, addresses: list[str] | None = None, endpoints: int = 1) -> None:
        """Creates an unused pool and a loop."""
        self._factory = FakeFactory(lambda: _Channel(self.admitted))

        async def look_up() -> list[str]:
            return self.look_up()

        factory: Callable[[], grpc.aio.Channel] = self._factory
        if addresses is not None:
            factory = self._over_targets(endpoints, config, look_up)
        with manual_clock() as clock:
            pool = ChannelPool(factory, config, name="story", listeners=[log])
        super().__init__(pool, clock, log, addresses)
        self._pool: ChannelPool = pool
        self._runner = asyncio.Runner()
        self._uncaught: list[str] = []
        self._runner.get_loop().set_exception_handler(lambda _, context: self._uncaught.append(str(context)))
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._begun: dict[str, Any] = {}

    def _over_targets(self, endpoints: int, config: PoolConfig, look_up: Callable[[], object]) -> TargetFactory:
        """A factory for one target whose addresses are looked up, or for several that have one address each."""
        targets = [f"10.0.0.{number}:1" for number in range(endpoints)] if endpoints > 1 else ["story:1"]
        addresses = look_up if endpoints == 1 else None
        recipe = recipe_of(targets, None, None, None, config=config, name=None, addresses=addresses)
        return TargetFactory(recipe, lambda *_: self._factory())

    def _do(self, work: Callable[[], object]) -> None:
        async def do() -> None:
            work()

        self._runner.run(do())

    def _in_background(self, caller: str, work: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            CALLER.set(caller)
            try:
                await work
            except asyncio.CancelledError:
                self._log.answer(caller, status_text(grpc.StatusCode.CANCELLED))
            except Exception as error:  # noqa: BLE001 -- logged
                self.failed(caller, error)

        self._tasks[caller] = self._runner.get_loop().create_task(run())

    # --- operations that wait -----------------------------------------------------------------------------------

    def acquire(self, caller: str, streams: int | None = None, **timeout: float | None) -> None:
        """A caller requests a lease."""

        async def work() -> None:
            self.leased(caller, await self._pool.acquire(**timeout, streams=streams))

        self._in_background(caller, work())

    def call(self, caller: str, on: str | None = None, **how: Any) -> None:
        """A caller makes a call and waits for its end."""
        self._in_background(caller, self._call(caller, self._pool if on is None else self._leases[on], how))

    def begin(self, caller: str, **how: Any) -> None:
        """Same as `call`, which on asyncio does not block."""
        self.call(caller, **how)

    async def _call(self, caller: str, channel: Any, how: dict[str, Any]) -> None:
        self._begun[caller] = channel.unary_unary(METHOD)(b"", **how)
        await self._begun[caller]
        self._log.answer(caller, "OK")

    def cancel(self, caller: str) -> None:
        """The caller cancels its call or its request for a lease."""
        self._do(self._begun[caller].cancel if caller in self._begun else self._tasks[caller].cancel)

    def open(self, caller: str, timeout: float | None = None) -> None:
        """A caller calls `open()`."""

        async def work() -> None:
            await self._pool.open(timeout)
            self._log.answer(caller, "open")

        self._in_background(caller, work())

    def close(self, caller: str, grace: float | None = None) -> None:
        """A caller calls `close()`."""

        async def work() -> None:
            await self._pool.close(grace)
            self._log.answer(caller, "closed")

        self._in_background(caller, work())

    def up(self, number: int) -> None:
        """The connection is up again; the pool checks lost ones at least once a second."""
        self._set_state(number, grpc.ChannelConnectivity.READY)
        self.advance(1)

    # --- observation --------------------------------------------------------------------------------------------

    def settle(self, condition: Callable[[], bool]) -> None:
        """Lets the loop turn until everything has happened; no condition has to be waited for."""

        async def turn() -> None:
            for _ in range(_TURNS):
                await asyncio.sleep(0)

        self._runner.run(turn())

    def end(self) -> None:
        """Closes the pool and releases what is still held; no task and no channel is left."""

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
