"""The pool for threads as a world: whatever blocks is done by a thread of its own."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

import grpc

from grpcpool import ChannelPool, PoolConfig
from grpcpool.testing import FakeCall, FakeChannel, FakeFactory, manual_clock
from support.waiting import eventually, is_inside

from .driver_player import METHOD, WHO, DriverPlayer
from .log import Log, status_text

# A story that is as written never waits so long.
_PATIENCE = 5.0


class _Channel(FakeChannel):
    """Connects when told to; its calls run until told otherwise."""

    def __init__(self, admitted: Callable[[object, FakeCall], None]) -> None:
        super().__init__(connects=False, holds_calls=True)
        self._admitted = admitted

    def admit(self) -> FakeCall:
        call = super().admit()
        self._admitted(self, call)
        return call


class SyncPlayer(DriverPlayer):
    """Drives a `grpcpool.ChannelPool`."""

    def __init__(self, config: PoolConfig, log: Log) -> None:
        """Makes an unused pool."""
        self._factory = FakeFactory(lambda: _Channel(self.admitted))
        with manual_clock() as clock:
            pool = ChannelPool(self._factory, config, name=f"story-{id(self)}", listeners=[log])
        super().__init__(pool, clock, log)
        self._pool: ChannelPool = pool
        self._threads: list[threading.Thread] = []
        self._begun: dict[str, Any] = {}

    def _in_background(self, who: str, work: Callable[[], None]) -> None:
        def run() -> None:
            WHO.set(who)
            try:
                work()
            except Exception as error:  # noqa: BLE001 -- the log tells
                self.failed(who, error)

        thread = threading.Thread(target=run, name=f"story-{who}", daemon=True)
        self._threads.append(thread)
        thread.start()

    # --- operations that block ----------------------------------------------------------------------------------

    def acquire(self, who: str, streams: int | None = None, **timeout: float | None) -> None:
        """Somebody asks for a lease."""
        self._in_background(who, lambda: self.leased(who, self._pool.acquire(**timeout, streams=streams)))

    def call(self, who: str, on: str | None = None, **how: Any) -> None:
        """Somebody makes a call, and waits for its end."""
        channel: Any = self._pool if on is None else self._leases[on]

        def work() -> None:
            channel.unary_unary(METHOD)(b"", **how)
            self._log.answer(who, "OK")

        self._in_background(who, work)

    def begin(self, who: str, **how: Any) -> None:
        """Somebody begins a call."""

        def work() -> None:
            WHO.set(who)
            self._begun[who] = call = self._pool.unary_unary(METHOD).future(b"", **how)
            call.add_done_callback(lambda call: self._over(who, call))

        contextvars.copy_context().run(work)

    def _over(self, who: str, call: Any) -> None:
        try:
            error = call.exception()
        except grpc.FutureCancelledError:
            self._log.answer(who, status_text(grpc.StatusCode.CANCELLED))
            return
        if error is None:
            self._log.answer(who, "OK")
        else:
            self.failed(who, error)

    def cancel(self, who: str) -> None:
        """He gives up the call that he has begun."""
        self._begun[who].cancel()

    def open(self, who: str, timeout: float | None = None) -> None:
        """Somebody calls `open()`."""

        def work() -> None:
            self._pool.open(timeout)
            self._log.answer(who, "open")

        self._in_background(who, work)

    def close(self, who: str, grace: float | None = None) -> None:
        """Somebody calls `close()`."""

        def work() -> None:
            self._pool.close(grace)
            self._log.answer(who, "closed")

        self._in_background(who, work)

    def up(self, number: int) -> None:
        """That connection is up again; a lost one is asked within a second whether it is."""
        self._set_state(number, grpc.ChannelConnectivity.READY)
        self.advance(1)

    # --- what is seen -------------------------------------------------------------------------------------------

    def settle(self, is_so: Callable[[], bool]) -> None:
        """Waits until each thread has ended or waits to be told, and it is so."""
        try:
            eventually(lambda: self._is_at_rest() and is_so(), _PATIENCE, pause=0.001)
        except AssertionError:
            return

    def _is_at_rest(self) -> bool:
        return not any(
            thread.is_alive() and thread.ident is not None and not is_inside("wait", thread.ident)
            for thread in self._threads
        )

    def end(self) -> None:
        """Closes the pool, and gives back what is still held; no thread and no channel is left."""
        self._pool.close(0)
        for lease in self._leases.values():
            lease.release()
        for thread in self._threads:
            thread.join(_PATIENCE)
            assert not thread.is_alive(), f"{thread.name} still waits"
        assert self._factory.open == []
        assert [thread.name for thread in threading.enumerate() if self._pool.name in thread.name] == []
