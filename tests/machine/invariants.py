"""The invariants that must hold after every step.

How the model reads the invariants where the design leaves them open:

*   No. 3 also holds for connections: nothing waits for a connection that could be dialled and is not. When nothing is
    up, a fail-fast call does not wait: it is put on a lost slot with room, or refused.
*   No. 4: equal requests ask for the same streams. A lost slot serves fail-fast waiters only, in their order.
*   No. 6 counts connections, open or opening. A draining slot does not count, and neither does a successor being
    opened, because the slot it is to replace still counts. Slots above `max_size` are marked as overflow. A `resize`
    downwards retires at once whatever is above the new `max_size`, overflow included, so the bound holds throughout.
*   No. 11: ready slots with a handicap have room like others (no. 3, and the lightest of the picker); of those with
    room, the fast way picks by rank.
*   No. 12: the oldest waiter, if it asks for much, has a slot reserved, unless something is being dialled or none
    would do; then the next waiter, and so on. A reserved slot takes nothing new.
*   No. 13 holds after each tick of a pool in use, unless something is being opened, lost, or cannot be reached.
*   A dial that hangs, for a second or more at the last tick, does not count as one under way.
*   No. 8: after `tick(now)`, `next_deadline()` is `now` or later, and it is never after the deadline of a waiter.
"""

from __future__ import annotations

import collections
import itertools
import math
import operator
from collections.abc import Callable
from typing import Any

from grpcpool._machine.openers import OpenWaiter
from grpcpool._machine.places import NEVER
from grpcpool._machine.queue import Waiter
from grpcpool._machine.slot import Slot
from machine.counts import all_carried, asking, carried, connections, fits, handicap, in_state, moment, weight
from machine.records import Records


def no_1_carried_is_what_was_granted(world: Records) -> None:
    """Each slot carries exactly what was granted and not released."""
    for slot in world.slots:
        granted = sum([1 if ask is None else ask for ask in carried(world, slot)])
        assert slot.in_flight == granted, f"no. 1: {slot} should carry {granted}"


def no_2_within_the_limit(world: Records) -> None:
    """``0 <= in_flight <= limit`` for each slot."""
    for slot in world.slots:
        assert 0 <= slot.in_flight <= slot.limit, f"no. 2: {slot}"
        assert slot.carries_up_to == slot.limit or slot.doubted, f"no. 2: {slot} is bounded, and not in doubt"


def no_3_nothing_waits_while_there_is_room(world: Records) -> None:
    """No request waits while a ready slot has room for it."""
    ready = in_state(world, "ready")
    others = [slot for slot in ready if not slot.reserved]
    for ask in {waiter.streams for waiter in asking(world)}:
        assert not any([fits(world, slot, ask) for slot in others]), (  # noqa: C419 -- faster
            f"no. 3: waits for {ask} while there is room: {ready}"
        )


