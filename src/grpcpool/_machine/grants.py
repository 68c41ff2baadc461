"""Which waiter gets which place, and which gets none: grants and refusals.

A waiter that is answered leaves the queue last. Until then its answer is part of it, so that an interruption between
the two is repaired: by `PoolMachine.repair`, or by whichever step finds the waiter before.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from .._values.errors import Figures, Refusal, describe_ask
from .._values.events import Granted, Rejected, TimedOut
from .._values.slot_states import SlotState
from .counters import figures_of
from .effects import Grant, Notify, Refuse
from .fleet import Fleet
from .growing import Growing
from .openers import OpenWaiter
from .outage import Outage
from .queue import Waiter, WaitQueue
from .reservation import Reservation
from .slot import Slot

# Looking a member up in its enum takes longer than the rest of the line.
_READY = SlotState.READY


class Grants:
    """Answers the waiters of one pool."""

    def __init__(self, fleet: Fleet, growing: Growing, queue: WaitQueue, outage: Outage) -> None:
        """For the waiters in `queue` and the connections of `fleet`."""
        self._fleet = fleet
        self._growing = growing
        self._slots = fleet.slots
        self._places = fleet.places
        self._queue = queue
        self._outage = outage
        self._outbox = fleet.outbox
        self._counters = fleet.counters
        self._name = fleet.name
        self.reservation = Reservation(self._slots, self._places, queue)
        # Set by the driver.
        self.has_listeners = True

    # --- serving ------------------------------------------------------------------------------------------------

    def wake(self, waiter: Waiter, now: float) -> None:
        """A waiter has paused, and asks for its place. What must be dialled for it is so at the end of the step."""
        if self._slots.lost:
            self._outage.recall(now)
        self._queue.wake(waiter)
        slot = self._places.pick(waiter.streams) or self._outage.slot_for(waiter)
        if slot is not None:
            self.serve(slot, now)

    def wait(self, waiter: Waiter, now: float) -> None:
        """Queues the waiter and dials for it; one without time has asked once."""
        if self._slots.lost:
            self._outage.recall(now)
        reserves_nothing = self._queue.push(waiter) or waiter.streams == 1
        self._fleet.alarm_at(waiter.deadline)
        self.fill(now, reserves_nothing=reserves_nothing)
        if waiter.deadline <= max(now, self._fleet.doubts.until):
            self._trust(waiter, now)
        if waiter.deadline <= now and waiter.queued:
            self._expire(waiter, None, now)
            self.review(now)

    def fill(self, now: float, *, reserves_nothing: bool = False, least: int = 0) -> None:
        """Dials for waiters, as far as possible; those that would rather fail do so if nothing is up.

        Args:
            now: The moment.
            reserves_nothing: Only a waiter has come, for which no slot can be reserved, see `reservation.py`.
            least: There are to be so many connections, although none is asked for.
        """
        while restored := self._growing.fill(self._queue.asked, self._queue.has_stream_asks, now, least):
            reserves_nothing = False
            for slot in restored:
                self.serve(slot, now)
        if not reserves_nothing:
            self.review(now)
        if self._queue.length and not self._slots.ready:
            self._fill_without_connection(now)
        if self._outage.cause is not None:
            self._outage.forget_if_over()

    def _fill_without_connection(self, now: float) -> None:
        for slot in self._slots.in_state(SlotState.LOST):
            self.serve(slot, now)
        if self._outage.is_hopeless():
            self.refuse_all(self._queue.fail_fast(), Refusal.OPEN_FAILED, now)

    def serve(self, slot: Slot, now: float) -> None:
        """Grants to waiters, in turn, what the slot has room for."""
        down = slot.state is not _READY
        if down and not self._outage.takes_calls(slot):
            return
        while self._queue.length:
            reserved = slot.reserved
            waiter = self.reservation.waiter_for(slot) if reserved else self._queue.first_fitting(slot, fail_fast=down)
            if waiter is None:
                return
            if waiter.decided:
                self.complete(waiter, now)
                continue
            if reserved:
                self.reservation.end()
            self._places.acquire(waiter.streams, waiter, slot)
            self.grant(waiter, slot, now)
            # Then there is none for any ask.
            if slot.exclusive or not slot.has_room(1):
                return

    def grant(self, waiter: Waiter, slot: Slot, now: float) -> None:
        """The waiter has its place on the slot: it leaves the queue."""
        # In this order: an interruption between the two is repaired.
        self._outbox.append(Grant(waiter, slot))
        self._queue.remove(waiter)
        waited = waiter.waited = now - waiter.since
        self._counters.waited += 1
        self._counters.wait_seconds += waited
        if self.has_listeners:
            self._outbox.append(Notify(Granted(pool=self._name, channel=slot.id, waited=waited)))

    def complete(self, waiter: Waiter, now: float) -> None:
        """An interruption has left a waiter in the queue although its answer is decided: it leaves with that."""
        if waiter._slot is not None:
            self.grant(waiter, waiter._slot, now)
        elif waiter.refusal is not None:
            self._refuse(waiter, waiter.refusal, None, now)

    def uncount(self, slot: Slot, waiter: Waiter | None) -> None:
        """A place on `slot` that has just been taken, by a waiter or without a wait, does not count as acquired."""
        slot.calls -= 1
        if waiter is not None and waiter.waited is not None:
            self._counters.waited -= 1
            self._counters.wait_seconds -= waiter.waited

    def serve_in_turn(self, now: float) -> None:
        """Several connections have come to have room: the waiters are spread over them, as if they asked now."""
        for waiter in self._queue.asking() if self._places.lightest() is not None else ():
            if waiter.decided:
                self.complete(waiter, now)
            elif (slot := self._places.pick(waiter.streams)) is not None:
                self._places.acquire(waiter.streams, waiter, slot)
                self.grant(waiter, slot, now)
            elif waiter.streams == 1:
                # Then there is none for any ask.
                break
        # What is reserved is left.
        self.serve_all(now)

    def serve_all(self, now: float) -> None:
        """Any connection may have come to have room."""
        for slot in self._slots.in_state(SlotState.READY):
            self.serve(slot, now)
        self.review(now)

    def review(self, now: float) -> None:
        """A waiter has come or left, or a slot has: reserves what has to be, and serves others with what need not."""
        while (slot := self.reservation.review()) is not None:
            self.serve(slot, now)

    # --- refusing -----------------------------------------------------------------------------------------------

    def is_full(self) -> bool:
        """Whether one more waiter is rejected.

        What waits for connections that are still to come is not overload: each of these adds what it may carry, and as
        many waiters as may wait for one. While connections fail, none is counted on. With 0, nothing ever waits.
        """
        config, slots, waiting = self._fleet.config, self._slots, self._queue.length
        most = config.max_waiters
        if most is None or waiting < most:
            return False
        if not most:
            return True
        to_come = 0 if self._fleet.addresses.failures else self._fleet.max_size - slots.ready - slots.lost
        return waiting >= most + max(0, to_come) * (most + config.max_streams)

    def reject(self, waiter: Waiter, now: float) -> None:
        """The queue is full: refuses the waiter, unless what is dialled or taken back for it has room."""
        if self._slots.lost:
            self._outage.recall(now)
        self._queue.push(waiter)
        self.fill(now)
        self._trust(waiter, now)
        if waiter.queued:
            self._counters.rejected += 1
            self.refuse(waiter, Refusal.EXHAUSTED, now)
            self._outbox.append(Notify(Rejected(pool=self._name, waiting=self._queue.length)))

    def _trust(self, waiter: Waiter, now: float) -> None:
        """Rather than to refuse the waiter, uses connections that are in doubt."""
        if waiter.queued and self._fleet.doubts.until > -math.inf:
            self._fleet.doubts.end(math.inf)
            self.serve_in_turn(now)
            self.fill(now)

    def expire(self, now: float) -> None:
        """Refuses the waiters whose deadlines have come."""
        first = self._queue.first_expired(now)
        if first is None:
            return
        self._trust(first, now)
        figures = self.figures()
        while (waiter := self._queue.first_expired(now)) is not None:
            if waiter.decided:
                self.complete(waiter, now)
            else:
                self._expire(waiter, figures, now)
        self.review(now)

    def _expire(self, waiter: Waiter, figures: Figures | None, now: float) -> None:
        self._counters.timeouts += 1
        self._refuse(waiter, Refusal.TIMEOUT, figures, now)
        self._outbox.append(Notify(TimedOut(pool=self._name, waited=_waited(waiter, now))))

    def refuse(self, waiter: Waiter | OpenWaiter, refusal: Refusal, now: float) -> None:
        """Decides that the waiter gets nothing."""
        self._refuse(waiter, refusal, None, now)
        self.review(now)

    def refuse_all(self, waiters: Sequence[Waiter | OpenWaiter], refusal: Refusal, now: float) -> None:
        """Decides that these waiters get nothing."""
        figures = self.figures()
        for waiter in waiters:
            if isinstance(waiter, Waiter) and waiter.decided:
                self.complete(waiter, now)
            else:
                self._refuse(waiter, refusal, figures, now)
        self.review(now)

    def _refuse(self, waiter: Waiter | OpenWaiter, refusal: Refusal, figures: Figures | None, now: float) -> None:
        """As with a grant, it leaves last. `figures` of others that are refused in this step, if there are any."""
        waiter.refusal = refusal
        arrives = isinstance(waiter, Waiter) and not waiter.queued
        figures = self.figures_for(waiter, waiter.since if arrives else now, figures)
        self._outbox.append(Refuse(waiter, refusal, figures, self._outage.cause))
        if isinstance(waiter, Waiter):
            self._queue.remove(waiter)

    def figures(self) -> Figures:
        """What errors report, whatever was asked for: summed up once for all that are refused in one step."""
        return figures_of(self._slots, max_size=self._fleet.max_size, waiting=self._queue.length)

    def figures_for(self, waiter: Waiter | OpenWaiter, now: float, figures: Figures | None = None) -> Figures:
        """The numbers that the error of this waiter reports; it does not count among those that wait."""
        asked, waiting = "", self._queue.length
        if isinstance(waiter, Waiter):
            asked = describe_ask(waiter.streams, is_call=waiter.is_call)
            waiting -= waiter.queued
        waited = _waited(waiter, now)
        if figures is None:
            # Rather than to make them twice: a pool under overload refuses most of what is asked for.
            return figures_of(self._slots, max_size=self._fleet.max_size, waiting=waiting, waited=waited, asked=asked)
        return dataclasses.replace(figures, waiting=waiting, waited=waited, asked=asked)


def _waited(waiter: Waiter | OpenWaiter, now: float) -> float:
    """Seconds that the waiter has waited: 0 if the queue was full, or if it asked for an answer at once."""
    asked_once = waiter.refusal is Refusal.EXHAUSTED or waiter.deadline <= waiter.since
    return 0.0 if asked_once else now - waiter.since
