"""What calls get while no connection is up.

A call that would rather fail than wait is given to a connection that is down, or to a channel that does not connect.
What becomes of it is gRPC's decision, as on a channel without a pool: it fails the call, lets it wait, or retries it,
as the call and the service config say. Other asks wait until a connection is up. For a call that would rather fail::

    a connection is up                                    --> it gets a place there, or waits for one
      | no
    an attempt may soon succeed: that for the first ask,
    or, of several addresses, until all have failed       --> it waits
      | no
    one is down that is not being checked, nor leased
    as a whole, and the pool has no `prime`               --> it is made on that, once there is room: gRPC decides
      | no
    one is being dialled, or checked                      --> it waits
      | no
    one may be dialled for it, as it arrives              --> it waits
      | no
    there is nothing to wait for                          --> it is refused

Connections that `min_size` needs are reconnected also while nothing is asked for, with ever longer pauses. What is
asked for first in such a pause does not suffer from that: an attempt is made for it at once, and it waits for the
outcome, as on a channel without a pool, which is idle by then.

A pool with a `prime` is an exception: a connection that comes back must be primed before it is used, so that calls get
no channel that gRPC may connect for them. They fail at once when there is nothing to wait for.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .._values.events import Lost
from .._values.slot_states import CloseReason, SlotState
from .effects import Notify, Outbox, Watch
from .fleet import GIVEN_UP_AFTER, Fleet
from .queue import Waiter, WaitQueue
from .replacing import Replacing
from .slot import Slot

# A connection that was not used for so long may be dead without notice.
_UNUSED_FOR = 1.0

# A dial takes less than this, unless it hangs.
_MAY_BE_QUICK = 1.0


class Outage:
    """Decides what the calls of one pool get while no connection is up, and keeps the reason why none is."""

    def __init__(self, fleet: Fleet, replacing: Replacing, queue: WaitQueue, outbox: Outbox, *, primes: bool) -> None:
        """For the connections of `fleet` and the waiters in `queue`; `primes`: the pool has a `prime`."""
        self._fleet = fleet
        self._replacing = replacing
        self._slots = fleet.slots
        self._queue = queue
        self._outbox = outbox
        self.primes = primes
        # Why nothing is up, or why the last attempt failed: the cause of errors. `None` while all is well.
        self.cause: BaseException | None = None
        # Whether the dial that failed last made a channel, so that only the server was not reached.
        self.makes_channels = False
        # What is dialled for what is asked for first.
        self._attempt: Slot | None = None

    # --- what is down -------------------------------------------------------------------------------------------

    def forget_if_over(self) -> None:
        """If nothing is down or being opened, and no dial has failed last, the cause is one of earlier times."""
        if not (self._slots.lost or self._slots.opening or self._fleet.addresses.failures):
            self.cause = None

    def is_blocked(self, slot: Slot, now: float, *, for_good: bool) -> None:
        """A connection that is blocked is replaced in time, or at once, also where gRPC watches health on it."""
        if slot.state is SlotState.LOST:
            slot.given_up_at = min(slot.given_up_at, now if for_good else now + GIVEN_UP_AFTER)
            self._fleet.alarm_at(now)

    def is_blocked_no_more(self, slot: Slot) -> None:
        """The check of a connection has ended: it is down like any other, unless it is broken."""
        if slot.broken:
            return
        if slot.blocked and self._fleet.watches_health:
            slot.given_up_at = math.inf
        slot.blocked = False

    def announce(self, slot: Slot, error: BaseException | None) -> None:
        """The slot's connection is known to be down: says so, once."""
        if not slot.announced:
            slot.announced = True
            self._fleet.counters.losses += 1
            lost = Lost(pool=self._fleet.name, channel=slot.id, cause=error, up=self._slots.ready)
            self._outbox.append(Notify(lost))

    def retire_unused_as_long(self, slot: Slot, now: float) -> None:
        """A call has shown that the slot's connection is dead, maybe since long: what was unused as long may be, too.

        A NAT or a load balancer forgets all connections that have been idle for as long, and notifies none of them.
        """
        if slot.in_flight > 1 or now - slot.used_at < _UNUSED_FOR:
            return
        for other in self._slots.in_state(SlotState.READY):
            if not other.in_flight and other.idle_since() < slot.used_at + _UNUSED_FOR:
                self._fleet.retire(other, CloseReason.LOST, now)

    # --- what is made to come back ------------------------------------------------------------------------------

    def connect_for_ask(self, now: float) -> None:
        """A place is asked for, and nothing is up: tries to connect if this is the first such ask of late."""
        lost = self._slots.in_state(SlotState.LOST)
        is_recalled = self.recall(now)
        is_first = self._replacing.note_ask(now)
        all_pause = all(slot.been_up and slot.pauses for slot in lost)
        if is_first and all_pause and not (is_recalled or self._slots.opening):
            self._attempt = self._fleet.dial(now, replaces=min(lost, key=lambda slot: slot.in_flight))

    def recall(self, now: float) -> bool:
        """Lost connections that were not needed are to come back; returns whether there are any."""
        is_needed = self.which_are_needed(now)
        idle = [slot for slot in self._slots.in_state(SlotState.LOST) if not is_needed(slot)]
        for slot in idle:
            self._outbox.append(Watch(slot))
            self._fleet.alarm_at(max(slot.given_up_at, now))
        if idle:
            self._replacing.recall(now)
        return bool(idle)

    def which_are_needed(self, now: float) -> Callable[[Slot], bool]:
        """Which lost connections should be made to connect again, see `Replacing.which_are_needed`."""
        return self._replacing.which_are_needed(self._queue.asked, now)

    # --- what a call gets ---------------------------------------------------------------------------------------

    def slot_for(self, waiter: Waiter) -> Slot | None:
        """The slot on which the call may fail, if it would rather do so; `None` if there is none with room."""
        if not waiter.fail_fast or not self._lets_calls_fail():
            return None
        roomy = [slot for slot in self._down() if slot.has_room(waiter.streams)]
        return min(roomy, key=lambda slot: slot.in_flight, default=None)

    def takes_calls(self, slot: Slot) -> bool:
        """Whether calls that would rather fail than wait get places on the slot although its connection is down."""
        return slot.state is SlotState.LOST and not slot.blocked and self._lets_calls_fail()

    def _lets_calls_fail(self) -> bool:
        if self._slots.ready or self.primes or self._awaits_attempt():
            return False
        # Of several addresses, another may be reachable, until all have failed.
        addresses = self._fleet.addresses
        return not (addresses.several and self._slots.under_way and not addresses.failures)

    def _awaits_attempt(self) -> bool:
        slot = self._attempt
        return slot is not None and slot.state is SlotState.OPENING and not slot.hangs

    def _down(self) -> list[Slot]:
        """The connections that are down and could carry calls.

        What is blocked is being checked, and may be up; if the check does not end, another connection is dialled. The
        calls on a connection that is down end, and release their places; a lease of all of it may not end.
        """
        return [slot for slot in self._slots.in_state(SlotState.LOST) if not (slot.blocked or slot.exclusive)]

    def is_hopeless(self) -> bool:
        """Nothing is up, nothing is being dialled or checked, and nothing is down that a call could fail on."""
        if self._slots.ready or self._slots.opening:
            return False
        # One that is broken is not checked, but replaced. That may fail, too.
        replacing = not self._fleet.addresses.failures
        if any(slot.blocked and (replacing or not slot.broken) for slot in self._slots.in_state(SlotState.LOST)):
            return False
        return self.primes or not self._down()

    def dial_for_call(self, now: float) -> bool:
        """A call that would rather fail finds nothing up or being dialled: returns whether it may wait for a dial.

        If `open()` has closed all that it had opened, or nothing but leases was asked for, there is no channel that is
        down. One is dialled for the call then, however long other dials have to pause; it is kept for later ones.
        """
        if now >= self._fleet.addresses.retry_at:
            return True
        if self._slots.connections or self.primes or not self.makes_channels:
            return False
        self._fleet.dial(now)
        return True

    def needs_channel(self, slot: Slot, now: float, is_awaited: Callable[[Slot], bool]) -> bool:
        """A dial has failed, and its channel does not connect: whether it is kept, as a connection that is down.

        It is if calls wait that would rather fail, and could do so on that channel, and on no other. Or if gRPC watches
        health on it: the server may just not be ready to serve. But `open()`, if the slot `is_awaited` by that, rather
        waits for another.
        """
        addresses = self._fleet.addresses
        if slot.replaces is not None:
            return False
        if self._fleet.watches_health:
            return not (slot.overflow or addresses.is_of_race(slot) or addresses.is_gone(slot) or is_awaited(slot))
        calls_wait = self._queue.has_fail_fast() and not (self._slots.ready or self.primes or self._down())
        return calls_wait and addresses.is_last_hope(slot) and not self._another_has_begun(slot, now)

    def _another_has_begun(self, slot: Slot, now: float) -> bool:
        """Whether another dial has just begun, and not because others hang. An older one hangs as well."""
        others = (other for other in self._slots.in_state(SlotState.OPENING) if other is not slot)
        return any(not other.beside and now < other.opened_at + _MAY_BE_QUICK for other in others)
