"""How a pool comes to have fewer connections, and takes back what drains, tested as events in and effects out."""

from __future__ import annotations

import math

import pytest

from grpcpool._machine.places import Holding
from grpcpool._values.slot_states import CloseReason
from machine.play import START, Play, calls

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
    play.machine.fleet.limits.unclear_until = play.now + 0.1
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
