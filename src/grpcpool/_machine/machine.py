"""The pool as a state machine. Read this first.

The machine decides, a driver acts. The driver tells the machine what happens (someone asks for a place, a
connection is ready, time has passed) together with the moment, and the machine answers with effects: dial this,
close that, tell him. The machine has no clock, lock, thread, event loop, logging or gRPC, so that one machine serves
threads and asyncio, and can be driven through years of simulated life in a test.

How a driver uses it, always under its one lock::

    slot = machine.acquire(streams)                  # the fast way: a slot with room and no effect, or None
    effects = machine.request(waiter, now)           # the other way: grants, queues or refuses the waiter
    effects = machine.release(slot, streams, now)    # exactly once for each place taken
    ...
    effects = machine.tick(now)                      # when `next_deadline()` has come

and then, without the lock, carries the effects out. Between a grant and its delivery the waiter may give up:
`cancel` then says that he was no longer queued, and the driver releases the place that he was granted.

A signal's handler may raise amid a step that the main thread takes, as it may amid any line of Python. `acquire` and
`release`, which every call takes, are then as if they had not been begun; a release that serves who waits is finished
first.

The words: a *slot* is one connection (`_slot.py`); an *ask* is for some of its streams or, as `None`, for all of it
alone; a *place* is what `max_size` bounds (`_slot_table.py`). The queue holds who waits (`_queue.py`), the fleet
the connections (`_fleet.py`), its picker those with room (`_pickers.py`). Here they are brought together.

Invariants, checked after every step of the model test:
    1.  What the slots carry is what was granted and not released.
    2.  ``0 <= in_flight <= limit`` for each slot.
    3.  Nobody waits while a ready slot has the room that he asks for.
    4.  First come, first served, among equal asks.
    5.  Each waiter is answered exactly once.
    6.  Places never exceed `max_size`, plus `max_overflow` in loose mode.
    7.  A closed slot carries nothing; a slot that has drained is gone.
    8.  `next_deadline()` is never in the past after `tick(now)`.
    9.  After `close` there are no effects but closes and refusals, and in the end nothing is open.
    10. An exclusive lease is alone on its slot.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence

from .._values.config import PoolConfig, check_size
from .._values.errors import Figures, Refusal
from .._values.events import Granted, Opened, OpenFailed, RefusedStream, Rejected, TimedOut
from .._values.slot_states import CloseReason, SlotState
from .._values.stats import Counts, PoolStats
from .counters import slot_stats
from .effects import Close, Effect, Grant, Interrupted, Notify, Refuse, Started, Watch
from .fleet import Fleet
from .queue import Waiter, WaitQueue
from .slot import Slot, SlotEvent

NOTHING: Sequence[Effect] = ()

_READY, _CLOSED = SlotState.READY, SlotState.CLOSED


class OpenWaiter(Waiter):
    """Someone who waits in `open()` until the slots that he had dialled are ready."""

    __slots__ = ("made", "pending")

    def __init__(self, *, since: float, deadline: float) -> None:
        """Describes the wait; the machine fills in the slots."""
        super().__init__(None, since=since, deadline=deadline)
        self.pending: set[Slot] = set()
        self.made: set[Slot] = set()


class PoolMachine:
    """Decides what one pool does. The driver's lock is what makes it safe for threads."""

    def __init__(self, config: PoolConfig, *, name: str, random: Callable[[], float]) -> None:
        """Makes an empty pool, which opens nothing before it is first asked for something.

        Args:
            config: The settings; `min_size` and `max_size` may be changed by `resize`.
            name: What events and errors call the pool.
            random: Returns a float from 0 to below 1.
        """
        self.config = config
        self.name = name
        self.fleet = Fleet(config, name=name, random=random)
        self.queue = WaitQueue(config.resolved_target_streams)
        self.counters = self.fleet.counters
        self.closing = False
        self.last_error: BaseException | None = None
        self._slots = self.fleet.slots
        self._picker = self.fleet.picker
        # The fast way to a place, which every call takes, goes straight to the fleet. It passes nobody: by invariant 3
        # a slot that has room for an ask has it because nobody waits with the same.
        self.acquire = self.fleet.acquire
        self._openers: dict[OpenWaiter, None] = {}

    # --- asking and giving back ---------------------------------------------------------------------------------

    def request(self, waiter: Waiter, now: float) -> Sequence[Effect]:
        """Grants the waiter a place, or queues him, or refuses him.

        As with `acquire`, no earlier waiter with the same ask is passed.
        """
        if self.closing:
            return [self._refuse(waiter, Refusal.CLOSED, now)]
        effects: list[Effect] = []
        self.fleet.activate(now)
        slot = self._find(waiter)
        if slot is not None:
            self.fleet.acquire(waiter.streams, slot)
            effects.append(Grant(waiter, slot))
            if waiter.streams is not None:
                self.fleet.grow(now, effects)
        elif self.config.max_waiters is not None and self.queue.length >= self.config.max_waiters:
            self._reject(waiter, now, effects)
        elif waiter.fail_fast and self._hopeless() and now < self.fleet.backoff.retry_at:
            effects.append(self._refuse(waiter, Refusal.OPEN_FAILED, now))
            self._fill(now, effects)
        else:
            self._wait(waiter, now, effects)
        return effects

    def release(self, slot: Slot, streams: int | None, now: float) -> Sequence[Effect]:
        """Gives a place back. A slot that was closed with calls on it has forgotten them already."""
        state = slot.state
        if state is _CLOSED:
            return NOTHING
        before, used_at = slot.in_flight, slot.used_at
        if streams is None:
            slot.exclusive = False
            slot.in_flight = 0
        else:
            slot.in_flight = before - streams
        slot.used_at = now
        self.fleet.load -= streams or self.fleet.target
        if state is _READY:
            try:
                self._picker.reload(slot, before)
            except BaseException:
                slot.used_at = used_at
                self.fleet.undo(slot, before, -(streams or self.fleet.target), exclusive=streams is None)
                raise
            if not self.queue.length and not slot.overflow:
                return NOTHING
        effects: list[Effect] = []
        try:
            self._settle(slot, now, effects)
        except BaseException as interruption:  # noqa: BLE001 -- it is raised when all has been done
            # The place has been given back, and somebody may have been granted it already.
            effects.append(Interrupted(interruption))
            self._picker.mend(self._slots.in_state(_READY))
            self._settle(slot, now, effects)
        return effects

    def refused_stream(self, slot: Slot, now: float) -> Sequence[Effect]:
        """The server refused a call, for its own limit of streams: gives the place back, and lowers the slot's limit.

        That leaves no room on the slot for whoever waits: the server has just shown that it has none.
        """
        if slot.state is _CLOSED:
            return NOTHING
        self.fleet.lower_limit(slot, now, leaving=1)
        return [self._refused_stream(slot), *self.release(slot, 1, now)]

    def crowded(self, slot: Slot, now: float) -> Sequence[Effect]:
        """As `refused_stream`, of a call that has no place of its own: its lease keeps what it has."""
        if slot.state is _CLOSED:
            return NOTHING
        self.fleet.lower_limit(slot, now, leaving=0)
        if slot.state is _READY:
            self._picker.reload(slot, slot.in_flight)
        return [self._refused_stream(slot)]

    def _refused_stream(self, slot: Slot) -> Notify:
        return Notify(RefusedStream(pool=self.name, channel=slot.id, limit=slot.limit))

    def discard(self, slot: Slot, streams: int | None, now: float) -> Sequence[Effect]:
        """Gives a place back and closes its connection: at once, or when the calls of others on it have ended."""
        effects: list[Effect] = []
        if slot.state is _CLOSED:
            return effects
        if slot.state is not SlotState.DRAINING:
            self.fleet.retire(slot, CloseReason.DISCARDED, now, effects, leaving=streams or 1)
        elif slot.reason is CloseReason.SHRINK:
            # Else it could be taken back.
            slot.reason = CloseReason.DISCARDED
        effects.extend(self.release(slot, streams, now))
        self._fill(now, effects)
        return effects

    def cancel(self, waiter: Waiter, now: float) -> tuple[bool, Sequence[Effect]]:
        """The waiter gives up. Says whether he still waited; if not, his answer is decided and is his to undo."""
        if isinstance(waiter, OpenWaiter):
            if waiter not in self._openers:
                return False, NOTHING
            effects: list[Effect] = []
            self._undo_open(waiter, now, effects)
            self._fill(now, effects)
            return True, effects
        return self.queue.remove(waiter), NOTHING

    def others_who_wait(self, is_one: Callable[[Waiter], bool]) -> list[Waiter]:
        """Those of whom `is_one` is not true, in the queue or in `open()`."""
        return [waiter for waiter in (*self.queue, *self._openers) if not is_one(waiter)]

    # --- connections --------------------------------------------------------------------------------------------

    def open(self, waiter: OpenWaiter, now: float) -> Sequence[Effect]:
        """Dials what is missing to `min_size`; the waiter is told when all of it is ready, or some of it failed."""
        if self.closing:
            return [self._refuse(waiter, Refusal.CLOSED, now)]
        effects: list[Effect] = []
        self.fleet.activate(now)
        for _ in range(self.fleet.min_size - self._slots.connections):
            self.fleet.dial(now, effects)
        if len(self._slots.in_service()) < self.fleet.min_size:
            # Else what is being dialled is for others, who alone are concerned if it fails.
            waiter.pending = {slot for slot in self._slots.in_state(SlotState.OPENING) if slot.replaces is None}
        if not waiter.pending:
            return [*effects, Started(waiter)]
        self._openers[waiter] = None
        self.fleet.alarm_at(waiter.deadline)
        return effects

    def connect(self, now: float) -> Sequence[Effect]:
        """Someone wants the pool to be connected, and does not ask for a place."""
        effects: list[Effect] = []
        if not self.closing:
            self.fleet.activate(now)
            self._fill(now, effects)
            if not len(self._slots) and now >= self.fleet.backoff.retry_at:
                self.fleet.dial(now, effects)
        return effects

    def opened(self, slot: Slot, channel: object, now: float) -> Sequence[Effect]:
        """The slot's connection is ready and primed."""
        slot.channel = channel
        if slot.state is SlotState.CLOSED:
            return [Close(slot)]
        self.last_error = None
        effects: list[Effect] = [Notify(Opened(pool=self.name, channel=slot.id, seconds=now - slot.opened_at))]
        self.fleet.opened(slot, now, effects)
        self._tell_openers(slot, effects, made=True)
        self._settle(slot, now, effects)
        self.fleet.rotate(now, effects)
        self._fill(now, effects)
        self._rearm(now)
        return effects

    def open_failed(self, slot: Slot, error: BaseException, now: float) -> Sequence[Effect]:
        """The slot's connection could not be made. Who would rather fail than wait does so, if nothing else is up."""
        if slot.state is SlotState.CLOSED:
            return NOTHING
        self.last_error = error
        retry_in = self.fleet.open_failed(slot, now)
        effects: list[Effect] = [
            Close(slot),
            Notify(OpenFailed(pool=self.name, channel=slot.id, error=error, retry_in=retry_in)),
        ]
        for opener in [opener for opener in self._openers if slot in opener.pending]:
            effects.append(self._refuse(opener, Refusal.OPEN_FAILED, now))
            self._undo_open(opener, now, effects)
        self._fill(now, effects)
        self._rearm(now)
        return effects

    def lost(self, slot: Slot, error: BaseException | None, now: float) -> Sequence[Effect]:
        """The slot's connection is down: it gets nothing while another is up, and keeps what it carries.

        Why, says the `error`, if anybody knows.
        """
        slot.down = True
        self.last_error = error or self.last_error
        if slot.state is not SlotState.READY:
            return NOTHING
        self._picker.remove(slot)
        self._slots.move(slot, SlotEvent.LOST)
        effects: list[Effect] = [Watch(slot)]
        self._fill(now, effects)
        return effects

    def unfit(self, slot: Slot, streams: int | None, now: float) -> Sequence[Effect]:
        """The slot just granted turned out to be down: gives the place back, as if it had not been granted."""
        slot.calls -= 1
        return [*self.lost(slot, None, now), *self.release(slot, streams, now)]

    def recovered(self, slot: Slot, now: float) -> Sequence[Effect]:
        """The slot's connection is up again."""
        slot.down = False
        if slot.state is not SlotState.LOST:
            return NOTHING
        self.last_error = None
        self._slots.move(slot, SlotEvent.RECOVERED)
        self._picker.reload(slot, slot.in_flight)
        # A connection that came back is as good a proof as one that was opened.
        self.fleet.backoff.succeeded()
        effects: list[Effect] = []
        self._settle(slot, now, effects)
        self.fleet.rotate(now, effects)
        self._fill(now, effects)
        self._rearm(now)
        return effects

    # --- the whole pool -----------------------------------------------------------------------------------------

    def resize(self, min_size: int, max_size: int, now: float) -> Sequence[Effect]:
        """Changes the bounds; what is too many is drained, what is missing dialled.

        Raises:
            ValueError: The bounds contradict each other.
        """
        check_size(min_size, max_size)
        if self.closing:
            return NOTHING
        effects: list[Effect] = []
        self.fleet.resize(min_size, max_size, now, effects)
        self._tell_openers_of_closed(effects)
        self._fill(now, effects)
        self._rearm(now)
        return effects

    def refresh(self, now: float) -> Sequence[Effect]:
        """Has every connection of this moment replaced: a successor first, then the old one drains."""
        effects: list[Effect] = []
        self.fleet.refresh(now, effects)
        self._fill(now, effects)
        self._rearm(now)
        return effects

    def close(self, deadline: float, now: float) -> Sequence[Effect]:
        """Ends the pool: refuses who waits, closes what is idle, and the rest when its last ends or at `deadline`.

        A later `close` can only bring the end forward.
        """
        self.closing = True
        self.fleet.active = False
        effects: list[Effect] = []
        for waiter in [*self.queue, *self._openers]:
            self.queue.remove(waiter)
            effects.append(self._refuse(waiter, Refusal.CLOSED, now))
        self._openers.clear()
        for slot in self._slots:
            if slot.state is SlotState.DRAINING:
                slot.deadline = min(slot.deadline, deadline)
            elif slot in self._slots:
                self.fleet.retire(slot, CloseReason.POOL_CLOSED, now, effects, deadline=deadline)
        effects.extend(self.tick(now))
        return effects

    def stats(self, moment: Callable[[float], dt.datetime], now: float) -> PoolStats:
        """A snapshot; `moment` turns the driver's clock into a date."""
        slots = self._slots
        counters = self.counters
        return PoolStats(
            size=len(slots),
            ready=slots.ready,
            opening=slots.opening,
            draining=slots.draining,
            idle=sum(slot.state is SlotState.READY and slot.in_flight == 0 for slot in slots),
            in_flight=sum(slot.in_flight for slot in slots),
            waiting=self.queue.length,
            min_size=self.fleet.min_size,
            max_size=self.fleet.max_size,
            acquired=counters.acquired_of_closed + sum(slot.calls for slot in slots),
            waited=counters.waited,
            wait_seconds=counters.wait_seconds,
            timeouts=counters.timeouts,
            rejected=counters.rejected,
            refused_streams=counters.refused_streams,
            opened=counters.opened,
            open_failures=counters.open_failures,
            closed=Counts({str(reason): n for reason, n in counters.closed.items()}),
            channels=tuple(slot_stats(slot, moment) for slot in slots),
            taken_at=moment(now),
        )

    # --- time ---------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """The moment at which `tick` is due at the latest; `math.inf` for never."""
        return self.fleet.alarm

    def tick(self, now: float) -> Sequence[Effect]:
        """Does what the time has come for."""
        effects: list[Effect] = []
        while (waiter := self.queue.pop_expired(now)) is not None:
            self._expire(waiter, now, effects)
        for opener in [opener for opener in self._openers if opener.deadline <= now]:
            self.last_error = self.last_error or TimeoutError("not ready within the timeout of open()")
            effects.append(self._refuse(opener, Refusal.OPEN_FAILED, now))
            self._undo_open(opener, now, effects)
        for slot in self._slots:
            if slot not in self._slots:
                continue
            if slot.state is SlotState.OPENING and slot.deadline <= now:
                error = TimeoutError(f"not ready within connect_timeout, {self.config.connect_timeout} s")
                effects.extend(self.open_failed(slot, error, now))
            else:
                self.fleet.tick(slot, now, effects)
                if self.fleet.grow_limit(slot, now):
                    self._serve(slot, now, effects)
        self.fleet.rotate(now, effects)
        self.fleet.shrink(self.queue.asked, now, effects)
        self._fill(now, effects)
        self._rearm(now)
        return effects

    def _rearm(self, now: float) -> None:
        self.fleet.rearm(self.queue.asked, now)
        self.fleet.alarm_at(self.queue.next_deadline())
        for opener in self._openers:
            self.fleet.alarm_at(opener.deadline)

    # --- serving ------------------------------------------------------------------------------------------------

    def _find(self, waiter: Waiter) -> Slot | None:
        """A slot for the ask: ready, or, for one who would rather fail than wait when nothing is up, a lost one."""
        slot = self._picker.pick(waiter.streams)
        if slot is None and waiter.fail_fast and self._slots.ready == 0:
            down = [slot for slot in self._slots.in_state(SlotState.LOST) if slot.has_room(waiter.streams)]
            slot = min(down, key=lambda slot: slot.in_flight, default=None)
        return slot

    def _wait(self, waiter: Waiter, now: float, effects: list[Effect]) -> None:
        """Queues the waiter and dials for him; who has no time has asked once."""
        self.queue.push(waiter)
        self.fleet.alarm_at(waiter.deadline)
        self._fill(now, effects)
        if waiter.deadline <= now and self.queue.remove(waiter):
            self._expire(waiter, now, effects)

    def _fill(self, now: float, effects: list[Effect]) -> None:
        """Dials for those who wait, so far as may be; who would rather fail than wait does so if nothing is up."""
        while restored := self.fleet.fill(self.queue.asked, now, effects):
            for slot in restored:
                self._serve(slot, now, effects)
        if not self.queue.length or self._slots.ready:
            return
        for slot in self._slots.in_state(SlotState.LOST):
            self._serve(slot, now, effects)
        if self._hopeless():
            for waiter in [waiter for waiter in self.queue if waiter.fail_fast]:
                self.queue.remove(waiter)
                effects.append(self._refuse(waiter, Refusal.OPEN_FAILED, now))

    def _settle(self, slot: Slot, now: float, effects: list[Effect]) -> None:
        """A slot has come to have room: serves who waits; a slot that has become superfluous goes."""
        self._serve(slot, now, effects)
        if slot.in_flight:
            return
        if slot.state is SlotState.DRAINING:
            self.fleet.close(slot, slot.reason, effects)
            self._fill(now, effects)
            if self.closing:
                # Whoever waits for the end must not wait for a deadline that is nobody's any more.
                self._rearm(now)
        elif slot.overflow:
            slot.overflow = self._slots.connections > self.fleet.max_size
            if slot.overflow:
                self.fleet.retire(slot, CloseReason.OVERFLOW, now, effects)
                self._fill(now, effects)

    def _serve(self, slot: Slot, now: float, effects: list[Effect]) -> None:
        """Grants to those who wait, in turn, what the slot has room for."""
        down = slot.state is SlotState.LOST and self._slots.ready == 0
        if not down and slot.state is not SlotState.READY:
            return
        while self.queue.length and (waiter := self.queue.pop_fitting(slot, fail_fast=down)) is not None:
            self.fleet.acquire(waiter.streams, slot)
            waited = now - waiter.since
            self.counters.waited += 1
            self.counters.wait_seconds += waited
            effects.append(Grant(waiter, slot))
            effects.append(Notify(Granted(pool=self.name, channel=slot.id, waited=waited)))

    def _hopeless(self) -> bool:
        """Nothing is up, nothing is being dialled, and nothing is down that a call could soon fail on.

        The calls on a connection that is down end, and leave their places; who has leased all of it may keep it.
        """
        if self._slots.ready or self._slots.opening:
            return False
        return all(slot.exclusive for slot in self._slots.in_state(SlotState.LOST))

    # --- refusing -----------------------------------------------------------------------------------------------

    def _reject(self, waiter: Waiter, now: float, effects: list[Effect]) -> None:
        self.queue.push(waiter)
        self._fill(now, effects)
        if self.queue.remove(waiter):
            self.counters.rejected += 1
            effects.append(self._refuse(waiter, Refusal.EXHAUSTED, now))
            effects.append(Notify(Rejected(pool=self.name, waiting=self.queue.length)))

    def _expire(self, waiter: Waiter, now: float, effects: list[Effect]) -> None:
        self.counters.timeouts += 1
        effects.append(self._refuse(waiter, Refusal.TIMEOUT, now))
        effects.append(Notify(TimedOut(pool=self.name, waited=now - waiter.since)))

    def _refuse(self, waiter: Waiter, refusal: Refusal, now: float) -> Refuse:
        return Refuse(waiter, refusal, self.figures(now - waiter.since), self.last_error)

    def figures(self, waited: float = 0.0) -> Figures:
        """The numbers that an error tells."""
        return Figures(
            open=self._slots.ready + self._slots.lost,
            lost=self._slots.lost,
            opening=self._slots.opening,
            draining=self._slots.draining,
            max_size=self.fleet.max_size,
            in_flight=sum(slot.in_flight for slot in self._slots),
            waiting=self.queue.length,
            waited=waited,
        )

    # --- open() -------------------------------------------------------------------------------------------------

    def _tell_openers(self, slot: Slot, effects: list[Effect], *, made: bool) -> None:
        """A slot that openers may wait for is ready (`made`), or was given up."""
        for opener in [opener for opener in self._openers if slot in opener.pending]:
            opener.pending.discard(slot)
            if made:
                opener.made.add(slot)
            if not opener.pending:
                del self._openers[opener]
                effects.append(Started(opener))

    def _tell_openers_of_closed(self, effects: list[Effect]) -> None:
        for slot in {slot for opener in self._openers for slot in opener.pending}:
            if slot not in self._slots:
                self._tell_openers(slot, effects, made=False)

    def _undo_open(self, opener: OpenWaiter, now: float, effects: list[Effect]) -> None:
        """Closes what a failed `open()` had opened, unless others wait for it; then all is as if it had not been."""
        del self._openers[opener]
        shared = {slot for other in self._openers for slot in other.pending | other.made}
        if self.queue.length:
            shared |= opener.pending
        for slot in (opener.made | opener.pending) - shared:
            if slot in self._slots and slot.state is not SlotState.DRAINING:
                self.fleet.retire(slot, CloseReason.DISCARDED, now, effects)
        if not self.queue.length and not len(self._slots):
            self.fleet.active = False
