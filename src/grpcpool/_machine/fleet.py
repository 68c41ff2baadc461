"""Which connections exist: dialling, growing, shrinking, replacing, retiring. Their use is decided elsewhere.

The fleet is the half of the machine that knows slots but no waiters. It is as pure as the machine.

Growth. `fill` dials what waiters and `min_size` need; `grow` dials ahead of need when every ready slot carries
`target_streams`, one evaluation at a time and at most doubling. A slot that drains only because there were too many
is taken back before anything is dialled. After a failure there is one attempt at a time, with backoff. A dial that is
not ready after a second counts no longer as one under way: another is begun beside it. Whichever is ready first ends
the others that are not needed then.

Shrinking. A slot idle for `idle_timeout` closes, above `min_size`. And when for a whole `idle_timeout` the peak of
the load would have fitted on fewer slots at `target_streams` each, the least needed slot is drained and a new
watch begins.

Replacing. At `retire_at` a successor is dialled; when that is ready the old slot drains. At most a quarter of the
pool is replaced at a time. A successor that fails leaves the old one in service until backoff allows the next.

Outages. A lost connection is left to gRPC's own reconnecting while it is needed; one that is not is not reconnected.
One that is needed and not back at `given_up_at` is replaced as above, through the factory, which may know more.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .._values.config import Mode, PoolConfig
from .._values.events import Closed, Draining, Opening
from .._values.slot_states import CloseReason, SlotState
from .backoff import Backoff
from .counters import Counters
from .effects import Close, Notify, Open, Outbox
from .handicaps import Handicaps
from .limits import Limits
from .places import Places
from .silence import Silence
from .slot import Slot, SlotEvent

# A dial that takes longer is not counted on any more.
_HANGS_AFTER = 1.0

# How long gRPC may take to reconnect.
_GIVEN_UP_AFTER = 2.0

# After an ask that found nothing up, connections are wanted for so long: the next ask may be on its way.
_WANTED_FOR = 10.0

# A connection that was not used for so long has rested.
_REST = 1.0


class Fleet:
    """The connections of one pool."""

    def __init__(
        self, config: PoolConfig, places: Places, outbox: Outbox, *, name: str, random: Callable[[], float]
    ) -> None:
        """Creates a fleet without connections; see `PoolMachine` for the arguments."""
        self.config = config
        self.name = name
        self.min_size = config.min_size
        self.max_size = config.max_size
        self.places = places
        self.outbox = outbox
        self.slots = places.slots
        self.picker = places.picker
        self.target = places.target
        self.backoff = Backoff(random)
        self.counters = Counters()
        self.limits = Limits(
            self.slots,
            self.picker,
            outbox,
            self.counters,
            max_streams=config.max_streams,
            name=name,
            alarm_at=self.alarm_at,
        )
        self.handicaps = Handicaps(
            self.picker,
            outbox,
            self.counters,
            avoid_for=config.avoid_after_failure,
            name=name,
            alarm_at=self.alarm_at,
        )
        self.silence = Silence(config.unresponsive_after, self.slots)
        # From first use on, until close, `min_size` connections are kept.
        self.active = False
        self._peak_until = math.inf
        self._wanted_until = -math.inf
        # The number of connections that was too small the last time the pool grew, and the load that showed it.
        self._outgrown, self._outgrown_at = 0, math.inf
        # The next deadline. Brought forward as deadlines arise; derived again by `rearm`.
        self.alarm = math.inf
        self._random = random

    @property
    def bounds(self) -> tuple[int, int]:
        """`min_size` and `max_size`, as they are now."""
        return self.min_size, self.max_size

    # --- growing ------------------------------------------------------------------------------------------------

    def activate(self, now: float) -> None:
        """From here on, `min_size` connections are kept."""
        if not self.active:
            self.active = True
            self._regauge(now)

    def shortage(self, asked: int) -> int:
        """How many more connections are needed: for `asked` streams that wait, and for `min_size`."""
        if not self.active:
            return 0
        hanging = self.slots.opening - self.slots.successors - self.slots.under_way
        missing = self.min_size - (self.slots.connections - hanging)
        return max(-(-asked // self.target) - self.slots.under_way, missing)

    def fill(self, asked: int, now: float) -> list[Slot]:
        """Dials what is needed, as far as bounds and backoff allow; returns draining slots taken back instead."""
        shortage = self.shortage(asked)
        if shortage > 0 and now < self.limits.in_doubt_until:
            self.alarm_at(self.limits.in_doubt_until)
            shortage = self.shortage(0)
        if shortage <= 0:
            return []
        restored = self._restore(shortage, now)
        bound = self.max_size
        if self.config.mode is Mode.LOOSE:
            bound += self.config.max_overflow
        for _ in range(min(shortage - len(restored), self._may_open(now, bound))):
            self.dial(now)
        if self.backoff.retry_at > now:
            self.alarm_at(self.backoff.retry_at)
        return restored

    def grow(self, now: float) -> None:
        """Dials ahead of need if every ready slot carries the target and nothing is being dialled yet."""
        lightest = self.picker.lightest()
        ready = self.slots.ready
        if self.slots.under_way or not ready or (lightest is not None and lightest.in_flight < self.target):
            return
        self._outgrown, self._outgrown_at = ready, self.places.load
        step = self.places.load // self.target + 1 - ready
        step = min(max(1, min(step, ready)), self.max_size - self.slots.connections)
        step -= len(self._restore(step, now))
        for _ in range(min(step, self._may_open(now, self.max_size))):
            self.dial(now)

    def most_waiters(self) -> float:
        """The number of waiters at which the next is rejected.

        What waits for connections that are still to come is not overload: each of these adds what it may carry, and as
        many waiters as may wait for one. While connections fail, none is counted on. With 0, nothing ever waits.
        """
        most = self.config.max_waiters
        if not most:
            return math.inf if most is None else 0
        to_come = 0 if self.backoff.failures else self.max_size - self.slots.ready - self.slots.lost
        return most + max(0, to_come) * (most + self.config.max_streams)

    def dial(self, now: float, replaces: Slot | None = None) -> Slot:
        """Begins to open a connection, as the successor of `replaces` if that is given."""
        deadline = now + self.config.connect_timeout
        overflow = replaces.overflow if replaces is not None else self.slots.connections >= self.max_size
        slot = self.slots.add(limit=self.config.max_streams, now=now, deadline=deadline, replaces=replaces)
        slot.overflow = overflow
        slot.beside = self.slots.hanging > 0
        # Ever later, so that a server that is silent on all of its addresses does not get one dial a second.
        slot.hangs_at = now + _HANGS_AFTER * 2.0**self.slots.hanging
        self._regauge(now)
        self.alarm_at(min(slot.hangs_at, deadline))
        old = replaces.id if replaces is not None else None
        self.outbox.append(Open(slot))
        self.outbox.append(Notify(Opening(pool=self.name, channel=slot.id, replaces=old)))
        return slot

    def opened(self, slot: Slot, now: float) -> None:
        """Takes a connection into service; the one that it replaces, if any, retires."""
        slot.hangs, slot.hangs_at = False, math.inf
        self.slots.move(slot, SlotEvent.RECOVERED if slot.state is SlotState.LOST else SlotEvent.OPENED)
        self.counters.opened += 1
        self.backoff.succeeded()
        slot.been_up = True
        slot.given_up_at = math.inf
        slot.opened_at = slot.used_at = slot.unused_since = slot.refused_at = now
        if self.config.max_age is not None and slot.retire_at == math.inf:
            slot.retire_at = now + self.config.max_age * (1 - self.config.age_jitter * self._random())
        self.limits.limit_as_others(slot, now)
        self.succeed(slot, now)
        self.picker.enter(slot)

    def succeed(self, slot: Slot, now: float) -> None:
        """The connection that `slot` was opened to replace, if any, retires."""
        replaced = slot.replaces
        if replaced is not None:
            # Otherwise nothing would ever be idle long enough in a pool whose max_age is below its idle_timeout.
            if not replaced.in_flight:
                slot.unused_since = replaced.idle_since()
            self.slots.part(slot)
            given_up = replaced.state is SlotState.LOST and replaced.retire_at > now
            self.retire(replaced, CloseReason.LOST if given_up else replaced.reason, now)

    def open_failed(self, slot: Slot, now: float) -> float:
        """Removes a connection that could not be made; returns the seconds until the next attempt."""
        self.slots.part(slot)
        self.slots.move(slot, SlotEvent.OPEN_FAILED)
        self.gone(slot)
        self._regauge(now)
        self.counters.open_failures += 1
        return self.backoff.failed(now)

    def unreachable(self, slot: Slot, now: float) -> float:
        """Keeps a channel that does not connect, for calls; returns the seconds until the next attempt."""
        slot.hangs, slot.hangs_at = False, math.inf
        self.slots.move(slot, SlotEvent.UNREACHABLE)
        # The next attempt replaces it.
        slot.given_up_at = slot.unused_since = now
        self.counters.open_failures += 1
        return self.backoff.failed(now)

    def end_superfluous(self, asked: int, now: float) -> None:
        """If nothing waits, and what is up is enough, ends dials that hang, and those beside them."""
        needed = math.inf if asked else max(self.min_size, -(-self.places.load // self.target))
        for slot in self.slots.in_state(SlotState.OPENING):
            if self.slots.ready < needed:
                return
            if (slot.hangs or slot.beside) and slot.replaces is None:
                self.close(slot, CloseReason.SHRINK)
                self._regauge(now)

    def _may_open(self, now: float, bound: int) -> int:
        """How many connections may be dialled now, if there may be `bound` of them."""
        if now < self.backoff.retry_at:
            return 0
        room = bound - self.slots.connections
        return min(room, 1 - self.slots.opening + self.slots.hanging) if self.backoff.failures else room

    def _restore(self, wanted: int, now: float) -> list[Slot]:
        """Takes back up to `wanted` connections that drain only because there were too many."""
        restored: list[Slot] = []
        for slot in self.slots.in_state(SlotState.DRAINING) if self.slots.draining else ():
            if len(restored) >= wanted or self.slots.connections >= self.max_size:
                break
            if slot.reason is CloseReason.SHRINK and not slot.down:
                self.slots.move(slot, SlotEvent.RESTORED)
                slot.reason = CloseReason.AGE
                self.picker.enter(slot)
                self._regauge(now)
                self.alarm_at(self._attention(slot, 0, now))
                restored.append(slot)
        return restored

    def _regauge(self, now: float) -> None:
        """The number of connections, or a bound, has changed: decides when to consider growing and shrinking."""
        self.places.growth_load = self.target if self.slots.connections < self.max_size else math.inf
        if self.config.idle_timeout is None or self.slots.connections <= self.min_size:
            self._peak_until = math.inf
        elif self._peak_until == math.inf:
            self._begin_watch(now, self.config.idle_timeout)

    # --- shrinking and replacing --------------------------------------------------------------------------------

    def resize(self, min_size: int, max_size: int, now: float) -> None:
        """Changes the bounds and drains surplus connections."""
        self.min_size, self.max_size = min_size, max_size
        while self.slots.connections > max_size and (slot := self._dispensable(dialled=True)) is not None:
            self.retire(slot, CloseReason.SHRINK, now)
        self._regauge(now)

    def refresh(self) -> None:
        """Marks every connection of this moment for replacement."""
        for slot in self.slots:
            if slot.state is not SlotState.DRAINING:
                slot.retire_at, slot.reason = -math.inf, CloseReason.REFRESH
            elif slot.reason is CloseReason.SHRINK:
                slot.reason = CloseReason.REFRESH

    def rotate(self, asked: int, now: float) -> None:
        """Dials successors for the slots that are due."""
        if not self.active or now < self.backoff.retry_at:
            return
        due = [
            slot
            for slot in self.slots.in_service()
            if slot.successor is None and self._replace_at(slot, asked, now) <= now
        ]
        for slot in sorted(due, key=lambda slot: slot.retire_at):
            if not self._may_replace():
                return
            successor = self.dial(now, replaces=slot)
            if self._is_unresponsive(slot, now):
                slot.reason = CloseReason.UNRESPONSIVE
                self.silence.succeed(slot, successor)

    def watch_silence(self, slot: Slot, asked: int, now: float) -> None:
        """A call on the slot was not answered: replaces it if it has been silent for too long, or looks then."""
        at = self._replace_at(slot, asked, now)
        if at <= now:
            self.rotate(asked, now)
        else:
            self.alarm_at(at)

    def shrink(self, asked: int, now: float) -> None:
        """At the end of a watch, drains a slot without which the peak, and `asked` that wait, would have fit."""
        if self.config.idle_timeout is None or now < self._peak_until:
            return
        most = max(self.places.peak, self.places.load + asked)
        needed = max(self.min_size, -(-most // self.target))
        if most >= self._outgrown_at:
            # Otherwise what is drained now would be dialled again at the next such peak.
            needed = max(needed, self._outgrown + 1)
        if len(self.slots.in_service()) > needed and (slot := self._dispensable(dialled=False)) is not None:
            self.retire(slot, CloseReason.SHRINK, now)
        if self._peak_until <= now:
            self._begin_watch(now, self.config.idle_timeout)

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
        if slot.successor is not None:
            successor = slot.successor
            self.slots.part(successor)
            if reason is not CloseReason.DISCARDED:
                self.close(successor, reason)
        if slot.state is SlotState.OPENING:
            self.close(slot, reason)
            self._regauge(now)
            return
        slot.reason = reason
        slot.deadline = now + self.config.drain_timeout if deadline is None else deadline
        self.picker.remove(slot)
        self.slots.move(slot, SlotEvent.RETIRED)
        self._regauge(now)
        if slot.in_flight == 0:
            self.close(slot, reason)
            return
        self.alarm_at(slot.deadline)
        if slot.in_flight > leaving:
            left = slot.in_flight - leaving
            self.outbox.append(Notify(Draining(pool=self.name, channel=slot.id, reason=reason, in_flight=left)))

    def close(self, slot: Slot, reason: CloseReason) -> None:
        """Closes a slot that drains or is being opened; what it still carries is cancelled and forgotten."""
        if slot.state is not SlotState.OPENING:
            # What has never been up was not counted as opened either.
            self.counters.closed[reason] += slot.been_up
            closed = Closed(pool=self.name, channel=slot.id, reason=reason, cancelled=slot.in_flight)
            self.outbox.append(Notify(closed))
        self.slots.part(slot)
        self.slots.move(slot, SlotEvent.CLOSED)
        self.places.drop(slot)
        self.gone(slot)

    def gone(self, slot: Slot) -> None:
        """Closes what there is of a closed slot's channel, and forgets the slot."""
        self.outbox.append(Close(slot))
        self.counters.acquired_of_closed += slot.calls
        self.slots.forget(slot)

    def _dispensable(self, *, dialled: bool) -> Slot | None:
        """The least needed slot: opening (if `dialled`), then lost, then the least loaded."""
        rank = {SlotState.LOST: 1, SlotState.READY: 2}
        if dialled:
            rank[SlotState.OPENING] = 0
        slots = [slot for slot in self.slots if slot.state in rank and slot.replaces is None]
        return min(slots, key=lambda slot: (rank[slot.state], slot.exclusive, slot.in_flight), default=None)

    def _may_replace(self) -> bool:
        """Whether one more connection may be replaced now: a quarter at a time, and while failing one attempt."""
        if self.backoff.failures and self.slots.opening:
            return False
        return self.slots.successors < max(1, -(-self.slots.connections // 4))

    def _begin_watch(self, now: float, idle_timeout: float) -> None:
        self.places.peak = self.places.load
        self._peak_until = now + idle_timeout
        self.alarm_at(self._peak_until)

    # --- outages ------------------------------------------------------------------------------------------------

    def want(self, now: float) -> None:
        """Something was asked for while nothing was up."""
        self._wanted_until = now + _WANTED_FOR

    def is_needed(self, slot: Slot, asked: int, now: float) -> bool:
        """Whether a lost connection should come back: because of the calls on it, or because it is missed."""
        missed = self.active and self.slots.ready < self.min_size
        return missed or bool(slot.in_flight or asked) or now < self._wanted_until

    def lost(self, slot: Slot, now: float) -> None:
        """Takes a connection that is down out of service."""
        self.counters.losses += 1
        self.picker.remove(slot)
        self.slots.move(slot, SlotEvent.LOST)
        slot.lost_at, slot.given_up_at = now, now + _GIVEN_UP_AFTER
        self.alarm_at(slot.given_up_at)

    def retire_rested(self, slot: Slot, now: float) -> None:
        """A call has shown that the slot's connection is dead, maybe since long: what has rested as long may be, too.

        A NAT or a load balancer forgets all connections that have been idle for as long, and notifies none of them.
        """
        if slot.in_flight > 1 or slot.exclusive or now - slot.used_at < _REST:
            return
        for other in self.slots.in_state(SlotState.READY):
            if not other.in_flight and other.idle_since() < slot.used_at + _REST:
                self.retire(other, CloseReason.LOST, now)

    def recovered(self, slot: Slot, now: float) -> None:
        """Takes a lost connection into service again; a successor that is on its way is not needed any more."""
        self.slots.move(slot, SlotEvent.RECOVERED)
        slot.given_up_at = math.inf
        # A connection that came back is as good a proof as one that was opened.
        self.backoff.succeeded()
        self.picker.enter(slot)
        successor = slot.successor
        if successor is not None and slot.retire_at > now:
            self.slots.part(successor)
            self.close(successor, CloseReason.LOST)

    # --- time ---------------------------------------------------------------------------------------------------

    def tick(self, slot: Slot, now: float) -> None:
        """Closes a slot in service that has been idle for too long, or a draining one that is overdue."""
        if slot.state is SlotState.OPENING:
            if slot.hangs_at <= now:
                slot.hangs, slot.hangs_at = True, math.inf
                self.slots.recount()
        elif slot.state is SlotState.DRAINING:
            if slot.deadline <= now:
                self.close(slot, slot.reason)
        elif self._may_idle_out(slot) and self._idle_at(slot) <= now:
            down = slot.state is SlotState.LOST
            self.retire(slot, CloseReason.LOST if down else CloseReason.IDLE, now)

    def alarm_at(self, at: float) -> None:
        """Brings the next deadline forward to `at`, if it is later."""
        self.alarm = min(self.alarm, at)

    def rearm(self, asked: int, deadline: float, now: float) -> None:
        """Derives the next deadline: of the slots, or, if that is earlier, `deadline`."""
        self.alarm = min(self._peak_until, deadline)
        for slot in self.slots.all:
            self.alarm_at(self._attention(slot, asked, now))
        # In doubt about a limit, `min_size` alone is filled.
        at = self.backoff.retry_at if self.shortage(0) > 0 else max(self.backoff.retry_at, self.limits.in_doubt_until)
        if at > now and self.shortage(asked) > 0:
            self.alarm_at(at)
        self.alarm = max(self.alarm, now)

    def _may_idle_out(self, slot: Slot) -> bool:
        spare = self.slots.ready if slot.state is SlotState.READY else self.slots.connections
        return spare > self.min_size and slot.successor is None

    def _idle_at(self, slot: Slot) -> float:
        if self.config.idle_timeout is None or slot.in_flight:
            return math.inf
        return slot.idle_since() + self.config.idle_timeout

    def _replace_at(self, slot: Slot, asked: int, now: float) -> float:
        """When a slot in service is due for a successor."""
        if slot.state is SlotState.LOST and self.is_needed(slot, asked, now):
            return min(slot.retire_at, slot.given_up_at)
        if slot.overdue and slot.state is SlotState.READY:
            return min(slot.retire_at, self.silence.ends_at(slot, now))
        return slot.retire_at

    def _is_unresponsive(self, slot: Slot, now: float) -> bool:
        return slot.state is SlotState.READY and now < slot.retire_at and self.silence.ends_at(slot, now) <= now

    def _attention(self, slot: Slot, asked: int, now: float) -> float:
        """When the slot next needs a tick. A busy slot is checked after `idle_timeout`, so that no release has to."""
        if slot.state in (SlotState.OPENING, SlotState.DRAINING):
            return min(slot.deadline, slot.hangs_at)
        at = min(slot.limit_grows_at, slot.avoided_until)
        if self.config.idle_timeout is not None and self._may_idle_out(slot):
            at = min(at, now + self.config.idle_timeout if slot.in_flight else self._idle_at(slot))
        if self.active and slot.successor is None and self._may_replace():
            at = min(at, max(self._replace_at(slot, asked, now), self.backoff.retry_at))
        return at
