"""Which connections a pool has: growing, shrinking, replacing and retiring, tested as events in and effects out.

Unless a test says otherwise, `max_streams` is 2, `target_streams` is 1, `min_size` is 0, `max_size` is 3, and no
connection is closed for being idle. Slots are numbered from 1 in order of dialling.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from grpcpool import Mode
from grpcpool._machine.places import Holding
from grpcpool._values.slot_states import CloseReason
from machine.play import START, Play

# --- growing ----------------------------------------------------------------------------------------------------


def test_first_use_dials_min_size() -> None:
    """The first request dials `min_size` connections, not only the one it needs."""
    assert Play(min_size=2).request(1) == ["open 1", "open 2"]


@pytest.mark.parametrize(
    ("asks", "connections"),
    [
        ([None], 1),
        ([None, None], 2),
        ([None, None, None], 3),
        ([1, 1, 1], 1),
        ([1, 1, 1, 1], 2),
        ([2, 2], 2),
        ([None, 1], 2),
        ([5], 1),
        ([1] * 30, 6),
    ],
)
def test_demand(asks: list[int | None], connections: int) -> None:
    """A request for a whole connection dials one; streams dial ceil(requested / target), all within `max_size`."""
    play = Play(max_streams=6, target_streams=3, max_size=6)
    for ask in asks:
        play.request(ask)
    assert play.stats.opening == connections


def test_growth_ahead_of_need() -> None:
    """When every connection carries the target, another is dialled in the background, one evaluation at a time."""
    play = Play(max_streams=4, target_streams=2)
    play.filled(1)
    assert play.request(1) == ["grant 1", "open 2"]
    assert play.request(1) == ["grant 1"]
    play.opened(2)
    assert [play.request(1) for _ in range(2)] == [["grant 2"], ["grant 2", "open 3"]]


def test_no_growth_below_the_target() -> None:
    """While some connection carries less than the target nothing is dialled, and the fast path is enough."""
    play = Play(max_streams=4, target_streams=2, max_size=4)
    play.filled(1, 1)
    assert play.acquire(1) is play[2]
    assert play.acquire(1) is None
    assert play.request(1) == ["grant 2", "open 3"]


def test_no_growth_at_max_size() -> None:
    """At `max_size` nothing is dialled ahead of need, and the fast path is enough up to the limit."""
    play = Play(max_size=1)
    play.filled(1)
    assert play.acquire(1) is play[1]
    assert play.acquire(1) is None
    assert play.request(1) == []


def test_no_overflow_ahead_of_need() -> None:
    """A loose pool, too, grows ahead of need to `max_size` only."""
    play = Play(max_size=1, mode=Mode.LOOSE)
    play.filled(1)
    assert play.request(1) == ["grant 1"]
    assert play.request(1) == ["open 2"]


def test_whole_leases_do_not_grow_ahead() -> None:
    """Whole leases dial as many connections as are requested, none ahead of need."""
    play = Play(min_size=1)
    play.filled(None)
    assert play.states() == {1: "ready"}
    assert play.release(1) == []
    assert play.request(None) == ["grant 1"]


def test_growth_steps_up_to_doubling() -> None:
    """One evaluation dials what the load calls for, at most as many as are ready."""
    play = Play(max_streams=30, target_streams=2, max_size=9, min_size=2)
    play.filled(10)
    assert play.states() == {1: "ready", 2: "ready"}
    assert play.request(3) == ["grant 2", "open 3", "open 4"]


def test_growth_is_possible_again_after_a_failed_attempt() -> None:
    """After a failed attempt growth is possible again: a later call at the target dials another connection."""
    play = Play(min_size=1, max_size=2, max_streams=4, target_streams=1)
    play.request(1)
    play.opened(1)
    assert play.request(1) == ["grant 1", "open 2"]
    play.failed(2)
    play.now += 1.0
    assert play.acquire(1) is None
    assert play.request(1) == ["grant 1", "open 3"]


# --- loose ------------------------------------------------------------------------------------------------------


def loose(overflow: int = 1) -> Play:
    """A loose pool of one ordinary connection."""
    return Play(max_size=1, mode=Mode.LOOSE, max_overflow=overflow)


def test_strict_waits_at_max_size() -> None:
    """A strict pool opens nothing beyond `max_size`; a release serves the waiter."""
    play = Play(max_size=1)
    play.filled(None)
    assert play.request(None) == []
    assert play.release(1) == ["grant 1"]


def test_loose_opens_overflow_at_once_and_waits_at_its_bound() -> None:
    """A loose pool opens extra connections at once, up to `max_overflow`; further requests wait."""
    play = loose(2)
    play.filled(None)
    assert [play.request(None) for _ in range(3)] == [["open 2"], ["open 3"], []]
    assert [play[number].overflow for number in (1, 2, 3)] == [False, True, True]


def test_overflow_is_closed_when_it_is_released() -> None:
    """An overflow connection is closed when it is released and nothing waits; an ordinary one is not."""
    play = loose()
    play.filled(None, None)
    assert play.release(2) == ["closed 2: overflow", "close 2"]
    assert play.release(1) == []


def test_released_overflow_serves_a_waiter_first() -> None:
    """A released overflow connection serves a waiter before it is closed."""
    play = loose()
    play.filled(None, None)
    play.request(None)
    assert play.release(2) == ["grant 2"]


def test_overflow_is_promoted_below_max_size() -> None:
    """A released overflow connection becomes an ordinary one if the pool has fallen below `max_size`."""
    play = loose()
    play.filled(None, None)
    play.discard(1)
    assert play.release(2) == []
    assert play.states() == {2: "ready"}
    assert not play[2].overflow


def test_overflow_that_is_no_longer_needed_is_closed_when_ready() -> None:
    """An overflow connection whose waiter was served by another is closed as soon as it is ready."""
    play = loose()
    play.filled(None)
    play.request(None)
    assert play.release(1) == ["grant 1"]
    assert play.opened(2) == ["closed 2: overflow", "close 2"]


def test_a_successor_of_overflow_is_overflow() -> None:
    """A successor of an overflow connection is overflow too: in the end at most `max_size` are open."""
    play = loose()
    play.filled(None, None)
    play.refresh()
    play.opened(3)
    play.opened(4)
    play.release(1)
    play.release(2)
    assert len(play.states()) == 1


def test_a_released_lost_overflow_slot_makes_room_at_once() -> None:
    """When a lost overflow connection is released, it is closed and another is dialled for the waiter."""
    play = loose()
    play.filled(None, None)
    play.request(None)
    play.lost(2)
    assert play.release(2) == ["closed 2: overflow", "close 2", "open 3"]


# --- idle -------------------------------------------------------------------------------------------------------


def test_idle_connections_above_min_size_close() -> None:
    """A connection unused for `idle_timeout` closes at that time; `min_size` stay, however long they are idle."""
    play = Play(min_size=1, idle_timeout=10.0)
    play.filled(None, None, None)
    for number in (1, 2, 3):
        play.now += 1.0
        play.release(number)
    assert play.tick(8.0 - 0.1) == []
    assert play.tick(0.1) == ["closed 1: idle", "close 1"]
    assert play.tick(1.0) == ["closed 2: idle", "close 2"]
    assert play.tick(1000.0) == []
    assert play.states() == {3: "ready"}


def test_a_busy_connection_is_not_idle() -> None:
    """A connection in use is not closed; its idle time starts with the last release."""
    play = Play(idle_timeout=10.0)
    play.filled(None)
    play.tick(50.0)
    play.release(1)
    assert play.tick(9.9) == []
    assert play.tick(0.1) == ["closed 1: idle", "close 1"]


def test_without_idle_timeout_nothing_closes() -> None:
    """With `idle_timeout=None` idle connections stay, and there is no deadline."""
    play = Play(idle_timeout=None)
    play.filled(None, None)
    play.release(1)
    play.release(2)
    assert play.machine.next_deadline() == math.inf or play.tick(1e6) == []
    assert len(play.states()) == 2


def test_a_lost_connection_idles_out_as_lost() -> None:
    """A connection that is down and unused for `idle_timeout`, above `min_size`, is closed as lost."""
    play = Play(idle_timeout=10.0)
    play.filled(None)
    play.lost(1)
    play.release(1)
    assert play.tick(10.0) == ["closed 1: lost", "close 1"]


def test_of_two_idle_connections_the_lost_one_goes() -> None:
    """Of two idle connections the one that is down is closed: only the one that is up counts towards `min_size`."""
    play = Play(min_size=1, idle_timeout=10.0)
    play.filled(None, None)
    play.release(1)
    play.release(2)
    play.lost(2)
    play.tick(10.0)
    assert play.states() == {1: "ready"}


# --- shrinking --------------------------------------------------------------------------------------------------


def calls(*loads: int, **config: Any) -> Play:
    """A pool whose connections carry these numbers of calls; `max_streams` is 8 and `target_streams` 4."""
    play = Play(**({"max_size": len(loads), "max_streams": 8, "target_streams": 4} | config))
    play.filled(*[None for _ in loads])
    for number in range(1, len(loads) + 1):
        play.release(number)
    for number, load in enumerate(loads, 1):
        for _ in range(load):
            play.machine.places.acquire(1, Holding(), play[number])
    return play


def test_the_watch_drains_one_connection_at_a_time() -> None:
    """When the peak of a whole watch would have fitted in fewer, the least loaded drains, and a new watch starts."""
    play = calls(2, 1, 1, idle_timeout=10.0)
    drained = [play.tick(10.0) for _ in range(4)]
    assert drained == [[], ["draining 2: shrink"], ["draining 3: shrink"], []]
    assert play.stats.ready == 1


def test_a_peak_within_the_watch_keeps_what_it_needed() -> None:
    """A peak, however short, keeps the connections it needed until a whole watch has passed without it."""
    play = calls(4, 4, idle_timeout=10.0)
    play.tick(10.0)
    for number in (1, 1, 1, 2, 2, 2):
        play.release(number, 1)
    assert play.tick(10.0) == []
    assert play.tick(10.0) == ["draining 1: shrink"]


def test_the_watch_counts_waiters() -> None:
    """Nothing is drained that waiters need."""
    play = calls(1, 1, idle_timeout=10.0)
    play.request(None)
    play.tick(10.0)
    assert play.tick(10.0) == []
    assert play.stats.ready == 2


def test_an_early_tick_does_not_end_the_watch() -> None:
    """A tick before the end of the watch neither shrinks nor restarts it."""
    play = calls(1, 1, idle_timeout=10.0)
    play.tick(10.0)
    assert play.tick(6.0) == []
    assert play.tick(4.0) == ["draining 1: shrink"]


def test_lost_connections_drain_before_ready_ones() -> None:
    """When there are too many, a connection that is down drains before one that is up, whatever their loads."""
    play = calls(1, 3, idle_timeout=0.9)
    play.lost(2)
    play.tick(0.9)
    assert play.tick(0.9) == ["draining 2: shrink"]


def test_there_is_no_watch_at_min_size() -> None:
    """At `min_size` there is no watch, so a pool at rest needs no ticks."""
    play = calls(1, 0, idle_timeout=10.0, min_size=1)
    assert play.tick(10.0) == ["closed 2: idle", "close 2"]
    assert play.tick(100.0) == []
    assert play.machine.next_deadline() == math.inf


def test_shrinking_keeps_what_is_up_while_another_is_only_dialled() -> None:
    """The watch does not drain the only connection that is up while the other is still being dialled."""
    play = Play(idle_timeout=1.0, connect_timeout=60.0)
    play.filled(None)
    play.request(None)
    play.release(1)
    for _ in range(5):
        play.tick(1.0)
    assert play.states() == {1: "ready", 2: "opening"}


# --- restoring --------------------------------------------------------------------------------------------------


def test_a_draining_connection_is_restored_before_another_is_dialled() -> None:
    """A connection that drains only because there were too many is restored for waiters instead of a dial."""
    play = calls(8, 1)
    assert play.resize(0, 1) == ["draining 2: shrink"]
    assert play.request(2) == []
    assert play.resize(0, 3) == ["grant 2"]
    assert play.states() == {1: "ready", 2: "ready"}


def test_a_channel_that_was_never_up_is_not_restored() -> None:
    """One that was kept for calls, which may fail on it, and drains: that it connects late does not make it ready."""
    play = Play(min_size=2, max_size=2, max_streams=1)
    play.request(1, fail_fast=True)
    play.tick(1.5)
    assert play.unreachable(1) == ["watch 1", "grant 1"]
    play.opened(2)
    assert "draining 1: shrink" in play.resize(0, 1)
    play.recovered(1)
    assert play.resize(2, 2) == ["open 4"]
    assert play.states() == {1: "draining", 2: "ready", 4: "opening"}


def test_growth_restores_too() -> None:
    """Growth ahead of need restores a draining connection, without any effect."""
    play = calls(3, 1)
    play.resize(0, 1)
    play.resize(0, 2)
    assert play.request(1) == ["grant 1"]
    assert play.states() == {1: "ready", 2: "ready"}


def test_what_growth_restores_serves_waiters() -> None:
    """It may have room for what waits because none was to be dialled for it: the meaning of a refusal is in doubt."""
    play = Play(min_size=3, max_streams=4, target_streams=2)
    play.request(1)
    play.opened(1, 2, 3)
    for number, streams in ((1, 2), (2, 2), (3, 1)):
        play.machine.places.acquire(streams, Holding(), play[number])
    assert play.resize(0, 2) == ["draining 3: shrink"]
    play.resize(0, 3)
    play.machine.fleet.limits.in_doubt_until = play.now + 0.1
    assert play.request(3) == []
    assert play.request(1) == ["grant 1", "grant 3"]
    assert play.states() == {1: "ready", 2: "ready", 3: "ready"}


def test_what_is_restored_is_closed_for_the_refresh_that_came_before() -> None:
    """A connection that a refresh has marked, and that drained before it was replaced, does not end for its age."""
    play = calls(3, 1)
    play.refresh()
    play.resize(0, 1)
    play.resize(0, 2)
    play.request(1)
    assert play.states()[2] == "ready"
    assert play[2].reason is CloseReason.REFRESH


def test_a_restored_connection_is_not_cut_off() -> None:
    """The drain deadline of a restored connection no longer applies."""
    play = calls(3, 1, drain_timeout=5.0)
    play.resize(0, 1)
    play.resize(0, 2)
    play.request(1)
    assert play.tick(100.0) == []
    assert play[2].in_flight == 1


@pytest.mark.parametrize("reason", [CloseReason.REFRESH, CloseReason.DISCARDED, CloseReason.AGE])
def test_connections_draining_for_other_reasons_are_not_restored(reason: CloseReason) -> None:
    """A connection that drains for its age, a refresh or a discard is not restored: another is dialled."""
    play = calls(2)
    if reason is CloseReason.DISCARDED:
        play.discard(1, 1)
    else:
        play.did(play.recorder.effects(play.machine.fleet.retire, play[1], reason, play.now))
    assert play.states() == {1: "draining"}
    assert play.request(1) == ["open 2"]


def test_after_a_refresh_nothing_is_restored() -> None:
    """After a refresh, a connection draining because there were too many is not restored."""
    play = calls(3, 1)
    play.resize(1, 1)
    play.refresh()
    play.resize(2, 2)
    assert play[2].state == "draining"


def test_a_discarded_connection_is_not_restored() -> None:
    """A discarded connection that was draining because there were too many is not restored."""
    play = calls(4, 2)
    play.resize(0, 1)
    play.discard(2, 1)
    play.resize(2, 2)
    assert play[2].state == "draining"


def test_a_lost_connection_is_not_restored() -> None:
    """A connection that was down when it was drained is not restored as if it were up."""
    play = calls(4, 1)
    play.lost(2)
    play.resize(0, 1)
    play.resize(2, 2)
    assert play[2].state != "ready"


def test_a_restored_connection_without_room_does_not_replace_a_dial() -> None:
    """A request for a whole connection dials one, even if a connection with calls on it is restored."""
    play = calls(1, 1, max_size=3)
    play.resize(0, 1)
    play.resize(0, 3)
    assert play[1].state == "draining"
    assert play.request(None) == ["open 3"]


# --- replacing --------------------------------------------------------------------------------------------------


def test_successor_first() -> None:
    """At `max_age` a successor is dialled; once it is ready, the old one takes nothing new and closes with its last."""
    play = Play(max_age=100.0, age_jitter=0.0)
    play.filled(1)
    assert play.tick(99.9) == []
    assert play.tick(0.1) == ["open 2 for 1"]
    assert play.opened(2) == ["draining 1: age"]
    assert play.request(1) == ["grant 2", "open 3"]
    assert play.release(1, 1) == ["closed 1: age", "close 1"]


def test_an_idle_connection_is_replaced_at_once() -> None:
    """An old connection with nothing on it closes as soon as its successor is ready."""
    play = Play(max_age=100.0, age_jitter=0.0, min_size=1)
    play.filled(None)
    play.release(1)
    play.tick(100.0)
    assert play.opened(2) == ["closed 1: age", "close 1"]


def test_the_successor_does_not_count_beside_its_predecessor() -> None:
    """A pool at `max_size` can replace its connections: a successor does not count beside the one it replaces."""
    play = Play(max_size=1, max_age=100.0)
    play.filled(None)
    assert play.tick(100.0) == ["open 2 for 1"]
    assert (play.machine.fleet.slots.connections, play.stats.size) == (1, 2)


def test_a_whole_lease_keeps_its_connection() -> None:
    """A whole lease keeps its old connection; the successor serves the next lease."""
    play = Play(max_size=1, max_age=100.0)
    play.filled(None)
    play.tick(100.0)
    play.request(None)
    assert play.opened(2) == ["draining 1: age", "grant 2"]


def test_a_failed_successor_keeps_the_old_one() -> None:
    """If the successor fails, the old connection stays in service, and the next attempt comes after the backoff."""
    play = Play(max_age=100.0, age_jitter=0.0)
    play.filled(1)
    play.tick(100.0)
    assert play.failed(2) == ["close 2"]
    assert play.acquire(None) is None
    assert play.states() == {1: "ready"}
    assert play.machine.next_deadline() == play.now + 0.1
    assert play.tick_in_time() == ["open 3 for 1"]


def test_a_successor_that_never_answers_keeps_the_old_one() -> None:
    """A successor that is not ready within `connect_timeout` counts as failed."""
    play = Play(max_age=100.0, age_jitter=0.0, connect_timeout=5.0)
    play.filled(1)
    play.tick(100.0)
    assert play.tick(5.0) == ["close 2"]
    assert play.states() == {1: "ready"}


@pytest.mark.parametrize(("drawn", "age"), [(0.0, 100.0), (0.5, 80.0), (0.75, 70.0)])
def test_jitter_is_drawn_once(drawn: float, age: float) -> None:
    """Up to `age_jitter` of `max_age` is taken off, once per connection, even when its successors fail."""
    play = Play(max_age=100.0, age_jitter=0.4, random=lambda: drawn)
    play.filled(1)
    due = play[1].retire_at
    assert due == pytest.approx(START + age)
    play.now = due
    play.tick()
    play.failed(2)
    assert play[1].retire_at == due


def test_each_connection_draws_its_own_jitter() -> None:
    """Connections opened together are not replaced together."""
    numbers: Iterator[float] = iter([0.5] * 2000)
    later = [0.25, 0.75]
    play = Play(max_age=100.0, age_jitter=0.4, random=lambda: next(numbers))
    play.request(None)
    play.request(None)
    numbers = iter(later)
    play.opened(1, 2)
    assert [play[number].retire_at - START for number in (1, 2)] == pytest.approx([90.0, 70.0])


@pytest.mark.parametrize(("size", "surge"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_a_quarter_is_replaced_at_a_time(size: int, surge: int) -> None:
    """At most a quarter of the pool, rounded up, has successors at a time; each that becomes ready starts the next."""
    play = Play(max_size=size, min_size=size, max_age=100.0, age_jitter=0.0)
    play.filled(1)
    assert len(play.tick(100.0)) == surge
    assert play.machine.fleet.slots.successors == surge
    rounds = 0
    while play.machine.fleet.slots.successors:
        play.opened(next(slot.id for slot in play.slots.values() if slot.state == "opening"))
        rounds += 1
        assert play.machine.fleet.slots.successors <= surge
    assert rounds == size


def test_while_failing_there_is_one_successor_at_a_time() -> None:
    """After a failure there is one attempt at a time, for replacements too."""
    play = Play(max_size=8, min_size=8, max_age=100.0, age_jitter=0.0)
    play.filled(1)
    assert play.tick(100.0) == ["open 9 for 1", "open 10 for 2"]
    play.failed(9)
    play.failed(10)
    assert play.tick_in_time() == ["open 11 for 1"]


def test_a_successor_inherits_idle_time() -> None:
    """A successor inherits the idle time: an unused connection still closes for idleness."""
    play = Play(max_age=6.0, age_jitter=0.0, idle_timeout=10.0)
    play.filled(None)
    play.release(1)
    play.tick(6.0)
    play.opened(2)
    assert play.tick(4.0) == ["closed 2: idle", "close 2"]


def test_the_successor_of_a_busy_connection_is_not_idle() -> None:
    """The successor of a connection in constant use is not closed at once as idle."""
    play = Play(max_age=30.0, age_jitter=0.0, idle_timeout=10.0)
    play.filled(1)
    play.tick(30.0)
    play.opened(2)
    assert play.tick() == []
    assert play[2].state == "ready"


def test_a_connection_with_a_successor_does_not_idle_out() -> None:
    """While its successor is being dialled, the old connection is not closed as idle."""
    play = Play(max_age=6.0, age_jitter=0.0, idle_timeout=10.0, connect_timeout=60.0)
    play.filled(None)
    play.release(1)
    play.tick(6.0)
    assert play.tick(50.0) == []


def test_refresh_replaces_everything() -> None:
    """A refresh replaces every current connection, a quarter at a time, including those being dialled."""
    play = Play(max_size=3)
    play.filled(None, None)
    play.release(1)
    play.request(None)
    play.request(None)
    assert play.refresh() == ["open 4 for 1"]
    assert play.opened(3) == ["grant 3"]
    play.release(3)
    assert play.opened(4) == ["draining 1: refresh", "open 5 for 2"]
    assert play.opened(5) == ["draining 2: refresh", "open 6 for 3"]
    assert play.opened(6) == ["closed 3: refresh", "close 3"]
    assert play.machine.next_deadline() == START + 600.0


def test_refresh_replaces_what_is_being_dialled() -> None:
    """A connection dialled before a refresh is replaced when it is ready, though it has not reached its own age."""
    play = Play(max_size=1, max_age=100.0)
    play.request(None)
    play.refresh()
    assert play.opened(1) == ["grant 1", "open 2 for 1"]


def test_refresh_of_an_unused_pool() -> None:
    """A refresh of a pool that was never used does nothing."""
    assert Play(min_size=2).refresh() == []


def test_refresh_keeps_what_cannot_be_replaced() -> None:
    """A refresh whose successor fails keeps the old connection in service and tries again."""
    play = Play()
    play.filled(1)
    play.refresh()
    play.failed(2)
    assert play.states() == {1: "ready"}
    assert play.tick(0.1) == ["open 3 for 1"]


def test_refresh_does_not_forget_the_next_attempt() -> None:
    """A refresh between the end of the backoff and a late tick makes the next attempt or leaves it due."""
    play = Play()
    play.request(1)
    play.failed(1)
    play.now += 1.0
    assert "open 2" in play.refresh() or play.machine.next_deadline() <= play.now


def test_discarding_the_old_one_makes_the_successor_ordinary() -> None:
    """When a connection that is being replaced is discarded, its successor becomes an ordinary one."""
    play = Play()
    play.filled(None)
    play.refresh()
    assert play.discard(1) == ["closed 1: discarded", "close 1"]
    assert (play.machine.fleet.slots.connections, play.machine.fleet.slots.successors) == (1, 0)
    play.opened(2)
    assert play.request(None) == ["grant 2"]


# --- resizing and draining --------------------------------------------------------------------------------------


def test_resize_upwards_dials_for_waiters() -> None:
    """A higher `max_size` serves waiters at once; a higher `min_size` is filled at once."""
    play = Play(max_size=1)
    play.filled(None)
    play.request(None)
    assert play.resize(0, 2) == ["open 2"]
    assert play.resize(4, 4) == ["open 3", "open 4"]


def test_resize_downwards_drains_the_least_useful_first() -> None:
    """A lower `max_size` gives up what is being dialled, then the idle, then the least loaded."""
    play = calls(2, 1, 0, max_size=4)
    play.resize(4, 4)
    assert play.states() == {1: "ready", 2: "ready", 3: "ready", 4: "opening"}
    assert play.resize(0, 3) == ["close 4"]
    assert play.resize(0, 2) == ["closed 3: shrink", "close 3"]
    assert play.resize(0, 1) == ["draining 2: shrink"]


def test_resize_downwards_gives_up_the_successor_too() -> None:
    """When a connection is given up, so is the successor being dialled for it."""
    play = calls(0, 1)
    play.refresh()
    assert play.resize(0, 1) == ["close 3", "closed 1: shrink", "close 1"]
    assert play.machine.fleet.slots.successors == 0


def test_a_lower_min_size_lets_idle_connections_close() -> None:
    """A lower `min_size` closes nothing by itself, but idle connections close from then on."""
    play = Play(min_size=2, max_size=2, idle_timeout=10.0)
    play.filled(None)
    play.release(1)
    play.tick(20.0)
    assert play.resize(1, 2) == []
    assert play.machine.next_deadline() <= play.now
    assert play.tick() == ["closed 1: idle", "close 1"]


@pytest.mark.parametrize(("low", "high"), [(-1, 1), (0, 0), (3, 2)])
def test_resize_refuses_contradictory_bounds(low: int, high: int) -> None:
    """Bounds that contradict each other are refused and change nothing."""
    play = Play(min_size=1, max_size=3)
    with pytest.raises(ValueError, match="PoolConfig"):
        play.resize(low, high)
    assert (play.stats.min_size, play.stats.max_size) == (1, 3)


def test_drain_timeout() -> None:
    """At `drain_timeout` a draining connection is closed, and what it still carries no longer counts."""
    play = calls(3, 2, drain_timeout=5.0)
    play.resize(0, 1)
    assert play.tick(4.9) == []
    assert play.machine.next_deadline() == START + 5.0
    assert play.tick(0.1) == ["closed 2: shrink", "close 2"]
    assert play[2].in_flight == 0
    assert play.machine.places.load == 3
    assert play.release(2, 1) == []
    assert play.machine.places.load == 3


# --- backoff ----------------------------------------------------------------------------------------------------


def test_one_attempt_at_a_time_while_failing() -> None:
    """After a failure nothing is dialled before the backoff ends, then one at a time; after a success all at once."""
    play = Play()
    for _ in range(3):
        play.request(None)
    assert [play.failed(number) for number in (1, 2, 3)] == [["close 1"], ["close 2"], ["close 3"]]
    assert play.tick(0.39) == []
    assert play.tick(0.1) == ["open 4"]
    assert play.tick(0.1) == []
    assert play.opened(4) == ["grant 4", "open 5", "open 6"]


def test_without_need_nothing_is_dialled_again() -> None:
    """After a failure nothing is dialled or due if there are no waiters and `min_size` is met."""
    play = Play()
    play.request(1)
    play.cancel()
    play.failed(1)
    assert play.machine.next_deadline() == math.inf
    assert play.tick(100.0) == []


def test_min_size_is_maintained() -> None:
    """A pool that has been used returns to `min_size` by itself, however often dialling fails."""
    play = Play(min_size=1)
    play.request(1, wait=0.0)
    for number in range(1, 6):
        play.failed(number)
        assert play.tick_in_time() == [f"open {number + 1}"]


def test_a_discarded_connection_is_replaced() -> None:
    """When a connection of `min_size` is discarded, another is dialled at once."""
    play = Play(min_size=1)
    play.filled(None)
    assert play.discard(1) == ["closed 1: discarded", "close 1", "open 2"]


def test_growth_respects_the_backoff() -> None:
    """While dialling fails, growth ahead of need respects the backoff."""
    play = calls(4, max_size=3)
    assert play.request(1) == ["grant 1", "open 2"]
    play.failed(2)
    assert play.request(1) == ["grant 1"]
    play.now += 0.1
    assert play.request(1) == ["grant 1", "open 3"]


def test_a_channel_that_connects_late_needs_no_successor() -> None:
    """What was dialled in its place, because it did not connect, is closed when it does."""
    play = Play(min_size=1, max_size=1)
    play.request(1, fail_fast=True)
    play.did(play.recorder.effects(play.machine.unreachable, play[1], object(), ConnectionError("no"), play.now))
    play.tick(10.0)
    assert play.states() == {1: "lost", 2: "opening"}
    assert "close 2" in play.recovered(1)
    assert play.states() == {1: "ready"}


# --- what does not help is left -----------------------------------------------------------------------------------


def test_what_cannot_serve_a_waiter_is_not_restored() -> None:
    """A whole connection is asked for, and what drains carries streams: another is dialled."""
    play = Play(min_size=1, max_size=4, max_streams=90, target_streams=50, idle_timeout=10.0, drain_timeout=600.0)
    for _ in range(4):
        play.request(None)
    play.opened(1, 2, 3, 4)
    for number in (1, 2, 3, 4):
        play.release(number, None)
        play.machine.places.acquire(1, Holding(), play[number])
    while play.stats.draining < 3:
        play.tick_in_time()
    assert play.request(None) == ["open 5"]
    assert play.stats.draining == 3


def test_what_drains_is_not_counted_twice() -> None:
    """Calls on connections that drain need no others: the pool grows by one, not twofold."""
    play = Play(max_size=20, max_streams=90, target_streams=50, max_age=60.0, age_jitter=0.0, drain_timeout=3600.0)

    def open_all() -> None:
        while opening := [number for number, state in play.states().items() if state == "opening"]:
            play.opened(*opening)

    for _ in range(200):
        play.request(1)
        open_all()
    while play.stats.draining < 4:
        play.tick_in_time()
        open_all()
    ready = play.stats.ready
    while not play.stats.opening:
        play.request(1)
    assert (play.stats.ready, play.stats.opening) == (ready, 1)


def test_an_open_that_fails_closes_nothing_of_others() -> None:
    """What calls, or `min_size`, have dialled stays, also if it becomes ready meanwhile."""
    play = Play(min_size=3, max_size=5, max_streams=90, target_streams=50)
    play.request(1)
    play.opened(1)
    play.open(wait=0.5)
    play.opened(2)
    play.tick(0.5)
    assert play.states() == {1: "ready", 2: "ready", 3: "opening"}


def test_more_dials_may_hang_than_can_be_doubled() -> None:
    """The patience with dials that hang has an end."""
    play = Play(min_size=1100, max_size=2200)
    play.open()
    for _ in range(8):
        play.tick(0.5)
    assert play.stats.opening >= 1100


def test_opens_that_overlap_leave_nothing() -> None:
    """The second comes when the first dial hangs, and another has been begun beside it: nothing of both is left."""
    play = Play(min_size=1, max_size=3, connect_timeout=30.0)
    play.open(wait=4.0)
    play.tick(1.0)
    assert play.stats.opening == 2
    play.tick(1.0)
    play.open(wait=4.0)
    play.tick(2.0)
    play.tick(2.0)
    assert (play.states(), play.machine.fleet.active) == ({}, False)
