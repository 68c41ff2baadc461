"""What falls due for many at the same moment, as after a time in which the loop or the process stood still."""

from __future__ import annotations

from collections import Counter

from grpcpool import Mode
from grpcpool._machine.addresses import Addressing
from machine.play import Play

A, B, C = (f"10.0.0.{i}:1" for i in range(1, 4))


def over(*addresses: str, **config: object) -> Play:
    """A pool whose addresses are known."""
    return Play(addressing=Addressing(addresses=addresses, every=1000.0), random=lambda: 0.5, **config)


def test_waiters_whose_time_has_come_are_refused_before_others_are_served() -> None:
    """The first gives up the slot that was reserved for it; the second, whose time is over as well, gets no place."""
    play = Play(max_size=1)
    play.filled(1)
    play.request(None, wait=1.0)
    play.request(1, wait=1.0)
    play.request(1, wait=9.0)
    assert play.tick(5.0) == ["refuse timeout", "refuse timeout", "grant 1"]


def test_refused_waiters_are_shown_the_same_pool() -> None:
    """What was in flight; and how many waited when it was the turn of each."""
    play = Play(max_size=1, max_streams=2, target_streams=2)
    play.filled(1, 1)
    for _ in range(3):
        play.request(1, wait=1.0)
    play.tick(2.0)
    figures = [effect.figures for effect in play.effects if hasattr(effect, "figures")]
    assert [each.waiting for each in figures] == [2, 1, 0]
    assert {(each.in_flight, each.open, each.waited, each.asked) for each in figures} == {(2, 1, 2.0, "one stream")}


def test_dials_that_all_hang_go_on() -> None:
    """None gives up its place for another address: nothing is known of any that could be better."""
    play = over(A, B, C, min_size=3, max_size=3)
    play.machine.connect(play.now)
    play.did(play.recorder.take())
    assert play.tick(1.0) == []
    assert set(play.states().values()) == {"opening"}
    assert play.machine.next_deadline() == play.now + 9.0


def test_a_dial_that_hangs_gives_up_its_place_for_an_address_that_does_not() -> None:
    """Two are up. The third is dialled to one of their servers."""
    play = over(A, B, C, min_size=3, max_size=3)
    play.machine.connect(play.now)
    play.did(play.recorder.take())
    play.opened(1, 2)
    silent = play[3].address
    assert play.tick(1.0) == []
    assert play.tick() == ["close 3", "open 4"]
    assert play[4].address != silent


def test_all_that_are_late_fail_and_are_tried_again_with_backoff() -> None:
    """One attempt to each address when its pause is over; nothing is dialled in the step in which all fail."""
    play = over(A, B, C, min_size=6, max_size=6)
    play.machine.connect(play.now)
    play.did(play.recorder.take())
    assert Counter(play.tick(10.0)) == Counter(f"close {number}" for number in range(1, 7))
    assert play.tick() == []
    assert play.machine.next_deadline() > play.now
    assert 1 <= len(play.tick_in_time()) <= 3


def test_what_is_moved_to_another_address_is_not_beyond_max_size() -> None:
    """The successor of a connection beyond `max_size` would end as soon as it is up, although that carries least."""
    play = over(A, B, max_size=1, mode=Mode.LOOSE, max_overflow=5)
    for number in (1, 1, 2):
        play.request(1)
        play[number].address = A
        play.machine.fleet.slots.count(play[number])
        play.opened(number)
    play.tick()
    (successor,) = [slot for slot in play.slots.values() if slot.replaces is not None]
    assert successor.address == B
    assert successor.replaces is play[1]
