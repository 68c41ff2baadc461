"""Which connections exist: they are dialled, taken into service, lost, retired and closed here.

The fleet is the half of the machine that knows slots but no waiters. What leads to these steps is decided elsewhere:
when connections are opened in `growing.py`, when there are too many in `shrinking.py`, when they are replaced in
`replacing.py`.

Outages. A lost connection is left to gRPC's own reconnecting while it is needed; one that is not is not reconnected.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from .._values.config import PoolConfig
from .._values.events import AddressesChanged, Closed, Draining, LookUpFailed, Opening
from .._values.slot_states import CloseReason, SlotState
from .addresses import Addresses, Addressing
from .counters import Counters
from .doubts import Doubts
from .effects import Close, Notify, Open, Outbox, Watch
from .handicaps import Handicaps
from .limits import Limits
from .lookups import LookUps
from .places import NEVER, Places
from .silence import Silence
from .slot import Slot, SlotEvent

# A dial that takes longer is not counted on any more. If gRPC can look up, one waits as long for the first look-up.
_HANGS_AFTER = 1.0

# It doubles with each dial that hangs, so often at most.
_MOST_DOUBLINGS = 20

# The same while it is not known whether IPv6 or IPv4 can be used: as long as gRPC waits before it tries the other.
_HANGS_AFTER_IN_RACE = 0.25

# How long gRPC may take to reconnect.
GIVEN_UP_AFTER = 2.0

# Reasons that a slot has unless another was given, and those for which its address needs no connection.
_NO_REASON = (CloseReason.AGE, CloseReason.SHRINK)
_NOT_NEEDED = (CloseReason.IDLE, CloseReason.SHRINK)


class Fleet:
    """The connections of one pool."""

    def __init__(
        self,
        config: PoolConfig,
        places: Places,
        outbox: Outbox,
        *,
        name: str,
        random: Callable[[], float],
        addressing: Addressing,
    ) -> None:
        """Creates a fleet without connections; see `PoolMachine` for the arguments."""
        self.config = config
        self.name = name
        # Whether a connection may be lost because its server is not healthy: then it waits until that is.
        self.watches_health = config.health_service is not None
        self.min_size = config.min_size
        self.max_size = config.max_size
        self.places = places
        self.outbox = outbox
        self.slots = places.slots
        self.target = places.target
        self.addresses = Addresses(self.slots, random, addressing)
        self.lookups = LookUps(outbox, random, self.alarm_at, addressing, name=name, timeout=config.connect_timeout)
        self.usage = self.lookups.usage
        self.counters = Counters()
        self.limits = Limits(
            self.slots,
            self.places,
            outbox,
            self.counters,
            max_streams=config.max_streams,
            name=name,
            alarm_at=self.alarm_at,
        )
        self.handicaps = Handicaps(
            self.places,
            self.addresses,
            outbox,
            self.counters,
            avoid_for=config.avoid_after_failure,
            name=name,
            alarm_at=self.alarm_at,
        )
        self.doubts = Doubts(self.places, self.alarm_at)
        self.silence = Silence(config.unresponsive_after, self.slots)
        # Of targets in an order of preference: whether there are several, and the one that is used.
        self.has_other_targets = addressing.endpoints > 1
        self.endpoint = 0
        # When a dial has failed last.
        self.failed_at = -math.inf
        # From first use on, until close, `min_size` connections are kept.
        self.active = False
        # The end of the watch, see `shrinking.py`.
        self.peak_watch_ends_at = math.inf
        # The next deadline, see `deadlines.py`.
        self.alarm = math.inf
        self._random = random

    @property
    def bounds(self) -> tuple[int, int]:
        """`min_size` and `max_size`, as they are now."""
        return self.min_size, self.max_size

    # --- in use -------------------------------------------------------------------------------------------------

    def activate(self, now: float) -> None:
        """The pool is used: from here on, `min_size` connections are kept. After a rest each address is wanted."""
        if not self.active:
            self.active = True
            self.size_changed(now)
        if self.usage.begin(now):
            self.lookups.look_soon(now)
            self.addresses.want_all()
            self.size_changed(now)
            self.alarm_at(now)

    @property
    def unclear_until(self) -> float:
        """Until when it is unclear what connections may carry: until then none is dialled for what waits."""
        return max(self.limits.unclear_until, self.doubts.until)

    def needed(self, asked: int) -> int:
        """How many ready connections are enough for what is in flight and `asked` more, and for `min_size`."""
        return max(self.min_size, -(-(self.places.load + asked) // self.target))

    # --- where they lead ----------------------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Looks up the addresses, if that is due."""
        acquired = self.counters.acquired_of_closed + sum(slot.calls for slot in self.slots)
        if self.lookups.tick(acquired, now, idle=not self.places.load):
            self.addresses.want_all()
        if not self.lookups.awaited:
            self.direct_awaiting(now)
        elif any(slot.deadline > now for slot in self.awaiting_address()):
            self.lookups.look_first(now)
        if not len(self.slots):
            self.lookups.rest()
        self.size_changed(now)

    def found(self, names: Sequence[str], number: int, now: float) -> bool:
        """That look-up has found these addresses; returns whether they are used: not those of another target."""
        if not self.lookups.answered(number, now):
            return False
        if self.has_other_targets and len(names) == 1:
            # One that found out whether the target is up leads there.
            for slot in self.slots.in_service():
                slot.address = slot.address or names[0]
                self.slots.count(slot)
        new, gone = self.addresses.update(names)
        if new or gone:
            event = AddressesChanged(pool=self.name, addresses=tuple(names), new=tuple(new), gone=tuple(gone))
            self.outbox.append(Notify(event))
        self.direct_awaiting(now)
        return True

    def look_up_failed(self, error: BaseException, number: int, now: float) -> bool:
        """That look-up has failed; returns whether it was counted on. Known addresses stay."""
        if not self.lookups.failed(number, now):
            return False
        self.outbox.append(Notify(LookUpFailed(pool=self.name, error=error)))
        if not self.lookups.awaited:
            self.direct_awaiting(now)
        return True

    def direct_awaiting(self, now: float) -> None:
        """The addresses are known by now, or will not be for long: dials the connections that have waited for them."""
        self.lookups.awaited = False
        for slot, address in zip(self.awaiting_address(), self.addresses.deal(now), strict=False):
            slot.awaits_address = False
            self._direct(slot, address, now)

    def awaiting_address(self) -> list[Slot]:
        """The connections that wait for the first addresses."""
        return [slot for slot in self.slots.in_state(SlotState.OPENING) if slot.awaits_address]

    # --- opening ------------------------------------------------------------------------------------------------

    def dial(self, now: float, replaces: Slot | None = None, address: str | None = None) -> Slot:
        """Begins to open a connection, as the successor of `replaces` and to `address`, if these are given."""
        deadline = now + self.config.connect_timeout
        overflow = replaces.overflow if replaces is not None else self.slots.connections >= self.max_size
        slot = self.slots.add(limit=self.config.max_streams, now=now, deadline=deadline, replaces=replaces)
        slot.overflow = overflow
        slot.beside = self.slots.hanging > 0
        slot.awaits_address = self.lookups.awaited
        if slot.awaits_address:
            self.lookups.look_first(now)
        slot.endpoint = self.endpoint
        self.size_changed(now)
        old = replaces.id if replaces is not None else None
        self._direct(slot, address, now)
        self.outbox.append(Notify(Opening(pool=self.name, channel=slot.id, replaces=old)))
        return slot

    def _direct(self, slot: Slot, address: str | None, now: float) -> None:
        """Decides where a connection leads, unless that is still being looked up."""
        if not slot.awaits_address:
            slot.address = self.addresses.choose(now) if address is None else address
            self.slots.count(slot)
            self.outbox.append(Open(slot))
        # Ever later, so that a server that is silent on all of its addresses does not get one dial a second.
        hangs_after = _HANGS_AFTER_IN_RACE if self.addresses.is_of_race(slot) else _HANGS_AFTER
        if slot.awaits_address and self.lookups.discovered:
            # Another dial would wait as well.
            hangs_after = math.inf
        slot.hangs_at = now + hangs_after * 2.0 ** min(self.slots.hanging, _MOST_DOUBLINGS)
        self.alarm_at(min(slot.hangs_at, slot.deadline))

    def dial_other_family(self, slot: Slot, now: float) -> Slot:
        """Of a name with IPv6 and IPv4 addresses, one cannot be reached: tries another, and counts no failure yet."""
        self.addresses.failed(slot, now)
        replaced = self.slots.separate(slot)
        self.close(slot, CloseReason.SHRINK)
        return self.dial(now, replaces=replaced)

    def opened(self, slot: Slot, now: float) -> None:
        """Takes a connection into service; the one that it replaces, if any, retires."""
        slot.hangs, slot.hangs_at = False, math.inf
        self.slots.move(slot, SlotEvent.RECOVERED if slot.state is SlotState.LOST else SlotEvent.OPENED)
        self.counters.opened += 1
        self.addresses.opened(slot)
        slot.been_up, slot.given_up_at = True, math.inf
        slot.opened_at = slot.used_at = slot.unused_since = slot.refused_at = now
        self.begin_to_age(slot, now)
        self.limits.limit_as_others(slot, now)
        # In this order: it has the handicap of the one that it replaces.
        self.handicaps.enter(slot)
        self.retire_replaced(slot, now)
        self._end_successor(slot, now)

    def begin_to_age(self, slot: Slot, now: float) -> None:
        """A connection is up: decides when it is to be replaced."""
        if self.config.max_age is not None and slot.retire_at == math.inf:
            slot.retire_at = now + self.config.max_age * (1 - self.config.age_jitter * self._random())

    def retire_replaced(self, slot: Slot, now: float) -> None:
        """The connection that `slot` was opened to replace, if any, retires."""
        replaced = slot.replaces
        if replaced is not None:
            # Otherwise nothing would ever be idle long enough in a pool whose max_age is below its idle_timeout.
            if not replaced.in_flight:
                slot.unused_since = replaced.idle_since()
            self.slots.separate(slot)
            given_up = replaced.state is SlotState.LOST and replaced.retire_at > now and replaced.reason in _NO_REASON
            self.retire(replaced, CloseReason.LOST if given_up else replaced.reason, now)

    def open_failed(self, slot: Slot, now: float) -> float:
        """Removes a connection that could not be made; returns the seconds until the next attempt."""
        self._forget_reason(self.slots.separate(slot))
        self.slots.move(slot, SlotEvent.OPEN_FAILED)
        self.forget(slot)
        self.size_changed(now)
        return self._not_opened(slot, now)

    def unreachable(self, slot: Slot, now: float) -> float:
        """Keeps a channel that does not connect, for calls; returns the seconds until the next attempt."""
        slot.hangs, slot.hangs_at = False, math.inf
        self.slots.move(slot, SlotEvent.UNREACHABLE)
        slot.unused_since = now
        # The next attempt replaces it.
        slot.given_up_at = math.inf if self.watches_health else now
        self.outbox.append(Watch(slot))
        return self._not_opened(slot, now)

    def _not_opened(self, slot: Slot, now: float) -> float:
        self.counters.open_failures += 1
        self.failed_at = now
        if not slot.awaits_address:
            # Its server may have moved.
            self.lookups.look_soon(now)
        return self.addresses.failed(slot, now)

    def take_back(self, slot: Slot, now: float) -> None:
        """Takes a draining connection into service again."""
        self.slots.move(slot, SlotEvent.RESTORED)
        slot.kept, slot.returns_at, slot.back_at = False, math.inf, now
        self._forget_reason(slot)
        self.handicaps.enter(slot)
        self.size_changed(now)
        # For a tick, which derives when the slot is due for something.
        self.alarm_at(now)

    def keep(self, slot: Slot, now: float, *, until: float = math.inf, returns_at: float = math.inf) -> None:
        """Takes a ready connection out of service, but keeps it open: see `endpoints.py`."""
        slot.kept, slot.kept_until, slot.returns_at = True, until, returns_at
        self.retire(slot, CloseReason.SHRINK, now, deadline=math.inf)

    def keep_no_longer(self, slot: Slot, reason: CloseReason, now: float) -> None:
        """A connection that was kept drains, as others do."""
        slot.kept, slot.returns_at = False, math.inf
        slot.reason, slot.deadline = reason, now + self.config.drain_timeout
        self.alarm_at(slot.deadline)
        if not slot.in_flight:
            self.close(slot, reason)

    def not_to_take_back(self, slot: Slot, reason: CloseReason, now: float) -> None:
        """A connection that drains, and might be taken back, is to close when it carries nothing."""
        if slot.kept:
            self.keep_no_longer(slot, reason, now)
        elif slot.reason is CloseReason.SHRINK:
            slot.reason = reason

    def size_changed(self, now: float) -> None:
        """The number of connections, or a bound, has changed: decides when to consider growing and shrinking."""
        self.places.growth_load = self.target if self.slots.connections < self.max_size else NEVER
        if self.usage.rests and self.active:
            # The next call is reported.
            self.places.growth_load = 0
        if self.config.idle_timeout is None or self.slots.connections <= self.min_size:
            self.peak_watch_ends_at = math.inf
        elif self.peak_watch_ends_at == math.inf:
            self.begin_peak_watch(now, self.config.idle_timeout)

    # --- retiring -----------------------------------------------------------------------------------------------

    def retire(
        self,
        slot: Slot,
        reason: CloseReason,
        now: float,
        *,
        deadline: float | None = None,
        leaving: int = 0,
    ) -> None:
        """Takes a slot out of service; it is closed when it carries nothing, and at `deadline` in any case.

        Emits no `Draining` if the slot carries only what is `leaving`, which is released next.
        """
        # For a tick: others may be missed now, and others may be dialled in its place.
        self.alarm_at(now)
        if slot.successor is not None:
            successor = slot.successor
            self.slots.separate(successor)
            if reason is not CloseReason.DISCARDED:
                self.close(successor, reason)
        if slot.state is SlotState.OPENING:
            self.close(slot, reason)
            self.size_changed(now)
            return
        slot.reason = reason
        slot.deadline = now + self.config.drain_timeout if deadline is None else deadline
        self.places.remove(slot)
        self.slots.move(slot, SlotEvent.RETIRED)
        if reason in _NOT_NEEDED:
            self.addresses.not_wanted(slot)
        self.size_changed(now)
        if slot.in_flight == 0 and not slot.kept:
            self.close(slot, reason)
        elif slot.in_flight > leaving:
            left = slot.in_flight - leaving
            self.outbox.append(Notify(Draining(pool=self.name, channel=slot.id, reason=reason, in_flight=left)))

    def close(self, slot: Slot, reason: CloseReason) -> None:
        """Closes a slot that drains or is being opened; what it still carries is cancelled and forgotten."""
        if slot.state is not SlotState.OPENING:
            # What has never been up was not counted as opened either.
            self.counters.closed[reason] += slot.been_up
            closed = Closed(pool=self.name, channel=slot.id, reason=reason, cancelled=slot.in_flight)
            self.outbox.append(Notify(closed))
        self.slots.separate(slot)
        self.slots.move(slot, SlotEvent.CLOSED)
        self.places.drop(slot)
        self.forget(slot)

    def forget(self, slot: Slot) -> None:
        """Closes what there is of a closed slot's channel, and forgets the slot."""
        self.outbox.append(Close(slot))
        self.counters.acquired_of_closed += slot.calls
        self.slots.forget(slot)

    def begin_peak_watch(self, now: float, idle_timeout: float) -> None:
        """From now on, the peak of the load is watched, see `shrinking.py`."""
        self.places.peak = self.places.load
        self.peak_watch_ends_at = now + idle_timeout
        self.alarm_at(self.peak_watch_ends_at)

    # --- outages ------------------------------------------------------------------------------------------------

    def lost(self, slot: Slot, now: float) -> None:
        """Takes a connection that is down, or may be, out of service; it is watched until it is up again."""
        self.places.remove(slot)
        self.slots.move(slot, SlotEvent.LOST)
        self.alarm_at(now)
        slot.lost_at, slot.pauses, slot.announced = now, False, False
        if not self.watches_health:
            slot.given_up_at = now + GIVEN_UP_AFTER
        self.lookups.look_soon(now)
        self.outbox.append(Watch(slot))

    def recovered(self, slot: Slot, now: float) -> None:
        """Takes a lost connection into service again."""
        self.slots.move(slot, SlotEvent.RECOVERED)
        slot.given_up_at = math.inf
        slot.lost_by_call = False
        slot.trust()
        self.silence.begin_again(slot, now)
        # A connection that came back is as good a proof as one that was opened.
        self.addresses.opened(slot)
        self.handicaps.enter(slot)
        self._end_successor(slot, now)

    def _end_successor(self, slot: Slot, now: float) -> None:
        """The slot is up: a successor that is on its way because it was not is not needed any more."""
        successor = slot.successor
        if successor is not None and slot.retire_at > now:
            self._forget_reason(self.slots.separate(successor))
            self.close(successor, CloseReason.LOST)

    def _forget_reason(self, slot: Slot | None) -> None:
        """The slot stays in service after all: why it was to leave is forgotten."""
        if slot is not None:
            slot.reason = CloseReason.AGE if slot.retire_at > -math.inf else CloseReason.REFRESH

    # --- time ---------------------------------------------------------------------------------------------------

    def mark_hanging(self, now: float) -> None:
        """Notes which dials take too long. If they keep others out that could be ready soon, they fail at once."""
        hanging = [slot for slot in self.slots.in_state(SlotState.OPENING) if slot.hangs_at <= now < slot.deadline]
        for slot in hanging:
            if slot.awaits_address:
                # All of them.
                self.direct_awaiting(now)
            elif slot.hangs_at <= now:
                self.slots.mark_hanging(slot)
        if hanging and self.slots.connections >= self.max_size:
            better = self.addresses.without_trouble(now)
            for slot in hanging:
                if slot.hangs and better - {slot.address}:
                    slot.deadline = now
                    self.alarm_at(now)

    def end_drain(self, slot: Slot, now: float) -> None:
        """Closes a draining slot that is overdue; one that has been kept for long enough is not kept any more."""
        if slot.kept and slot.kept_until <= now:
            self.keep_no_longer(slot, CloseReason.IDLE, now)
        elif slot.deadline <= now:
            self.close(slot, slot.reason)

    def alarm_at(self, at: float) -> None:
        """Brings the next deadline forward to `at`, if it is later."""
        if at < self.alarm:  # noqa: PLR1730 -- each waiter pays for it: calling min() would cost more than the rest
            self.alarm = at
