"""The machine as a world: what a driver does between it and people, done by hand and in one thread.

This is the least that a driver must be: it answers who asked, looks whether a connection that it hands to a lease is
up, tells the machine of what goes down and comes up, and is never late for a deadline.
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
from grpcpool._machine.effects import Close, Effect, Grant, Notify, Open, Refuse, Started, Watch
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


class _Asker(Waiter):
    """Somebody who asks for a place, for a lease or for a call."""

    def __init__(self, who: str, streams: int | None, *, is_call: bool, own_deadline: bool, **more: Any) -> None:
        super().__init__(streams, **more)
        self.who = who
        self.is_call = is_call
        self.own_deadline = own_deadline
        self.slot: Slot | None = None

    def again(self, now: float) -> _Asker:
        """The same, asking anew."""
        return _Asker(
            self.who,
            self.streams,
            is_call=self.is_call,
            own_deadline=self.own_deadline,
            since=now,
            deadline=self.deadline,
            fail_fast=self.fail_fast,
        )

    def told(self, error: PoolError) -> str:
        """What he is told for the pool's error."""
        if not self.is_call:
            return error_text(error)
        late = isinstance(error, PoolTimeoutError) and self.own_deadline
        return status_text(grpc.StatusCode.DEADLINE_EXCEEDED if late else _CODES[type(error)], error)


class _Opener(OpenWaiter):
    """Somebody who waits in `open()`."""

    def __init__(self, who: str, *, since: float, deadline: float) -> None:
        super().__init__(since=since, deadline=deadline)
        self.who = who

    def told(self, error: PoolError) -> str:
        """What he is told for the pool's error."""
        return error_text(error)


