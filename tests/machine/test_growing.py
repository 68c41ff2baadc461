"""How a pool comes to have more connections, and what it does when dials fail, tested as events in and effects out."""

from __future__ import annotations

import math

import pytest

from grpcpool import Mode
from grpcpool._machine.places import Holding
from machine.play import Play, calls

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