def no_3_what_is_needed_is_dialled(world: Records) -> None:
    """What waiters and `min_size` need is being dialled, as far as bounds and backoff allow."""
    fleet = world.machine.fleet
    asked = sum(weight(world, waiter.streams) for waiter in asking(world))
    opening = in_state(world, "opening")
    dialled = sum(slot.replaces is None and not slot.hangs for slot in opening)
    hanging = sum(slot.replaces is None and slot.hangs for slot in opening)
    counted = connections(world) - hanging
    missing = max(-(-asked // world.config.resolved_target_streams) - dialled, world.min_size - counted)
    room = bound(world) - connections(world)
    if not fleet.active or min(missing, room) <= 0:
        return
    # In doubt about a limit or a server, nothing is dialled for waiters until a tick at its end.
    in_doubt = fleet.unclear_until > -math.inf and missing > world.min_size - counted
    if in_doubt and world.machine.next_deadline() <= max(fleet.unclear_until, world.now):
        return
    assert fleet.addresses.failures, f"no. 3: {missing} missing, room for {room}, {world.slots}"
    retry_at = max(fleet.addresses.retry_at, world.now)
    assert opening or world.machine.next_deadline() <= retry_at, "no. 3: no dial is planned"


def no_3_fail_fast_calls_do_not_wait_without_hope(world: Records) -> None:
    """When nothing is up, a fail-fast call is on a lost slot with room, or refused, or an attempt is made for it."""
    backoff = world.machine.fleet.addresses
    under_way = [slot for slot in in_state(world, "opening") if not slot.hangs and slot.replaces is None]
    if in_state(world, "ready") or (backoff.several and under_way and not backoff.failures):
        return
    if world.attempt in in_state(world, "opening") and not world.attempt.hangs:
        return
    for ask in {waiter.streams for waiter in asking(world) if waiter.fail_fast}:
        lost = in_state(world, "lost")
        failing = [slot for slot in lost if not slot.blocked]
        assert not any(fits(world, slot, ask) for slot in failing), f"no. 3: fail-fast, waits for {ask} beside {lost}"
        assert lost or in_state(world, "opening") or world.now >= backoff.retry_at, (
            "no. 3: fail-fast, waits for nothing"
        )


def no_4_the_queue_is_in_order(world: Records) -> None:
    """The machine's queue holds exactly the model's waiters, in order of arrival."""
    assert list(world.machine.queue) == list(world.waiting), "no. 4: the queue is not in order of arrival"


def no_5_answered_once(world: Records) -> None:
    """Each waiter has at most one answer, and a queued waiter has none."""
    assert max(world.answers.values(), default=0) <= 1, "no. 5: answered twice"
    for waiter in world.waiting:
        assert waiter.queued, "no. 5: waits without being queued"
        assert not world.answers[waiter], "no. 5: answered while waiting"


def most_waiters(world: Records) -> float:
    """The number of waiters at which the next is rejected."""
    most = world.config.max_waiters
    if most is None:
        return math.inf
    to_come = max(0, world.max_size - len(in_state(world, "ready", "lost")))
    if world.machine.fleet.addresses.failures or most == 0:
        to_come = 0
    return most + to_come * (most + world.config.max_streams)


def bound(world: Records) -> int:
    """The most connections that the pool may have."""
    return world.max_size + (world.config.max_overflow if world.config.mode.name == "LOOSE" else 0)


def no_6_connections_are_bounded(world: Records) -> None:
    """Connections never exceed `max_size` plus overflow, and an unused one above `max_size` has been closed."""
    n, most = connections(world), bound(world)
    assert n <= most, f"no. 6: {n} connections of {most}: {list(world.slots)}"
    overflow = [slot for slot in in_state(world, "opening", "ready", "lost") if slot.overflow and slot.replaces is None]
    assert n - len(overflow) <= world.max_size, f"no. 6: ordinary slots above max_size: {list(world.slots)}"
    for slot in in_state(world, "ready", "lost"):
        assert slot.in_flight or not slot.overflow, f"no. 6: unused overflow {slot} is still open"


def no_7_closed_is_empty_and_drained_is_gone(world: Records) -> None:
    """A closed slot carries nothing; a fully drained slot is gone; the pool holds exactly the slots not closed."""
    assert list(world.machine.fleet.slots) == list(world.slots), "no. 7: dialled and not closed, but not in the pool"
    for slot in world.slots:
        assert slot.state != "closed", f"no. 7: {slot} in the pool"
        assert slot.in_flight or slot.state != "draining" or slot.kept, (
            f"no. 7: {slot} has drained and is still in the pool"
        )
    for held in world.held:
        if held.slot not in world.slots:
            assert held.slot.in_flight == 0, f"no. 7: {held.slot} is closed and carries something"
            assert not held.slot.exclusive, f"no. 7: {held.slot} is closed and carries something"


def everyone_waiting(world: Records) -> list[Waiter | OpenWaiter]:
    """All that wait, for a place or in `open()`."""
    return [*world.waiting, *world.openers]


def no_8_the_alarm_is_set(world: Records) -> None:
    """The next deadline is not after any waiter's or slot's deadline, and after a tick nothing is overdue."""
    alarm = world.machine.next_deadline()
    deadlines = [waiter.deadline for waiter in everyone_waiting(world)]
    deadlines += [waiter.not_before for waiter in world.waiting if waiter in world.paused]
    deadlines += [slot.deadline for slot in in_state(world, "opening", "draining")]
    deadlines += [slot.hangs_at for slot in in_state(world, "opening")]
    deadlines += [slot.avoided_until for slot in in_state(world, "ready")]
    fleet = world.machine.fleet
    if fleet.active and not in_state(world, "opening"):
        # It is replaced then, unless it is back.
        missed = [slot for slot in in_state(world, "lost") if _is_missed(world, slot) and slot.successor is None]
        deadlines += [max(slot.given_up_at, fleet.addresses.retry_at) for slot in missed]
    assert alarm <= max(min(deadlines, default=math.inf), world.now), "no. 8: the next deadline is too late"
    if world.ticked:
        assert alarm >= world.now, f"no. 8: {alarm} is past after tick({world.now})"
        _no_8_nothing_is_overdue(world, again=alarm <= world.now)


def _no_8_nothing_is_overdue(world: Records, *, again: bool) -> None:
    """After a tick nothing is overdue, unless the machine wants to be ticked `again` at once."""
    for waiter in everyone_waiting(world):
        assert waiter.deadline > world.now, "no. 8: a waiter is overdue"
    for slot in in_state(world, "opening", "draining"):
        assert slot.deadline > world.now or again, f"no. 8: {slot} is overdue"
    for slot in in_state(world, "opening"):
        assert slot.hangs or slot.hangs_at > world.now or again, f"no. 8: {slot} hangs, and still counts"
    if not again:
        _no_8_nothing_is_idle_for_too_long(world)
    for slot in in_state(world, "ready", "lost"):
        assert slot.avoided_until > world.now, f"no. 11: the handicap of {slot} does not end"
        ends_at = world.machine.next_deadline()
        assert world.now < slot.doubted_until >= ends_at, f"no. 8: the doubt about {slot} does not end"
        assert slot.limit_grows_at > world.now, f"no. 8: the limit of {slot} should have grown"
        lowered = slot.limit < world.config.max_streams
        assert lowered == (slot.limit_grows_at < math.inf), f"no. 8: the limit of {slot} is never raised again"
    due = [slot for slot in in_state(world, "ready", "lost") if _is_due(world, slot) and slot.successor is None]
    calm = world.machine.fleet.active and world.machine.fleet.addresses.failures == 0
    surge = max(1, -(-connections(world) // 4))
    successors = sum(slot.replaces is not None for slot in world.slots)
    assert again or not due or not calm or successors >= surge, f"no. 8: nothing replaces {due}"


def _no_8_nothing_is_idle_for_too_long(world: Records) -> None:
    """What `min_size` does not need is not idle for `idle_timeout`; for twice that if others are to close before it."""
    ready = in_state(world, "ready")
    if world.config.idle_timeout is None or len(ready) <= world.min_size:
        return
    leading = collections.Counter(slot.address for slot in ready)
    idle = [slot for slot in ready if not slot.in_flight and slot.successor is None]
    for slot in idle:
        ends_at = max(slot.idle_since(), slot.back_at) + world.config.idle_timeout
        fuller = [other for other in idle if leading[other.address] > leading[slot.address]]
        if fuller:
            # Or for ever, if `min_size` needs all but these.
            ends_at += math.inf if len(fuller) >= len(ready) - world.min_size else world.config.idle_timeout
        assert ends_at > world.now, f"no. 8: {slot} is idle for too long"
        assert world.machine.next_deadline() <= ends_at, f"no. 8: {slot} will be idle for too long"


def _is_missed(world: Records, slot: Slot) -> bool:
    """Whether a lost slot is to come back: there are less than `min_size`, or calls are on it, or wait."""
    return len(in_state(world, "ready")) < world.min_size or slot.in_flight > 0 or bool(asking(world))


def _is_due(world: Records, slot: Slot) -> bool:
    """Whether a slot should have a successor: it is too old, or it is down, needed, and not back."""
    needed = slot.state == "lost" and _is_missed(world, slot)
    if world.possible and world.machine.fleet.addresses.is_gone(slot):
        others = [s for s in in_state(world, "ready", "opening") if not world.machine.fleet.addresses.is_gone(s)]
        return sum(not s.hangs for s in others) < max(1, world.machine.fleet.needed(world.machine.queue.asked))
    return slot.retire_at <= world.now or bool(needed and slot.given_up_at <= world.now)


def no_9_closed_is_closed(world: Records) -> None:
    """After close nothing is in service, nothing is dialled, and nothing waits."""
    if world.closing:
        late = world.ticked and world.now >= world.close_deadline
        assert not late or not world.slots, "no. 9: a slot is open after the grace"
        assert not in_state(world, "opening", "ready", "lost"), "no. 9: a slot is in service after close"
        assert not world.waiting, "no. 9: waiting after close"


def no_10_exclusive_is_alone(world: Records) -> None:
    """An exclusive lease is alone on its slot."""
    for slot in world.slots:
        asks = carried(world, slot)
        assert slot.exclusive == (None in asks), f"no. 10: {slot} carries {asks}"
        assert not slot.exclusive or len(asks) == 1, f"no. 10: {slot} carries {asks}"


def no_11_a_handicap_has_an_end(world: Records) -> None:
    """A slot has a handicap exactly until it ends."""
    for slot in world.slots:
        assert (slot.recent_failures > 0) == (slot.avoided_until < math.inf), (
            f"no. 11: the handicap of {slot} has no end"
        )
        assert not slot.recent_failures or world.config.avoid_after_failure is not None, f"no. 11: {slot} is avoided"


def no_12_the_oldest_large_ask_has_a_slot(world: Records) -> None:
    """At most one slot is reserved; one is if the oldest waiter asks for much, and a slot would do once it is empty.

    If none would do, the next waiter counts.
    """
    reserved = [slot for slot in world.slots if slot.reserved]
    assert len(reserved) <= 1, f"no. 12: {reserved} are reserved"
    large = [waiter for waiter in asking(world) if waiter.streams != 1]
    assert large or not reserved, f"no. 12: {reserved} is reserved for nothing"
    if reserved or [slot for slot in in_state(world, "opening") if not slot.hangs]:
        return
    for waiter in itertools.takewhile(lambda waiter: waiter.streams != 1, asking(world)):
        enough = [s for s in in_state(world, "ready") if not s.exclusive and s.limit >= (waiter.streams or 1)]
        assert not enough, f"no. 12: nothing is reserved for {waiter.streams} of {enough}"


def no_13_connections_are_even(world: Records) -> None:
    """Once all is settled, the numbers of connections to any two addresses differ by at most one, and none is left out.

    An address that lost its connection because that was idle may be left out.
    """
    fleet = world.machine.fleet
    last = max(world.looks, default=0)
    waits = fleet.lookups.under_way and last < fleet.lookups._attempts.begun
    assert world.closing or not waits, "no. 13: waits for a look-up that has ended"
    if fleet.lookups.under_way and not world.closing:
        ends_at = max(world.looks[last][0] + world.config.connect_timeout, world.now)
        assert world.machine.next_deadline() <= ends_at, "no. 13: waits for a look-up for ever"
    addresses, slots = fleet.addresses, in_state(world, "opening", "ready", "lost")
    if world.closing or fleet.lookups.under_way or not (fleet.active and fleet.usage.in_use):
        return
    if not world.ticked and world.machine.next_deadline() <= world.now:
        # A tick is to settle it.
        return
    if fleet.lookups.next_at() <= world.now:
        # It has come into use in this very step.
        return
    if not addresses.names:
        return
    used = addresses._used
    if len({each.is_ipv6 for each in used.values()}) > 1 and addresses._either_family:
        return
    held = collections.Counter(slot.address for slot in slots)
    failing = {name for name, each in used.items() if each.backoff.failures}
    left_out = [name for name, each in used.items() if each.wanted and not held[name] and name not in failing]
    assert not left_out or len(used) < 2 or connections(world) >= world.max_size, f"no. 13: {left_out} are left out"
    if failing or any(slot.state != "ready" or slot.address not in used for slot in slots):
        return
    numbers = [held[name] for name in used]
    assert max(numbers) - min(numbers) <= 1, f"no. 13: {held} of {[*used]}"


def the_counts_are_right(world: Records) -> None:
    """The counts of the table, the queue and the load equal the model's own counts."""
    fleet, queue = world.machine.fleet, world.machine.queue
    for state in ("opening", "ready", "lost", "draining"):
        assert getattr(fleet.slots, state) == len(in_state(world, state)), f"miscounted: {state}"
    successors = [slot for slot in world.slots if slot.replaces is not None]
    assert fleet.slots.successors == len(successors), "miscounted: successors"
    assert fleet.slots.connections == connections(world), "miscounted: places"
    counted = {slot: (slot.state == "opening", slot.hangs, slot.replaces is not None) for slot in world.slots}
    assert fleet.slots.probing == sum(slot.probes for slot in world.slots), "miscounted: probing"
    kinds = [kind for slot, kind in counted.items() if not slot.probes]
    assert fleet.slots.hanging == sum(kind[:2] == (True, True) for kind in kinds), "miscounted: hanging"
    assert fleet.slots.under_way == kinds.count((True, False, False)), "miscounted: under way"
    assert fleet.slots.successors_under_way == kinds.count((True, False, True)), "miscounted: replacing"
    for name, leading in _leading(world).items():
        # A counter's own comparison takes several times as long.
        assert dict.__eq__(getattr(fleet.slots, name), leading), f"miscounted: {name}"
    for slot in successors:
        assert slot.state == "opening", f"{slot} is still a successor"
        assert slot.replaces is not None and slot.replaces.successor is slot, f"{slot} replaces nothing"  # noqa: PT018
        assert slot.replaces.state in ("ready", "lost"), f"{slot} replaces {slot.replaces}"
    assert queue.length == len(world.waiting), "miscounted: length"
    assert queue.asked == sum(weight(world, waiter.streams) for waiter in asking(world)), "miscounted: asked"
    target = world.config.resolved_target_streams
    load = sum(target if slot.exclusive else slot.in_flight for slot in world.slots)
    assert world.machine.places.load == load, f"miscounted: the load is {world.machine.places.load}, not {load}"
    assert world.machine.places.peak >= load or fleet.peak_watch_ends_at == math.inf, "the peak is below the load"


def _leading(world: Records) -> dict[str, dict[str | None, int]]:
    """How many connections lead to each address, by the names that the table has for these counts."""
    leading: dict[str | None, int] = {}
    by_name = {"leading": leading}
    for slot in world.slots:
        if slot.state in ("opening", "ready", "lost") and not slot.successor:
            leading[slot.address] = leading.get(slot.address, 0) + 1
    opening = in_state(world, "opening")
    hanging = [slot for slot in opening if slot.hangs]
    ready, lost = in_state(world, "ready"), in_state(world, "lost")
    for name, slots in (("opening", opening), ("hanging", hanging), ("ready", ready), ("lost", lost)):
        to: dict[str | None, int] = {}
        by_name[f"{name}_to"] = to
        for slot in slots:
            to[slot.address] = to.get(slot.address, 0) + 1
    return by_name


def growth_and_shrinking_are_planned(world: Records) -> None:
    """The growth threshold is set exactly below `max_size`, and the shrink watch exactly above `min_size`."""
    fleet = world.machine.fleet
    target = world.config.resolved_target_streams
    expected = target if connections(world) < world.max_size else NEVER
    if world.possible and not fleet.usage.in_use:
        expected = 0
    assert world.machine.places.growth_load == expected or not connections(world), "the growth threshold is wrong"
    watch = world.config.idle_timeout is not None and connections(world) > world.min_size
    assert (fleet.peak_watch_ends_at < math.inf) == watch, "the shrink watch is wrong"


def the_picker_holds_the_slots_with_room(world: Records) -> None:
    """The places' order holds exactly the ready slots with room, each filed under its load."""
    places: Any = world.machine.places
    ready = [slot for slot in in_state(world, "ready") if not slot.reserved]
    roomy = {slot for slot in ready if slot.has_room(1)}
    for slot in world.slots:
        assert (slot in places) == (slot in roomy), f"{slot} is in the order, or is not, and should"
    assert places._avoided == {slot for slot in in_state(world, "ready") if slot.recent_failures}, "avoids others"
    lightest = places.lightest()
    assert (lightest is None) == (not roomy), f"the lightest is {lightest} of {roomy}"
    assert lightest is None or lightest.in_flight == min(slot.in_flight for slot in roomy), "the lightest is wrong"
    if type(places).__name__ == "RoundRobin":
        assert set(places._circle) == roomy, "the circle is not the slots with room"
        assert set(places._idle) == {slot for slot in roomy if not slot.in_flight}, "the idle are not the idle slots"
        return
    found = set()
    for rank, ring in enumerate(places._rings):
        before, slot = ring, ring.next
        while slot is not ring:
            assert slot.in_flight + handicap(world, slot) == rank, f"{slot} is in the wrong ring {rank}"
            assert slot.previous is before, f"{slot} is not behind its neighbour"
            found.add(slot)
            before, slot = slot, slot.next
        assert ring.previous is before, f"ring {rank} does not end with its last slot"
    assert found == roomy, "the rings are not the slots with room"


_COUNTED = ("acquired", "timeouts", "rejected", "opened", "open_failures", "refused_streams", "failures", "losses")
_counted_in = operator.attrgetter(*_COUNTED)


def the_stats_agree(world: Records) -> None:
    """The snapshot agrees with the model's records."""
    stats, by_slot = world.machine.stats(moment, world.now), all_carried(world)
    states: list[str] = [slot.state for slot in world.slots]
    counted = [states.count(state) for state in ("ready", "lost", "opening", "draining")]
    assert [stats.ready, stats.lost, stats.opening, stats.draining] == counted, "stats: wrong counts"
    assert stats.size == len(world.slots) == len(stats.channels), "stats: wrong size"
    asks = [ask for slot, asks in by_slot.items() if slot in world.slots for ask in asks]
    assert stats.in_flight == sum([1 if ask is None else ask for ask in asks])
    ready = in_state(world, "ready")
    assert stats.idle == len([slot for slot in ready if slot not in by_slot]), "stats: wrong idle"
    assert stats.waiting == len(world.waiting), "stats: wrong waiting"
    assert stats.avoided == len([slot for slot in ready if slot.recent_failures > 0]), "stats: wrong avoided"
    assert (stats.min_size, stats.max_size) == (world.min_size, world.max_size), "stats: wrong bounds"
    counts, were = world.counts.get, _counted_in(stats)
    numbers = tuple([counts(name, 0) for name in _COUNTED])
    assert were == numbers, f"stats: {dict(zip(_COUNTED, were, strict=True))} are not {numbers}"
    for reason, count in stats.closed.items():
        assert count == counts(f"closed {reason}", 0), f"stats: closed for {reason}"
    never_up = len([slot for slot in in_state(world, "lost", "draining") if not slot.been_up])
    assert stats.opened - sum(stats.closed.values()) == stats.size - stats.opening - never_up, (
        "stats: opened is not closed plus open"
    )


INVARIANTS: tuple[Callable[[Records], None], ...] = (
    no_1_carried_is_what_was_granted,
    no_2_within_the_limit,
    no_3_nothing_waits_while_there_is_room,
    no_3_what_is_needed_is_dialled,
    no_3_fail_fast_calls_do_not_wait_without_hope,
    no_4_the_queue_is_in_order,
    no_5_answered_once,
    no_6_connections_are_bounded,
    no_7_closed_is_empty_and_drained_is_gone,
    no_8_the_alarm_is_set,
    no_9_closed_is_closed,
    no_10_exclusive_is_alone,
    no_11_a_handicap_has_an_end,
    no_12_the_oldest_large_ask_has_a_slot,
    no_13_connections_are_even,
    the_counts_are_right,
    growth_and_shrinking_are_planned,
    the_picker_holds_the_slots_with_room,
    the_stats_agree,
)
