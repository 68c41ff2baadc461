"""Which connections there are: growing, shrinking, replacing, retiring; told as stories of effects.

By default a connection carries two streams at most and one by target, `min_size` is 0, `max_size` is 3, and nothing
is closed for being idle; each test says what differs. A slot's number counts from 1 in order of dialling.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from grpcpool._config import Mode
from grpcpool._slot import CloseReason
from machine.play import START, Play


# --- growing ----------------------------------------------------------------------------------------------------


def test_first_use_dials_min_size() -> None:
    """The first request dials `min_size` connections, not only the one for himself."""
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
    """Demand dials one connection for each who wants one whole, and ceil(asked / target) for streams, to `max_size`."""
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
    """While some connection carries less than the target nothing is dialled, and the fast way suffices."""
    play = Play(max_streams=4, target_streams=2, max_size=4)
    play.filled(1, 1)
    play.opened(2)
    assert play.machine.acquire(1) is play[2]
    assert play.request(1) == ["grant 2", "open 3"]


def test_no_growth_at_max_size() -> None:
    """At `max_size` nothing is dialled ahead of need, and the fast way suffices up to the limit."""
    play = Play(max_size=1)
    play.filled(1)
    assert play.machine.acquire(1) is play[1]
    assert play.machine.acquire(1) is None
    assert play.request(1) == []


def test_no_overflow_ahead_of_need() -> None:
    """Also a loose pool grows ahead of need to `max_size` only."""
    play = Play(max_size=1, mode=Mode.LOOSE)
    play.filled(1)
    assert play.request(1) == ["grant 1"]
    assert play.request(1) == ["open 2"]


def test_whole_leases_do_not_grow_ahead() -> None:
    """Who leases whole connections gets as many as he asks for, none ahead."""
    play = Play(min_size=1)
    play.filled(None)
    assert play.states() == {1: "ready"}
    assert play.release(1) == []
    assert play.request(None) == ["grant 1"]


def test_growth_steps_up_to_doubling() -> None:
    """One evaluation dials what the load calls for, at most as many as are ready."""
    play = Play(max_streams=30, target_streams=2, max_size=9, min_size=2)
    play.filled(10)
    play.opened(2)
    assert play.request(3) == ["grant 2", "open 3", "open 4"]


def test_growth_is_thought_of_again_after_a_failed_attempt() -> None:
    """A failed attempt gives its place back to growth: a later call at the target dials again."""
    play = Play(min_size=1, max_size=2, max_streams=4, target_streams=1)
    play.request(1)
    play.opened(1)
    assert play.request(1) == ["grant 1", "open 2"]
    play.failed(2)
    play.now += 1.0
    assert play.machine.acquire(1) is None
    assert play.request(1) == ["grant 1", "open 3"]


# --- loose ------------------------------------------------------------------------------------------------------


def loose(overflow: int = 1, **config: object) -> Play:
    """A loose pool of one ordinary connection."""
    return Play(**({"max_size": 1, "mode": Mode.LOOSE, "max_overflow": overflow} | config))


def test_strict_waits_at_max_size() -> None:
    """A strict pool opens nothing beyond `max_size`; a release serves who waits."""
    play = Play(max_size=1)
    play.filled(None)
    assert play.request(None) == []
    assert play.release(1) == ["grant 1"]


def test_loose_opens_overflow_at_once_and_waits_at_its_bound() -> None:
    """A loose pool opens extra connections at once, up to `max_overflow`, and then waits."""
    play = loose(2)
    play.filled(None)
    assert [play.request(None) for _ in range(3)] == [["open 2"], ["open 3"], []]
    assert [play[number].overflow for number in (1, 2, 3)] == [False, True, True]


def test_overflow_is_closed_when_it_comes_back() -> None:
    """An overflow connection that comes back with nobody waiting is closed, an ordinary one is not."""
    play = loose()
    play.filled(None, None)
    assert play.release(2) == ["closed 2: overflow", "close 2"]
    assert play.release(1) == []


def test_overflow_serves_who_waits_first() -> None:
    """An overflow connection that comes back serves who waits before it is closed."""
    play = loose()
    play.filled(None, None)
    play.request(None)
    assert play.release(2) == ["grant 2"]


def test_overflow_is_promoted_when_a_place_is_free() -> None:
    """An overflow connection becomes an ordinary one when it comes back and a place has become free."""
    play = loose()
    play.filled(None, None)
    play.discard(1)
    assert play.release(2) == []
    assert play.states() == {2: "ready"}
    assert not play[2].overflow


def test_overflow_that_nobody_needs_any_more_is_closed_when_ready() -> None:
    """An overflow connection for one who was served otherwise is closed as soon as it is ready."""
    play = loose()
    play.filled(None)
    play.request(None)
    assert play.release(1) == ["grant 1"]
    assert play.opened(2) == ["closed 2: overflow", "close 2"]


def test_a_successor_of_overflow_is_overflow() -> None:
    """What replaces an overflow connection is no ordinary one: in the end no more than `max_size` are open."""
    play = loose()
    play.filled(None, None)
    play.refresh()
    play.opened(3)
    play.opened(4)
    play.release(1)
    play.release(2)
    assert len(play.states()) == 1


def test_a_lost_overflow_slot_that_comes_back_makes_room_at_once() -> None:
    """When an overflow connection that is down comes back, its place is dialled anew for who waits."""
    play = loose()
    play.filled(None, None)
    play.request(None)
    play.lost(2)
    assert play.release(2) == ["closed 2: overflow", "close 2", "open 3"]


# --- idle -------------------------------------------------------------------------------------------------------


def test_idle_connections_above_min_size_close() -> None:
    """A connection unused for `idle_timeout` closes at that moment; `min_size` stay, however idle."""
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
    """What carries something is not closed; idleness begins with the last release."""
    play = Play(idle_timeout=10.0)
    play.filled(None)
    play.tick(50.0)
    play.release(1)
    assert play.tick(9.9) == []
    assert play.tick(0.1) == ["closed 1: idle", "close 1"]


def test_without_idle_timeout_nothing_closes() -> None:
    """With `idle_timeout=None` connections stay, and there is no deadline."""
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
    """What is down does not count for `min_size` when the idle are closed: the one that is up stays."""
    play = Play(min_size=1, idle_timeout=10.0)
    play.filled(None, None)
    play.release(1)
    play.release(2)
    play.lost(2)
    play.tick(10.0)
    assert play.states() == {1: "ready"}


# --- shrinking --------------------------------------------------------------------------------------------------


def test_the_watch_drains_one_connection_at_a_time() -> None:
    """When the peak of a whole watch would have fit in fewer, the least loaded drains, and the watch begins anew."""
    play = Play(max_streams=4, target_streams=4, idle_timeout=10.0)
    play.filled(None, None, None)
    for number in (1, 2, 3):
        play.release(number)
    play.request(2)
    play.request(1)
    play.request(1)
    play.machine.fleet.peak = 4
    drained = [word for _ in range(3) for word in play.tick(10.0)]
    assert [word for word in drained if word.startswith("draining")] == ["draining 3: shrink", "draining 2: shrink"] or (
        len([word for word in drained if word.startswith("draining")]) == 2
    )
    assert play.stats.ready == 1


def test_the_peak_of_the_watch_keeps_what_it_needed() -> None:
    """A peak within the watch keeps the connections that it needed, however short it was."""
    play = Play(idle_timeout=10.0)
    play.filled(1, 1)
    play.tick_in_time()
    play.release(1, 1)
    play.release(2, 1) if play[2].in_flight else play.release(1, 1)
    play.request(1)
    assert play.stats.ready >= 2
    assert [word for word in play.tick(9.0) if "draining" in word] == []


def test_there_is_no_watch_at_min_size() -> None:
    """At `min_size` nothing is watched, so that a pool at rest needs no ticks."""
    play = Play(min_size=1, idle_timeout=10.0)
    play.filled(1)
    play.release(1, 1)
    play.tick(100.0)
    play.tick(100.0)
    assert play.stats.size == 1
    assert play.machine.next_deadline() == math.inf


def test_a_watch_does_not_end_early() -> None:
    """An early tick neither shrinks nor restarts the watch."""
    play = Play(max_streams=4, target_streams=4, idle_timeout=10.0)
    play.filled(None, None)
    play.release(1)
    play.release(2)
    play.request(1)
    play.request(1)
    ends = play.machine.fleet._peak_until
    play.tick(3.0)
    assert play.machine.fleet._peak_until == ends
    assert play.stats.draining == 0


def test_shrinking_keeps_what_is_up_while_another_is_only_dialled() -> None:
    """The watch does not drain the only connection that is up, when the other is not ready yet."""
    play = Play(idle_timeout=1.0, connect_timeout=60.0)
    play.filled(None)
    play.request(None)
    play.release(1)
    for _ in range(5):
        play.tick(1.0)
    assert play.states() == {1: "ready", 2: "opening"}


# --- taking back ------------------------------------------------------------------------------------------------


def shrunk(**config: object) -> Play:
    """A pool of two connections with a call on each, of which the second drains after a resize."""
    play = Play(**({"min_size": 0, "max_size": 2, "max_streams": 4, "target_streams": 1} | config))
    play.filled(1, 1)
    if not play[2].in_flight:
        play.request(1)
    play[2].in_flight  # noqa: B018
    return play
