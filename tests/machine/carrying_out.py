"""How the model carries out what the machine asks for."""

from __future__ import annotations

import collections
import math
from collections.abc import Sequence
from typing import Any, TypeVar

from grpcpool._machine.effects import Close, Effect, Grant, Look, Notify, Open, Refuse, Started, Watch
from grpcpool._machine.openers import OpenWaiter
from grpcpool._machine.queue import Waiter
from grpcpool._machine.slot import Slot
from machine.counts import in_state
from machine.invariants import INVARIANTS
from machine.records import Records
from machine.settings import MOST_LOOKS, Held

T = TypeVar("T")


class Driver(Records):
    """Carries out the effects of a step, and checks all invariants at its end."""

    def _step(self, effects: Sequence[Effect], *, ticked: bool = False, at_will: bool = False) -> None:
        """Carries out the effects and checks every invariant."""
        after_close = self.closing
        backoff = self.machine.fleet.addresses
        dialled = sum(
            type(effect).__name__ == "Open" and getattr(effect, "slot", None) not in self.slots for effect in effects
        )
        # Of several addresses, one may have been tried after the other.
        at_will = at_will or bool(self.possible)
        assert dialled <= 1 or at_will or not backoff.failures, "several attempts while failing"
        assert dialled == 0 or at_will or self.now >= backoff.retry_at, "dialled before the backoff has ended"
        self.failing = any(
            type(effect).__name__ == "Close" or type(getattr(effect, "event", None)).__name__ == "OpenFailed"
            for effect in effects
        )
        for number, effect in enumerate(effects, 1):
            name = type(effect).__name__
            self.to_come = effects[number:]
            assert not after_close or name in ("Close", "Refuse", "Notify"), f"no. 9: {name} after close"
            getattr(self, f"_do_{name.lower()}")(effect)
        # These are dialled when the addresses are known.
        self.slots |= {slot: None for slot in self.machine.fleet.slots if slot.awaits_address}
        self.ticked = ticked
        passed = [waiter for slot, waiter in self.granted if slot is self.kept and waiter is not self.kept_for]
        in_service = self.kept is not None and self.kept.state == "ready"
        assert not (passed and in_service and self.kept_for in self.waiting), (
            f"no. 12: {self.kept} was kept for another"
        )
        self.kept, self.kept_for = (reservation := self.machine.grants.reservation).slot, reservation._waiter
        self.granted.clear()
        if self.idled:
            self._check_idled()
        self.found = {}
        for invariant in INVARIANTS:
            invariant(self)
        self.found = None
        self.broken = False

    def _check_idled(self) -> None:
        """What was idle has been closed where most lead: no idle one that stays leads where more do than there.

        Or it has waited for those that do as long again, they have been used meanwhile, and `min_size` needs not all.
        """
        ready = in_state(self, "ready")
        leading = collections.Counter(slot.address for slot in ready)
        stays = [slot for slot in ready if not slot.in_flight and slot.successor is None]
        timeout = self.config.idle_timeout or math.inf
        for closed in self.idled:
            # One that leaves had as many beside it as any that stays.
            fuller = [slot for slot in stays if leading[slot.address] > leading[closed.address] + 1]
            waited = closed.counts_as_idle_since() + timeout + timeout <= self.now
            used = all(slot.counts_as_idle_since() + timeout > self.now for slot in fuller)
            waited = waited and used and len(ready) > self.min_size
            assert waited or not fuller, f"no. 13: idle connections have closed unevenly: {leading}"
        self.idled.clear()

    def _do_open(self, effect: Open) -> None:
        assert effect.slot not in self.dials, "dialled twice"
        assert effect.slot.address in (None, *self.possible), "dialled to an address that was not found"
        assert effect.slot.address or not self.discovered, "dialled to an unknown address"
        address = self.machine.fleet.addresses._used.get(effect.slot.address)
        pauses = address is not None and address.backoff.retry_at > self.now
        others = self.machine.fleet.addresses.retry_at <= self.now and not self.failing
        assert not pauses or not others, f"dialled to {effect.slot.address}, which pauses"
        effect.slot.channel = object()
        self.slots[effect.slot] = None
        self.dials.append(effect.slot)

    def _do_look(self, effect: Look) -> None:
        fleet, timeout = self.machine.fleet, self.config.connect_timeout
        for number, (began_at, endpoint) in self.looks.items():
            # If the target was left meanwhile, the answer is of no use, also when the target is used again.
            left = endpoint != fleet.endpoint or number < fleet.lookups._attempts.valid_from
            assert left or self.now >= began_at + timeout, "two look-ups at once"
        assert len(self.looks) < MOST_LOOKS, "too many look-ups hang"
        # The machine may have come to another target since it asked: then the answer is of no use, and it asks again.
        stale = effect.number < fleet.lookups._attempts.valid_from
        self.looks[effect.number] = self.now, -1 if stale else fleet.endpoint

    def _do_close(self, effect: Close) -> None:
        slot = effect.slot
        if slot not in self.slots:
            return
        del self.slots[slot]
        drained_at = self.drains.pop(slot, math.inf)
        if any(held.slot is slot for held in self.held):
            due = min(drained_at + self.config.drain_timeout, self.close_deadline)
            assert self.now >= due, f"cut off at {self.now}, before {due}"

    def _do_grant(self, effect: Grant) -> None:
        waiter, slot = effect.waiter, effect.slot
        self._answer(waiter)
        self.granted.append((slot, waiter))
        assert waiter not in self.paused, "served while it pauses"
        ahead = [other for other in list(self.waiting)[: list(self.waiting).index(waiter)] if other not in self.paused]
        del self.waiting[waiter]
        equal = [other for other in ahead if other.streams == waiter.streams]
        if slot.state == "lost":
            assert waiter.fail_fast, "a wait-for-ready waiter was put on a lost slot"
            assert not slot.blocked, "put on a slot that is blocked"
            assert not in_state(self, "ready"), "put on a lost slot while another is up"
            equal = [other for other in equal if other.fail_fast]
        elif not (waiter.fail_fast and slot in self.down and self._drains_next(slot)):
            self._check_usable(slot)
        assert not equal, "no. 4: overtook an earlier equal request"
        self._hold(slot, waiter.streams)

    def _do_refuse(self, effect: Refuse) -> None:
        waiter = effect.waiter
        self._answer(waiter)
        reason = effect.refusal.name
        assert reason != "TIMEOUT" or waiter.deadline <= self.now, "timed out before its deadline"
        assert reason != "OPEN_FAILED" or waiter in self.openers or getattr(waiter, "fail_fast", False), (
            "refused a patient waiter"
        )
        checked = [slot for slot in in_state(self, "lost") if slot.blocked]
        if reason == "OPEN_FAILED" and waiter not in self.openers and checked:
            assert self.broken_slots.issuperset(checked), "refused while a check may end well"
            assert self.machine.fleet.addresses.failures, "refused before it was tried to open a successor"
        if reason == "OPEN_FAILED" and waiter in self.openers and self.machine.fleet.has_other_targets:
            assert waiter.deadline <= self.now, "open() failed before the next target had its chance"
        self.counts["timeouts"] += reason == "TIMEOUT" and waiter in self.waiting
        self.counts["rejected"] += reason == "EXHAUSTED"
        self._leave(waiter)

    def _leave(self, waiter: Waiter | OpenWaiter) -> None:
        if isinstance(waiter, self.code.open_waiter):
            self.openers.pop(waiter, None)
        elif isinstance(waiter, self.code.waiter):
            self.waiting.pop(waiter, None)

    def _do_started(self, effect: Started) -> None:
        self._answer(effect.waiter)
        awaited = self.openers.pop(effect.waiter)
        pending = [slot for slot in awaited if slot.state == "opening"]
        # One that was ready may have been closed in the same step.
        enough = len(in_state(self, "ready", "closed")) >= self.min_size
        others = enough and all(slot.hangs for slot in pending)
        assert others or not pending, "open() answered too early"
        assert enough or not in_state(self, "lost"), "open() answered, and a connection is down"

    def _do_watch(self, effect: Watch) -> None:
        assert effect.slot.state != "ready", "watches a ready slot"

    def _do_notify(self, effect: Notify) -> None:
        event: Any = effect.event
        name = type(event).__name__
        if name == "Draining":
            slot = next(slot for slot in self.slots if slot.id == event.channel)
            self.drains[slot] = self.now
        elif name == "Closed":
            self.counts[f"closed {event.reason}"] += next(s for s in self.slots if s.id == event.channel).been_up
            assert event.reason != "age" or self.config.max_age is not None, "closed for an age that is allowed"
            self.idled += [slot for slot in self.slots if slot.id == event.channel and event.reason == "idle"]
        self.counts["open_failures"] += name == "OpenFailed"
        self.counts["losses"] += name == "Lost"

    def _answer(self, waiter: Waiter | OpenWaiter) -> None:
        self.answers[waiter] += 1
        assert waiter in self.waiting or waiter in self.openers, "no. 5: answered twice, or never requested"

    def _drains_next(self, slot: Slot) -> bool:
        """Whether the slot begins to drain in what is left of this step.

        What has been granted may make it superfluous, and so may what else is due, such as another target.
        """
        events: list[Any] = [getattr(effect, "event", None) for effect in self.to_come]
        return slot.id in [event.channel for event in events if type(event).__name__ == "Draining"]

    def _check_usable(self, slot: Slot) -> None:
        assert slot.state == "ready" or self._drains_next(slot), f"granted on {slot}"
        assert slot not in self.down, f"granted on {slot}, which is down"
        assert slot not in self.unwanted, f"granted on {slot}, which was discarded"

    def _hold(self, slot: Slot, streams: int | None) -> None:
        self.held.append(Held(slot, streams))
        self.counts["acquired"] += 1

    @staticmethod
    def _closes(effects: Sequence[Effect], slot: Slot) -> bool:
        return any(type(effect).__name__ == "Close" and getattr(effect, "slot", None) is slot for effect in effects)

    @staticmethod
    def _some(items: Sequence[T], index: int) -> T | None:
        return items[index % len(items)] if items else None
