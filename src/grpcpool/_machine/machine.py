"""The pool as a state machine. Read this first.

The machine decides, a driver acts. The driver reports what happens (a caller asks for a place, a connection is ready,
time has passed) together with the moment. The machine puts effects into its outbox: dial this, close that, grant this
waiter its place. The machine has no clock, lock, thread, event loop, logging or gRPC. One machine therefore serves
threads and asyncio, and a test can drive it through years of simulated life.

How a driver uses it, always under its one lock::

    slot = machine.places.take(holder)                  # the fast way of a call: a slot with room, or None
    slot = machine.places.take_whole(holder)            # the same for a whole connection
    slot = machine.places.acquire(streams, holder)      # the same for other asks
    machine.request(waiter, now)                        # the other way: grants, queues or refuses the waiter
    if machine.places.release(slot, streams, now, holder):    # exactly once for each place
        machine.settle(slot, now)                       # serves waiters
    ...
    machine.tick(now)                                   # when `next_deadline()` has come

After each step, without the lock, the driver carries out what is in the outbox. Between a decision and its delivery the
waiter may give up: `cancel` then returns `False`, and the driver releases the place that the waiter holds.

An exception may end any step halfway, because CPython runs signal handlers in the main thread when a function begins,
when one of C has returned, and when a loop repeats. The driver then calls `repair`, which derives what is derived and
completes what was begun. No place, waiter or connection is lost: what cannot be derived changes in one go
(`places.py`), and a decision is part of the waiter.

The words: a *slot* holds one connection (`slot.py`). A *place* is one stream on a slot; the places of a pool
(`places.py`) have the order of its *picker*: which slot serves next (`pickers.py`). An *ask* is for some streams of one
slot or, as `None`, for a whole connection. The queue holds the waiters (`queue.py`), which get their answers in
`grants.py`; one of them may have a slot *reserved* (`reservation.py`). The fleet holds the connections (`fleet.py`).
When they are opened is decided in `growing.py`, when there are too many in `shrinking.py`, when they are replaced in
`replacing.py`; how many calls each may carry is found out in `limits.py`, where they lead is decided in `addresses.py`.
Those with a *handicap* (`handicaps.py`), or without an answer (`silence.py`), lead to sick servers; those in *doubt*
(`doubts.py`) may be down. Which target is used is decided in `endpoints.py` and `failover.py`, what calls get while
nothing is up in `outage.py`, and how a pool ends in `closing.py`. `__init__.py` has the invariants.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Callable, Sequence

from .._values.config import PoolConfig, check_size
from .._values.errors import Figures, Refusal
from .._values.events import Opened, OpenFailed, Recovered
from .._values.slot_states import CloseReason, SlotState
from .._values.stats import PoolStats
from .addresses import Addressing
from .closing import Closing
from .counters import pool_stats
from .deadlines import Deadlines
from .effects import Close, Grant, Notify, Outbox, Watch
from .endpoints import Endpoints
from .fleet import Fleet
from .grants import Grants
from .growing import Growing
from .open_queue import OpenQueue
from .openers import OpenWaiter
from .outage import Outage
from .pickers import make_places
from .places import Holder
from .queue import Waiter, WaitQueue
from .repair import Repair
from .replacing import Replacing
from .shrinking import Shrinking
from .slot import Slot
from .slot_table import SlotTable


class PoolMachine:
    """Decides what one pool does. The driver's lock makes it safe for threads."""

    def __init__(
        self,
        config: PoolConfig,
        *,
        name: str,
        random: Callable[[], float],
        primes: bool = False,
        addressing: Addressing = Addressing(),  # noqa: B008 -- it is immutable
    ) -> None:
        """Creates an empty pool, which opens nothing before its first use.

        Args:
            config: The settings; `min_size` and `max_size` may be changed by `resize`.
            name: The pool's name in events and errors.
            random: Returns a float from 0 to below 1.
            primes: Whether connections are primed, also when they come back. Until then they get no calls.
            addressing: How the addresses are known to which connections lead; by default they are not.
        """
        self.config = config
        self.name = name
        self.outbox = Outbox()
        self.queue = WaitQueue(config.resolved_target_streams)
        self._slots = SlotTable()
        self.places = make_places(config, self._slots, self.queue, random)
        self.fleet = Fleet(config, self.places, self.outbox, name=name, random=random, addressing=addressing)
        self.replacing = Replacing(self.fleet)
        self.growing = Growing(self.fleet)
        self.shrinking = Shrinking(self.fleet, self.growing)
        self.counters = self.fleet.counters
        self.outage = Outage(self.fleet, self.replacing, self.queue, self.outbox, primes=primes)
        self.grants = Grants(self.fleet, self.growing, self.queue, self.outage)
        self.openers = OpenQueue(self.fleet, self.queue, self.outbox, self.grants.refuse)
        self.endpoints = Endpoints(self.fleet, random, addressing.endpoints, self.outage.which_are_needed)
        self.deadlines = Deadlines(
            self.fleet, self.growing, self.shrinking, self.replacing, self.endpoints, self.queue, self.openers
        )
        self._repair = Repair(self.fleet, self.queue, self.grants, self.openers)
        self._closing = Closing(self.fleet, self.queue, self.grants, self.openers)
        self.closing = False

    # --- asking and releasing -----------------------------------------------------------------------------------

    def request(self, waiter: Waiter, now: float) -> None:
        """Grants the waiter a place, or queues it, or refuses it.

        As with `Places.acquire`, no earlier waiter with the same ask is passed.
        """
        if self.closing:
            self.grants.refuse(waiter, Refusal.CLOSED, now)
            return
        if waiter.not_before > now:
            self.queue.pause(waiter)
            self.fleet.alarm_at(min(waiter.not_before, waiter.deadline))
            return
        if not self.fleet.active or self.fleet.usage.rests:
            self.fleet.activate(now)
        if self._slots.lost and not self._slots.ready:
            self.outage.connect_for_ask(now)
        slot = self.places.pick(waiter.streams) or self.outage.slot_for(waiter)
        if slot is not None:
            self.places.acquire(waiter.streams, waiter, slot)
            self.outbox.append(Grant(waiter, slot))
            if waiter.streams is not None:
                for taken_back in self.growing.grow(now):
                    self.settle(taken_back, now)
        elif self.grants.is_full():
            self.grants.reject(waiter, now)
        elif waiter.fail_fast and self.outage.is_hopeless() and not self.outage.dial_for_call(now):
            self.grants.refuse(waiter, Refusal.OPEN_FAILED, now)
            self.grants.fill(now)
        else:
            self.grants.wait(waiter, now)

    def settle(self, slot: Slot, now: float) -> None:
        """A place has been released: it has passed on, or the slot has room for waiters, or has become superfluous."""
        reserved = self.grants.reservation.slot
        heir, self.places.heir = self.places.heir, None
        if heir is not None and heir.number and heir._slot is slot:
            self.grants.grant(heir, slot, now)
        else:
            # After an interruption the heir may be another slot's, or have left the queue.
            self.grants.serve(slot, now)
        if slot.exclusive and reserved is None:
            # All of it has passed to a waiter: there is nothing to reserve, see `reservation.py`.
            return
        self.grants.review(now)
        if slot.in_flight or slot.kept:
            return
        if slot.state is SlotState.DRAINING:
            self.fleet.close(slot, slot.reason)
            self.grants.fill(now)
            if self.closing:
                self.deadlines.rearm(now)  # Otherwise the end would wait for a deadline that is gone.
        elif slot.overflow and slot.state is not SlotState.CLOSED:
            self.shrinking.end_overflow(slot, self.queue.asked, now)
            self.grants.fill(now)

    def refused_stream(self, slot: Slot, holder: Holder, began: float, now: float) -> bool:
        """The server refused a call: releases the place. Lowers the slot's limit if that is why, see `limits.py`.

        A lower limit leaves no room on the slot for waiters: the server has just shown that it has none.

        Returns:
            Whether the call may be sent again without a pause: the server sheds load, and has answered others.
        """
        sheds = slot.state is not SlotState.CLOSED and self.fleet.limits.refused(slot, began, now, leaving=1)
        answers, slot.refused_at = slot.used_at > slot.refused_at, now
        if sheds:
            self.fleet.handicaps.add(slot, None, now)
        self.release(slot, 1, holder, now, answered=True)
        if sheds:
            self.grants.serve_all(now)
        return sheds and answers

    def note_refusal(self, slot: Slot, calls: int, began: float, now: float) -> None:
        """As `refused_stream`, but releases nothing: for one of the `calls` on a lease, or one without a place."""
        if slot.state is SlotState.CLOSED:
            return
        if self.fleet.limits.refused(slot, began, now, calls=calls):
            self.fleet.handicaps.add(slot, None, now)
        if slot.state is SlotState.READY:
            self.places.refresh(slot)
        self.grants.serve_all(now)

    def failed(self, slot: Slot, code: enum.Enum, now: float) -> None:
        """A call on the slot failed with `code` as calls do on a sick server. Its place is released afterwards."""
        if slot.state is not SlotState.CLOSED:
            self.fleet.handicaps.failed(slot, code, now)

    def unanswered(self, slot: Slot, holder: Holder | None, began: float, now: float) -> None:
        """A call on the slot ended without an answer: at its deadline, or it was cancelled. Releases its place.

        Args:
            slot: The slot.
            holder: Holds the place; `None` for a call without a place of its own: its lease keeps what it has.
            began: When the call began; `math.inf` if it was cancelled.
            now: The moment.
        """
        if slot.state is not SlotState.CLOSED:
            self.fleet.silence.unanswered(slot, began, now)
            slot.used_at = now
        if holder is not None and not holder._released:
            self.release(slot, 1, holder, now)
        if slot.overdue_calls and slot.state is SlotState.READY:
            self.replacing.review_silence(slot, self.queue.asked, now)

    def discard(self, slot: Slot, streams: int | None, holder: Holder, now: float) -> None:
        """Releases a place and closes its connection: at once, or when the calls of others on it have ended."""
        if slot.state is SlotState.CLOSED:
            holder._released = True
            return
        if slot.state is not SlotState.DRAINING:
            self.fleet.retire(slot, CloseReason.DISCARDED, now, leaving=streams or 1)
        else:
            # It could be taken back otherwise.
            self.fleet.not_to_take_back(slot, CloseReason.DISCARDED, now)
        self.release(slot, streams, holder, now)
        self.grants.fill(now)

    def cancel(self, waiter: Waiter, now: float) -> bool:
        """The waiter gives up. Returns whether it still waited; if not, its answer is decided."""
        queued = self.queue.remove(waiter)
        self.grants.review(now)
        return queued

    def release(self, slot: Slot, streams: int | None, holder: Holder, now: float, *, answered: bool = False) -> None:
        """Releases a place, and serves waiters with it; `answered`: the server has answered its call."""
        release = self.places.release if answered else self.places.release_unanswered
        if release(slot, streams, now, holder):
            self.settle(slot, now)

    # --- connections --------------------------------------------------------------------------------------------

    def connect(self, now: float) -> None:
        """A user wants a connection to be ready, and asks for no place. Called again as long as it is waited for."""
        if self.closing:
            return
        self.fleet.activate(now)
        if not self._slots.ready:
            self.outage.recall(now)
        self.grants.fill(now, least=1)

    def open(self, opener: OpenWaiter, now: float) -> None:
        """Dials what is missing to `min_size`; the opener is notified when all is ready, or some of it failed."""
        if self.closing:
            self.grants.refuse(opener, Refusal.CLOSED, opener.since)
            return
        self.fleet.activate(now)
        self.endpoints.open_again(now)
        self.openers.add(opener, now)

    def cancel_open(self, opener: OpenWaiter, now: float) -> bool:
        """The opener gives up. Returns whether it still waited; what was dialled for it alone is closed."""
        waited = self.openers.cancel(opener, now)
        if waited:
            self.grants.fill(now)
        return waited

    def opened(self, slot: Slot, channel: object, now: float) -> None:
        """The slot's connection is ready and primed."""
        slot.channel = channel
        if slot.state is SlotState.CLOSED:
            self.outbox.append(Close(slot))
            return
        if slot.probes:
            self.outbox.append(Notify(Opened(pool=self.name, channel=slot.id, seconds=now - slot.opened_at)))
            self.endpoints.opened(slot, now)
            self._reconcile(now)
            return
        if slot.been_up or slot.state is SlotState.DRAINING:
            return  # It was unreachable within its time, and has been up, or been retired, since.
        slot.down = False
        self.outage.cause = None
        self.outbox.append(Notify(Opened(pool=self.name, channel=slot.id, seconds=now - slot.opened_at)))
        self.fleet.opened(slot, now)
        self._reconcile(now, slot)
        self.shrinking.end_superfluous(self.queue.asked, now)

    def open_failed(self, slot: Slot, error: BaseException, now: float) -> None:
        """The slot's connection could not be made. Some waiters fail: see `outage.py`."""
        if self._dial_failed(slot, error, now):
            self._reconcile(now)

    def unreachable(self, slot: Slot, channel: object, error: BaseException, now: float) -> None:
        """The slot's channel does not connect: as `open_failed`, unless calls need it, see `outage.py`."""
        if slot.state is SlotState.CLOSED:
            slot.channel = channel
            self.outbox.append(Close(slot))
        elif self._dial_failed(slot, error, now, channel):
            self._reconcile(now, slot)

    def _dial_failed(self, slot: Slot, error: BaseException, now: float, channel: object = None) -> bool:
        """A dial has failed, maybe with a `channel` that does not connect; returns whether `_reconcile` has to follow.

        The slot may have been kept, with room for calls.
        """
        if slot.state is not SlotState.OPENING:
            return False
        if slot.probes:
            self.endpoints.open_failed(slot, error, now)
            return False
        self.outage.cause = error
        if channel is not None and not self.closing and self.outage.needs_channel(slot, now, self.openers.awaits):
            slot.channel, slot.down = channel, True
            retry_in = self.fleet.unreachable(slot, now)
        else:
            self.outage.makes_channels = channel is not None
            if self.fleet.addresses.is_of_race(slot):
                self.openers.replaced(slot, self.fleet.dial_other_family(slot, now))
                return True
            retry_in = self.fleet.open_failed(slot, now)
        self.outbox.append(Notify(OpenFailed(pool=self.name, channel=slot.id, error=error, retry_in=retry_in)))
        self.openers.open_failed(slot, now)
        return True

    def lost(self, slot: Slot, error: BaseException | None, now: float) -> None:
        """The slot's connection is down, by `error`: it gets nothing while another is up, and keeps what it carries."""
        slot.down, slot.lost_by_call = True, error is not None
        if slot.kept:
            self.endpoints.lost(slot, now)
            return
        self.outage.cause = error or self.outage.cause
        if slot.state is SlotState.READY:
            self.fleet.lost(slot, now)
        elif slot.state is not SlotState.LOST or not slot.blocked:
            return
        self.outage.is_blocked_no_more(slot)
        self.outage.announce(slot, error)
        if error is not None:
            self.outage.retire_unused_as_long(slot, now)
        self.fleet.doubts.review(slot, now)
        self.grants.fill(now)

    def blocked(self, slot: Slot, now: float, *, for_good: bool = False) -> None:
        """GRPC was interrupted on the slot's channel: out of service until a check, or `for_good`; not called lost."""
        slot.blocked = True
        slot.broken = slot.broken or for_good
        if slot.kept:
            self.endpoints.lost(slot, now)
        elif slot.state is SlotState.READY:
            self.fleet.lost(slot, now)
        elif slot.state is SlotState.LOST:
            self.outbox.append(Watch(slot))
        self.outage.is_blocked(slot, now, for_good=for_good)
        self.grants.fill(now)

    def unfit(self, slot: Slot, streams: int | None, holder: Holder, waiter: Waiter | None, now: float) -> None:
        """The slot just granted turned out to be down: releases the place, as if it had not been granted."""
        self.grants.uncount(slot, waiter)
        self.lost(slot, None, now)
        self.release(slot, streams, holder, now)

    def recovered(self, slot: Slot, now: float) -> None:
        """The slot's connection is up again. A check that finds that may have begun before the connection broke."""
        if slot.broken:
            return
        slot.down = slot.blocked = False
        if slot.state is not SlotState.LOST:
            return
        if not slot.been_up:
            self.opened(slot, slot.channel, now)
            return
        self.outage.cause = None
        self.fleet.recovered(slot, now)
        if slot.announced:
            self.outbox.append(Notify(Recovered(pool=self.name, channel=slot.id, seconds=now - slot.lost_at)))
        self._reconcile(now, slot)

    def extend_opening(self, slot: Slot, now: float) -> None:
        """The loop or the process has stood still until the deadline of an opening: extends it, see `deadlines.py`."""
        self.deadlines.extend_opening(slot, now)

    # --- addresses ----------------------------------------------------------------------------------------------

    def addresses_found(self, names: Sequence[str], number: int, now: float) -> None:
        """That look-up has found these addresses, at least one: text such as `10.0.0.7:50051` or `[::1]:50051`."""
        if not self.closing and self.fleet.found(names, number, now):
            self._reconcile(now)

    def look_up_failed(self, error: BaseException, number: int, now: float) -> None:
        """That look-up has failed: the last addresses stay. What waits for the first, and only look-ups find, fails."""
        if not self.closing and self.fleet.look_up_failed(error, number, now):
            for slot in self.fleet.awaiting_address():
                self._dial_failed(slot, error, now)
            self._reconcile(now)

    # --- the whole pool -----------------------------------------------------------------------------------------

    def resize(self, min_size: int, max_size: int, now: float) -> None:
        """Changes the bounds; surplus connections are drained, missing ones dialled.

        Raises:
            ValueError: The bounds contradict each other.
        """
        check_size(min_size, max_size)
        if not self.closing:
            self.shrinking.resize(min_size, max_size, now)
            self.openers.start_ready(now)
            self.grants.fill(now)
            # For a tick, which replaces what is due, and connects what there is room for now.
            self.fleet.alarm_at(now)

    def refresh(self, now: float) -> None:
        """Replaces every connection of this moment: a successor first, then the old one drains."""
        self.replacing.refresh(now)
        self._reconcile(now)

    def close(self, deadline: float, now: float) -> None:
        """Ends the pool: refuses waiters, closes what is idle, and the rest when its last ends or at `deadline`.

        A later `close` can only bring the end forward.
        """
        # First: if this is interrupted, `repair` goes on from here.
        self._closing.deadline = min(self._closing.deadline, deadline)
        self.closing = True
        self._closing.begin(now)
        self.tick(now)

    # --- time ---------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """The moment at which `tick` is due at the latest; `math.inf` for never."""
        return self.fleet.alarm

    def tick(self, now: float) -> None:
        """Does what has fallen due."""
        self.grants.expire(now)
        if self.fleet.lookups.next_at() <= now and not self.closing:
            self.fleet.look(now)
        if self.openers.next_deadline() <= now:
            self.outage.cause = self.outage.cause or TimeoutError("not ready within the timeout of open()")
            self.openers.expire(now)
        late = [slot for slot in self._slots if slot.state is SlotState.OPENING and slot.deadline <= now]
        for slot in late:
            self._dial_failed(slot, self.deadlines.late(slot), now, slot.channel)
        self.fleet.mark_hanging(now)
        for slot in self._slots:
            if slot.state is SlotState.DRAINING:
                self.fleet.end_drain(slot, now)
            self.fleet.handicaps.end(slot, now)
            if self.fleet.limits.grow(slot, now):
                self.grants.serve(slot, now)
        if self.fleet.doubts.end(now):
            self.grants.serve_in_turn(now)
        self.shrinking.end_idle(now)
        if waiters := self.queue.to_wake(now):
            # Maybe they are the first to ask, or the first since a failed `open()`.
            self.fleet.activate(now)
            for waiter in waiters:
                self.grants.wake(waiter, now)
        self._reconcile(now, *(slot for slot in late if slot.state is SlotState.LOST))

    # --- after a step -------------------------------------------------------------------------------------------

    def _reconcile(self, now: float, *slots: Slot) -> None:
        """The connections or the bounds have changed: brings the pool to what its settings and its waiters ask for.

        `slots` have come to have room.
        """
        self.openers.start_ready(now)
        self.replacing.retire_due(self.queue.asked, now)
        self.shrinking.shrink(self.queue.asked, now)
        for slot in (*self.endpoints.review(now), *slots):
            self.settle(slot, now)
        self.growing.cover(now)
        self.replacing.rotate(self.queue.asked, now)
        self.grants.fill(now)
        self.deadlines.rearm(now)

    def repair(self, now: float) -> None:
        """An exception has ended a step halfway: makes everything fit what is certain, and completes it."""
        self._repair.complete(now)
        if self.closing:
            self._closing.begin(now)
        self._reconcile(now, *(slot for slot in self._slots if slot.state is not SlotState.OPENING))

    # --- what others are shown ------------------------------------------------------------------------------------

    def stats(self, moment: Callable[[float], dt.datetime], now: float, *, target: str | None = None) -> PoolStats:
        """A snapshot; `moment` turns the driver's clock into a date, `target` is what the pool connects to."""
        sizes, waiting = (*self.fleet.bounds, self.fleet.target), self.queue.length
        return pool_stats(self._slots, self.counters, sizes, waiting, moment, now, target=target)

    def figures(self) -> Figures:
        """The numbers that an error reports."""
        return self.grants.figures()
