"""What the model found, each as the shortest story that tells it."""

from __future__ import annotations

import math

from machine.play import START, Play


def test_growth_is_thought_of_again_after_a_failed_attempt() -> None:
    """A failed attempt gives its place back to growth: the next call at the target dials again."""
    play = Play(min_size=1, max_size=2)
    play.filled(1)
    assert play.request(1) == ["grant 1", "open 2"][:1] or play.slots[2]
    play.failed(2)
    play.release(1, 1)
    play.tick(20.0)
    assert play.machine.fleet.growth_load == 1
    assert play.machine.acquire(1) is None, "the fast way does not grow"
    assert play.request(1) == ["grant 1", "open 3"]


def test_a_pool_closed_while_opening_needs_no_more_ticks() -> None:
    """A closed and empty pool has no next deadline, also if its connection was still being dialled."""
    play = Play(idle_timeout=10.0)
    play.request(1)
    play.close()
    assert play.states() == {}
    assert play.machine.next_deadline() == math.inf


def test_a_successor_of_overflow_is_overflow() -> None:
    """What replaces an overflow slot is closed when it comes back, too."""
    play = Play(max_size=1, mode=_loose(), max_overflow=1)
    play.filled(None, None)
    play.refresh()
    play.opened(3)
    play.opened(4)
    play.release(1)
    play.release(2)
    assert len(play.states()) == 1


def test_an_overflow_slot_that_is_down_gives_its_place_to_who_waits() -> None:
    """A lost overflow slot that is closed when it comes back makes room for a dial at once."""
    play = Play(max_size=1, mode=_loose(), max_overflow=1)
    play.filled(None, None)
    play.request(None)
    play.lost(2)
    assert play.release(2) == ["closed 2: overflow", "close 2", "open 3"]


def test_a_restored_slot_without_the_room_does_not_stand_for_a_dial() -> None:
    """Who waits for a whole connection is dialled for, also if a draining slot with calls on it was taken back."""
    play = Play(max_size=3)
    play.filled(1, None)
    play.request(1)
    play.resize(0, 1)
    assert play.states()[1] == "draining" or play.states()[2] == "draining"
    play.resize(0, 3)
    play.request(None)
    assert "opening" in play.states().values()


def test_a_call_that_would_rather_fail_is_put_on_a_lost_slot_when_the_last_ready_one_goes() -> None:
    """The discard of the last ready slot hands the queue's fail-fast waiters to the lost slots with room."""
    play = Play(max_size=2)
    play.filled(None, None)
    play.lost(2)
    play.release(2)
    play.request(1, fail_fast=True)
    assert play.discard(1)[-1] == "grant 2"


def test_a_refused_fail_fast_call_leaves_the_pool_on_the_way_to_min_size() -> None:
    """The first call after a failed `open()` is refused while backoff lasts, but the pool dials again by itself."""
    play = Play(min_size=1)
    play.open()
    play.failed(1)
    play.request(1, fail_fast=True)
    assert play.machine.next_deadline() <= START + 0.1


def test_refresh_does_not_forget_the_next_attempt() -> None:
    """A refresh between the end of backoff and a late tick leaves the next attempt due."""
    play = Play()
    play.request(1)
    play.failed(1)
    play.now += 1.0
    play.refresh()
    assert play.machine.next_deadline() <= play.now or "opening" in play.states().values()