class MachinePlayer:
    """Drives a `PoolMachine`."""

    def __init__(self, config: PoolConfig, log: Log, *, random: Callable[[], float] = lambda: 0.0) -> None:
        """Makes an unused pool; `random` are the dice that it throws."""
        self._machine = PoolMachine(config, name="story", random=random)
        self._recorder = Recorder(self._machine)
        self._config = config
        self._log = log
        self._now = 1000.0
        self._slots: dict[int, Slot] = {}
        self._open: set[int] = set()
        self._down: set[int] = set()
        self._watched: set[int] = set()
        self._askers: dict[str, _Asker] = {}
        self._closers: list[str] = []

    # --- what a driver does -------------------------------------------------------------------------------------

    def _commit(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            self._carry_out(effect)
        while self._machine.next_deadline() <= self._now:
            self._commit(self._recorder.effects(self._machine.tick, self._now))
        if self._machine.closing and not len(self._machine.fleet.slots):
            for who in self._closers:
                self._log.answer(who, "closed")
            self._closers.clear()

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Open(slot=slot):
                self._slots[slot.id] = slot
                self._open.add(slot.id)
            case Close(slot=slot):
                self._close(slot)
            case Grant(waiter=_Asker() as asker, slot=slot):
                self._granted(asker, slot)
            case Refuse(waiter=_Asker() | _Opener() as waiter, refusal=refusal, figures=figures, cause=cause):
                error = refusal_error("story", refusal, figures, cause)
                self._log.answer(waiter.who, waiter.told(error))
            case Started(waiter=_Opener(who=who)):
                self._log.answer(who, "open")
            case Watch(slot=slot):
                self._watched.add(slot.id)
            case Notify(event=event):
                self._log.tell(event)
            case _:
                raise AssertionError(f"nobody can carry out {effect!r}")

    def _close(self, slot: Slot) -> None:
        self._open.discard(slot.id)
        for asker in self._askers.values():
            if asker.slot is slot:
                asker.slot = None
                if asker.is_call:
                    self._log.answer(asker.who, status_text(grpc.StatusCode.CANCELLED))

    def _granted(self, asker: _Asker, slot: Slot) -> None:
        if not asker.is_call and slot.id in self._down and slot.state is SlotState.READY:
            self._commit(self._recorder.effects(self._machine.unfit, slot, asker.streams, Holding(slot), self._now))
            self._request(asker.again(self._now))
            return
        asker.slot = slot
        self._log.answer(asker.who, slot.id)

    def _ask(self, asker: _Asker) -> None:
        slot = self._recorder.acquire(asker.streams)
        if slot is None:
            self._request(asker)
        else:
            self._askers[asker.who] = asker
            self._granted(asker, slot)

    def _request(self, asker: _Asker) -> None:
        self._askers[asker.who] = asker
        self._commit(self._recorder.effects(self._machine.request, asker, self._now))

    def _deadline(self, timeout: float | None) -> float:
        return math.inf if timeout is None else self._now + timeout

    def _leave(self, who: str) -> Slot | None:
        """Somebody gives up his place; `None` if he has none any more."""
        slot, self._askers[who].slot = self._askers[who].slot, None
        return slot

    # --- what people do -----------------------------------------------------------------------------------------

    def acquire(self, who: str, streams: int | None = None, **timeout: float | None) -> None:
        """Somebody asks for a lease."""
        deadline = self._deadline(timeout.get("timeout", self._config.acquire_timeout))
        self._ask(_Asker(who, streams, is_call=False, own_deadline=False, since=self._now, deadline=deadline))

    def release(self, who: str) -> None:
        """He gives it back."""
        if (slot := self._leave(who)) is not None:
            self._commit(self._recorder.release(slot, self._askers[who].streams, self._now))

    def discard(self, who: str) -> None:
        """He gives it back to be closed."""
        if (slot := self._leave(who)) is not None:
            self._commit(
                self._recorder.effects(self._machine.discard, slot, self._askers[who].streams, Holding(slot), self._now)
            )

    def call(self, who: str, on: str | None = None, **how: Any) -> None:
        """Somebody makes a call."""
        assert on is None, "the machine knows no calls of leases"
        self.begin(who, **how)

    def begin(self, who: str, *, timeout: float | None = None, wait_for_ready: bool = False) -> None:
        """Somebody begins a call."""
        deadline = self._deadline(self._config.acquire_timeout if timeout is None else timeout)
        asker = _Asker(
            who,
            1,
            is_call=True,
            own_deadline=timeout is not None,
            since=self._now,
            deadline=deadline,
            fail_fast=not wait_for_ready,
        )
        self._ask(asker)

    def finish(self, who: str) -> None:
        """The server answers."""
        self._end_call(who, grpc.StatusCode.OK)

    def fail(self, who: str, code: str) -> None:
        """The call fails."""
        self._end_call(who, grpc.StatusCode[code])

    def _end_call(self, who: str, code: grpc.StatusCode) -> None:
        slot = self._leave(who)
        assert slot is not None
        if code is grpc.StatusCode.UNAVAILABLE and slot.id in self._down:
            self._commit(self._recorder.effects(self._machine.lost, slot, None, self._now))
        self._commit(self._recorder.release(slot, 1, self._now))
        self._log.answer(who, status_text(code))

    def refuse(self, who: str) -> None:
        """The server refuses the stream; the call asks for another place."""
        slot = self._leave(who)
        assert slot is not None
        self._commit(self._recorder.effects(self._machine.refused_stream, slot, Holding(slot), self._now))
        self._request(self._askers[who].again(self._now))

    def cancel(self, who: str) -> None:
        """He gives up, waiting or not."""
        asker = self._askers[who]
        waited, effects = self._recorder.cancel(asker, self._now)
        self._commit(effects)
        assert waited is (asker.slot is None)
        self._log.answer(who, "cancelled")
        self.release(who)

    # --- the whole pool -----------------------------------------------------------------------------------------

    def open(self, who: str, timeout: float | None = None) -> None:
        """Somebody calls `open()`."""
        opener = _Opener(who, since=self._now, deadline=self._deadline(timeout))
        self._commit(self._recorder.effects(self._machine.open, opener, self._now))

    def close(self, who: str, grace: float | None = None) -> None:
        """Somebody calls `close()`."""
        seconds = self._config.close_grace if grace is None else grace
        self._closers.append(who)
        self._commit(self._recorder.effects(self._machine.close, self._now + seconds, self._now))

    def resize(self, bounds: dict[str, int]) -> None:
        """The bounds change."""
        fleet = self._machine.fleet
        new = {"min_size": fleet.min_size, "max_size": fleet.max_size} | bounds
        self._commit(self._recorder.effects(self._machine.resize, *new.values(), self._now))

    def refresh(self, what: str) -> None:
        """All connections are to be replaced."""
        self._commit(self._recorder.effects(self._machine.refresh, self._now))

    def advance(self, seconds: float) -> None:
        """Time passes; what is due is done."""
        self._now += seconds
        self._commit(())

    # --- connections --------------------------------------------------------------------------------------------

    def connects(self, number: int) -> None:
        """That connection is made."""
        self._commit(self._recorder.effects(self._machine.opened, self._slots[number], object(), self._now))

    def fails(self, number: int) -> None:
        """That connection cannot be made."""
        self._commit(
            self._recorder.effects(
                self._machine.open_failed, self._slots[number], ConnectionError("refused"), self._now
            )
        )

    def down(self, number: int) -> None:
        """That connection goes down; nobody has noticed yet."""
        self._down.add(number)

    def up(self, number: int) -> None:
        """That connection is up again; whoever watches over it has noticed a second later."""
        self._down.remove(number)
        self.advance(1)
        if number in self._watched:
            self._watched.remove(number)
            self._commit(self._recorder.effects(self._machine.recovered, self._slots[number], self._now))

    # --- what is seen -------------------------------------------------------------------------------------------

    def stats(self) -> PoolStats:
        """The machine's own figures."""
        return self._machine.stats(lambda at: dt.datetime.fromtimestamp(at, tz=dt.UTC), self._now)

    def connections(self) -> int:
        """Those that the machine wanted open and not closed."""
        return len(self._open)

    def settle(self, is_so: Callable[[], bool]) -> None:
        """The machine is always at rest."""

    def end(self) -> None:
        """Closes the pool."""
        self.close("end", 0.0)
        assert self._closers == []
        for who in self._askers:
            self.release(who)
