"""The machine as a world: does what a driver does between it and its callers, by hand and in one thread.

It does the least that a driver must do: it answers waiters, checks that a connection is up before it grants a lease on
it, reports losses and recoveries to the machine, and is never late for a deadline.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from grpcpool import (
    PoolClosedError,
    PoolConfig,
    PoolError,
    PoolExhaustedError,
    PoolOpenError,
    PoolStats,
    PoolTimeoutError,
)
from grpcpool._grpc.status import Status
from grpcpool._machine.addresses import Addressing
from grpcpool._machine.effects import Close, Effect, Grant, Look, Notify, Open, Refuse, Started, Watch
from grpcpool._machine.machine import PoolMachine
from grpcpool._machine.openers import OpenWaiter
from grpcpool._machine.places import Holding
from grpcpool._machine.queue import Waiter
from grpcpool._machine.slot import Slot
from grpcpool._values.errors import refusal_error
from grpcpool._values.slot_states import SlotState
from machine.drive import Recorder

from .log import Log, error_text, status_text

_CODES: dict[type[PoolError], grpc.StatusCode] = {
    PoolTimeoutError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    PoolExhaustedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    PoolOpenError: grpc.StatusCode.UNAVAILABLE,
    PoolClosedError: grpc.StatusCode.CANCELLED,
}


class _Request(Waiter):
    """A waiter that requests a lease or a call."""

    def __init__(self, caller: str, streams: int | None, *, is_call: bool, own_deadline: bool, **more: Any) -> None:
        super().__init__(streams, **more)
        self.caller = caller
        self.is_call = is_call
        self.own_deadline = own_deadline
        self.slot: Slot | None = None

    def again(self, now: float) -> _Request:
        """A new waiter with the same request."""
        return _Request(
            self.caller,
            self.streams,
            is_call=self.is_call,
            own_deadline=self.own_deadline,
            since=now,
            deadline=self.deadline,
            fail_fast=self.fail_fast,
        )

    def outcome(self, error: PoolError) -> str:
        """The answer, as the stories write it, if the pool refuses with `error`."""
        if not self.is_call:
            return error_text(error)
        late = isinstance(error, PoolTimeoutError) and self.own_deadline
        return status_text(grpc.StatusCode.DEADLINE_EXCEEDED if late else _CODES[type(error)], error)


class _Opener(OpenWaiter):
    """A waiter in `open()`."""

    def __init__(self, caller: str, *, since: float, deadline: float) -> None:
        super().__init__(since=since, deadline=deadline)
        self.caller = caller

    def outcome(self, error: PoolError) -> str:
        """The answer, as the stories write it, if the pool refuses with `error`."""
        return error_text(error)


class MachinePlayer:
    """Drives a `PoolMachine`."""

    def __init__(
        self,
        config: PoolConfig,
        log: Log,
        addresses: list[str] | None = None,
        endpoints: int = 1,
        *,
        random: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Creates an unused pool; `random` is the machine's source of randomness."""
        addressing = Addressing()
        if addresses is not None:
            addressing = Addressing(looked_up=True, discovered=endpoints == 1, every=30.0, endpoints=endpoints)
        self._machine = PoolMachine(config, name="story", random=random, addressing=addressing)
        self._addresses = addresses or []
        self._recorder = Recorder(self._machine)
        self._config = config
        self._log = log
        self._now = 1000.0
        self._slots: dict[int, Slot] = {}
        self._open: set[int] = set()
        self._down: set[int] = set()
        self._watched: set[int] = set()
        self._waiters: dict[str, _Request] = {}
        self._closers: list[str] = []

    # --- the driver's part --------------------------------------------------------------------------------------

    def _commit(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            self._carry_out(effect)
        while self._machine.next_deadline() <= self._now:
            self._commit(self._recorder.effects(self._machine.tick, self._now))
        if self._machine.closing and not len(self._machine.fleet.slots):
            for caller in self._closers:
                self._log.answer(caller, "closed")
            self._closers.clear()

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Open(slot=slot):
                self._slots[slot.id] = slot
                self._open.add(slot.id)
            case Close(slot=slot):
                self._close(slot)
            case Grant(waiter=_Request() as waiter, slot=slot):
                self._granted(waiter, slot)
            case Refuse(waiter=_Request() | _Opener() as waiter, refusal=refusal, figures=figures, cause=cause):
                error = refusal_error("story", refusal, figures, cause)
                self._log.answer(waiter.caller, waiter.outcome(error))
            case Started(waiter=_Opener(caller=caller)):
                self._log.answer(caller, "open")
            case Watch(slot=slot):
                self._watched.add(slot.id)
            case Look(number=number):
                self._look_up(number)
            case Notify(event=event):
                self._log.record(event)
            case _:
                raise AssertionError(f"no player can carry out {effect!r}")

    def _look_up(self, number: int) -> None:
        if self._addresses:
            self._commit(self._recorder.effects(self._machine.addresses_found, self._addresses, number, self._now))
        else:
            self._commit(
                self._recorder.effects(self._machine.look_up_failed, OSError("no such name"), number, self._now)
            )

    def _close(self, slot: Slot) -> None:
        self._open.discard(slot.id)
        for waiter in self._waiters.values():
            if waiter.slot is slot:
                waiter.slot = None
                if waiter.is_call:
                    self._log.answer(waiter.caller, status_text(grpc.StatusCode.CANCELLED))

    def _granted(self, waiter: _Request, slot: Slot) -> None:
        if not waiter.is_call and slot.id in self._down and slot.state is SlotState.READY:
            unfit = self._machine.unfit
            self._commit(self._recorder.effects(unfit, slot, waiter.streams, Holding(slot), waiter, self._now))
            self._request(waiter.again(self._now))
            return
        waiter.slot = slot
        self._log.answer(waiter.caller, slot.id)

    def _acquire(self, waiter: _Request) -> None:
        slot = self._recorder.acquire(waiter.streams)
        if slot is None:
            self._request(waiter)
        else:
            self._waiters[waiter.caller] = waiter
            self._granted(waiter, slot)

    def _request(self, waiter: _Request) -> None:
        self._waiters[waiter.caller] = waiter
        self._commit(self._recorder.effects(self._machine.request, waiter, self._now))

    def _deadline(self, timeout: float | None) -> float:
        return math.inf if timeout is None else self._now + timeout

    def _drop_grant(self, caller: str) -> Slot | None:
        """The caller gives up its grant; `None` if it no longer has one."""
        slot, self._waiters[caller].slot = self._waiters[caller].slot, None
        return slot

    # --- the callers' part --------------------------------------------------------------------------------------

    def acquire(self, caller: str, streams: int | None = None, **timeout: float | None) -> None:
        """A caller requests a lease."""
        deadline = self._deadline(timeout.get("timeout", self._config.acquire_timeout))
        self._acquire(_Request(caller, streams, is_call=False, own_deadline=False, since=self._now, deadline=deadline))

    def release(self, caller: str) -> None:
        """The caller releases its lease."""
        if (slot := self._drop_grant(caller)) is not None:
            self._commit(self._recorder.release(slot, self._waiters[caller].streams, self._now))

    def discard(self, caller: str) -> None:
        """The caller discards its lease."""
        if (slot := self._drop_grant(caller)) is not None:
            self._commit(
                self._recorder.effects(
                    self._machine.discard, slot, self._waiters[caller].streams, Holding(slot), self._now
                )
            )

    def call(self, caller: str, on: str | None = None, **how: Any) -> None:
        """A caller makes a call."""
        assert on is None, "the machine does not know calls on leases"
        self.begin(caller, **how)

    def begin(self, caller: str, *, timeout: float | None = None, wait_for_ready: bool = False) -> None:
        """A caller begins a call."""
        deadline = self._deadline(self._config.acquire_timeout if timeout is None else timeout)
        waiter = _Request(
            caller,
            1,
            is_call=True,
            own_deadline=timeout is not None,
            since=self._now,
            deadline=deadline,
            fail_fast=not wait_for_ready,
        )
        self._acquire(waiter)

    def finish(self, caller: str) -> None:
        """The server answers."""
        self._end_call(caller, grpc.StatusCode.OK)

    def fail(self, caller: str, code: str) -> None:
        """The call fails."""
        self._end_call(caller, grpc.StatusCode[code])

    def _end_call(self, caller: str, code: grpc.StatusCode) -> None:
        slot = self._drop_grant(caller)
        assert slot is not None
        if code is grpc.StatusCode.UNAVAILABLE and slot.id in self._down:
            self._commit(self._recorder.effects(self._machine.lost, slot, None, self._now))
        if Status(code, "").is_of_sick_server:
            self._commit(self._recorder.effects(self._machine.failed, slot, code, self._now))
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            since = self._waiters[caller].since
            self._commit(self._recorder.effects(self._machine.unanswered, slot, Holding(slot), since, self._now))
        else:
            self._commit(self._recorder.release(slot, 1, self._now))
        self._log.answer(caller, status_text(code))

    def refuse(self, caller: str) -> None:
        """The server refuses the stream; the call is requested again."""
        slot = self._drop_grant(caller)
        assert slot is not None
        self._commit(self._recorder.effects(self._machine.refused_stream, slot, Holding(slot), self._now, self._now))
        again = self._waiters[caller].again(self._now)
        again.not_before = self._now + 0.01
        self._request(again)

    def cancel(self, caller: str) -> None:
        """The caller cancels its request or its call."""
        waiter = self._waiters[caller]
        waited, effects = self._recorder.cancel(waiter, self._now)
        self._commit(effects)
        assert waited is (waiter.slot is None)
        self._log.answer(caller, "cancelled")
        self.release(caller)

    # --- the whole pool -----------------------------------------------------------------------------------------

    def open(self, caller: str, timeout: float | None = None) -> None:
        """A caller calls `open()`."""
        opener = _Opener(caller, since=self._now, deadline=self._deadline(timeout))
        self._commit(self._recorder.effects(self._machine.open, opener, self._now))

    def close(self, caller: str, grace: float | None = None) -> None:
        """A caller calls `close()`."""
        seconds = self._config.close_grace if grace is None else grace
        self._closers.append(caller)
        self._commit(self._recorder.effects(self._machine.close, self._now + seconds, self._now))

    def resize(self, bounds: dict[str, int]) -> None:
        """The bounds change."""
        fleet = self._machine.fleet
        new = {"min_size": fleet.min_size, "max_size": fleet.max_size} | bounds
        self._commit(self._recorder.effects(self._machine.resize, *new.values(), self._now))

    def finds(self, addresses: list[str] | str) -> None:
        """From now on look-ups find these."""
        self._addresses = [] if isinstance(addresses, str) else addresses

    def refresh(self, what: str) -> None:
        """`refresh()` is called."""
        self._commit(self._recorder.effects(self._machine.refresh, self._now))

    def advance(self, seconds: float) -> None:
        """Time passes; what becomes due happens."""
        self._now += seconds
        for number in self._watched & self._down:
            # As gRPC, which has tried by then.
            self._slots[number].pauses = True
        self._commit(())

    # --- connections --------------------------------------------------------------------------------------------

    def connects(self, number: int) -> None:
        """The connection is ready."""
        self._commit(self._recorder.effects(self._machine.opened, self._slots[number], object(), self._now))

    def fails(self, number: int) -> None:
        """The connection could not be opened."""
        self._commit(
            self._recorder.effects(
                self._machine.unreachable, self._slots[number], object(), ConnectionError("refused"), self._now
            )
        )

    def down(self, number: int) -> None:
        """The connection goes down, unnoticed so far."""
        self._down.add(number)

    def up(self, number: int) -> None:
        """The connection is up again; if it was watched, this is noticed a second later."""
        self._down.remove(number)
        self.advance(1)
        if number in self._watched:
            self._watched.remove(number)
            self._commit(self._recorder.effects(self._machine.recovered, self._slots[number], self._now))

    # --- observation --------------------------------------------------------------------------------------------

    def stats(self) -> PoolStats:
        """The machine's snapshot."""
        return self._machine.stats(lambda at: dt.datetime.fromtimestamp(at, tz=dt.UTC), self._now)

    def connections(self) -> int:
        """The number of connections that the machine wanted open and did not close."""
        return len(self._open)

    def settle(self, condition: Callable[[], bool]) -> None:
        """Does nothing: the machine is always at rest."""

    def end(self) -> None:
        """Closes the pool and releases what is still held."""
        self.close("end", 0.0)
        assert self._closers == []
        for caller in self._waiters:
            self.release(caller)
