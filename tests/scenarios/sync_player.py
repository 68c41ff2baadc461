"""The threaded pool as a world: every operation that blocks runs in a thread of its own."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

import grpc

from grpcpool import ChannelPool, PoolConfig
from grpcpool._shared.targets import TargetFactory, recipe_of
from grpcpool.testing import FakeCall, FakeChannel, FakeFactory, manual_clock
from support.waiting import eventually, is_inside

from .driver_player import CALLER, METHOD, DriverPlayer
from .log import Log, status_text

# A correct story never waits this long.
_PATIENCE = 5.0


class _Channel(FakeChannel):
    """Connects only on request; its calls run until they are finished from outside."""

    def __init__(self, admitted: Callable[[object, FakeCall], None]) -> None:
        super().__init__(connects=False, holds_calls=True)
        self._admitted = admitted

    def admit(self) -> FakeCall:
        call = super().admit()
        self._admitted(self, call)
        return call


class SyncPlayer(DriverPlayer):
    """Drives a `grpcpool.ChannelPool`."""

    def __init__(self, config: PoolConfig, log: Log, addresses: list[str] | None = None, endpoints: int = 1) -> None:
        """Creates an unused pool."""
        self._factory = FakeFactory(lambda: _Channel(self.admitted))
        factory: Callable[[], grpc.Channel] = self._factory
        if addresses is not None:
            factory = self._over_targets(endpoints, config, self.look_up)
        with manual_clock() as clock:
            pool = ChannelPool(factory, config, name=f"story-{id(self)}", listeners=[log])
        super().__init__(pool, clock, log, addresses)
        self._pool: ChannelPool = pool
        self._threads: list[threading.Thread] = []
        self._begun: dict[str, Any] = {}

    def _over_targets(self, endpoints: int, config: PoolConfig, look_up: Callable[[], object]) -> TargetFactory:
        """A factory for one target whose addresses are looked up, or for several that have one address each."""
        targets = [f"10.0.0.{number}:1" for number in range(endpoints)] if endpoints > 1 else ["story:1"]
        addresses = look_up if endpoints == 1 else None
        recipe = recipe_of(targets, None, None, None, config=config, name=None, addresses=addresses)
        return TargetFactory(recipe, lambda *_: self._factory())

    def _in_background(self, caller: str, work: Callable[[], None]) -> None:
        def run() -> None:
            CALLER.set(caller)
            try:
                work()
            except Exception as error:  # noqa: BLE001 -- logged
                self.failed(caller, error)

        thread = threading.Thread(target=run, name=f"story-{caller}", daemon=True)
        self._threads.append(thread)
        thread.start()

    # --- operations that block ----------------------------------------------------------------------------------

    def acquire(self, caller: str, streams: int | None = None, **timeout: float | None) -> None:
        """A caller requests a lease."""
        self._in_background(caller, lambda: self.leased(caller, self._pool.acquire(**timeout, streams=streams)))

    def call(self, caller: str, on: str | None = None, **how: Any) -> None:
        """A caller makes a call and waits for its end."""
        channel: Any = self._pool if on is None else self._leases[on]

        def work() -> None:
            channel.unary_unary(METHOD)(b"", **how)
            self._log.answer(caller, "OK")

        self._in_background(caller, work)

    def begin(self, caller: str, **how: Any) -> None:
        """A caller begins a call."""

        def work() -> None:
            CALLER.set(caller)
            self._begun[caller] = call = self._pool.unary_unary(METHOD).future(b"", **how)
            call.add_done_callback(lambda call: self._ended(caller, call))

        contextvars.copy_context().run(work)

    def _ended(self, caller: str, call: Any) -> None:
        try:
            error = call.exception()
        except grpc.FutureCancelledError:
            self._log.answer(caller, status_text(grpc.StatusCode.CANCELLED))
            return
        if error is None:
            self._log.answer(caller, "OK")
        else:
            self.failed(caller, error)

    def cancel(self, caller: str) -> None:
        """The caller cancels the call that it began."""
        self._begun[caller].cancel()

    def open(self, caller: str, timeout: float | None = None) -> None:
        """A caller calls `open()`."""

        def work() -> None:
            self._pool.open(timeout)
            self._log.answer(caller, "open")

        self._in_background(caller, work)

    def close(self, caller: str, grace: float | None = None) -> None:
        """A caller calls `close()`."""

        def work() -> None:
            self._pool.close(grace)
            self._log.answer(caller, "closed")

        self._in_background(caller, work)

    def up(self, number: int) -> None:
        """The connection is up again; the pool checks lost ones at least once a second."""
        self._set_state(number, grpc.ChannelConnectivity.READY)
        self.advance(1)

    # --- observation --------------------------------------------------------------------------------------------

    def settle(self, condition: Callable[[], bool]) -> None:
        """Waits until each thread has ended or is blocked in a wait, and `condition` holds."""
        try:
            eventually(lambda: self._is_at_rest() and condition(), _PATIENCE, pause=0.001)
        except AssertionError:
            # What is missing, the story's own check says best. If nothing is, a thread did not come to rest.
            if condition():
                raise

    def _is_at_rest(self) -> bool:
        return not any(
            thread.is_alive() and thread.ident is not None and not self._is_blocked(thread.ident)
            for thread in self._threads
        )

    def _is_blocked(self, thread: int) -> bool:
        """Whether the thread waits for the end of its call, for its answer, or in `close()` for the pool's end."""
        has_ended = not self._pool._driver._end.locked()
        return is_inside("wait", thread) or (is_inside("acquire_within", thread) and not has_ended)

    def end(self) -> None:
        """Closes the pool and releases what is still held; no thread and no channel is left."""
        self._pool.close(0)
        for lease in self._leases.values():
            lease.release()
        for thread in self._threads:
            thread.join(_PATIENCE)
            assert not thread.is_alive(), f"{thread.name} still waits"
        assert self._factory.open == []
        assert [thread.name for thread in threading.enumerate() if self._pool.name in thread.name] == []
