"""Look-ups that hang: each counts as failed after `connect_timeout`, and another begins."""

from __future__ import annotations

import math

import pytest

from grpcpool._machine.addresses import Leads
from grpcpool.events import LookUpFailed
from machine.play import START, Play
from machine.test_addresses import EVERY, A, B, all_opened, events, held, looking

HOURS = 4 * 3600.0


def _begun(play: Play) -> Play:
    """A call waits for the first look-up."""
    play.request(1)
    assert play.tick() == ["look"]
    return play


def _known(play: Play) -> Play:
    """The first look-up has found an address, which has a connection; the second has begun."""
    _begun(play).found(A)
    all_opened(play)
    assert "look" in play.tick(EVERY)
    return play


def test_a_first_look_up_that_hangs_is_not_the_last() -> None:
    """The dial that waited for it fails; the next one begins another look-up at once, and leads where that says."""
    play = _begun(looking(discovered=True, connect_timeout=10.0))
    assert "close 1" in play.tick(10.0)
    (event,) = events(play, LookUpFailed)
    assert str(event.error) == "addresses() has not returned within connect_timeout, 10.0 s"
    did: list[str] = []
    while "look" not in did:
        did = play.tick_in_time()
    assert play.now <= START + 10.2
    assert play.found(A) == ["open 2"]
    assert play.opened(2) == ["grant 2"]
    # What the first one finds in the end is older.
    assert play.found(B, look=1) == []
    assert play.machine.fleet.addresses.names == (A,)


def test_a_dial_that_still_waits_asks_for_the_next() -> None:
    """It was begun while the look-up was under way, and has time left when that hangs."""
    play = _begun(looking(discovered=True, connect_timeout=10.0, max_size=2))
    play.tick(5.0)
    play.request(None)
    assert play.states() == {1: "opening", 2: "opening"}
    play.tick(5.0)
    assert "look" in play.tick()
    assert "open 2" in play.found(A)


def test_a_late_answer_is_used_if_there_is_no_later_one() -> None:
    """However long it takes: it is the best that is known. That it fails late is not reported again."""
    play = _begun(looking(discovered=True, connect_timeout=10.0))
    play.tick(10.0)
    while play.machine.fleet.lookups._begun < 2:
        play.tick_in_time()
    (number,) = play.states()
    assert play.found(A, look=1) == [f"open {number}"]
    assert play.machine.fleet.lookups.under_way
    assert play.found(A, B, look=2) == ["open 3"]
    assert play.machine.fleet.addresses.names == (A, B)


@pytest.mark.parametrize("discovered", [False, True])
def test_a_later_look_up_that_hangs_changes_nothing(*, discovered: bool) -> None:
    """Known addresses stay. It is reported once, whatever it ends with, and the next one comes after a second."""
    play = _known(looking(discovered=discovered, connect_timeout=10.0))
    assert play.tick(9.9) == []
    assert play.tick(0.1) == []
    assert len(events(play, LookUpFailed)) == 1
    assert play.look_failed() == []
    assert events(play, LookUpFailed) == []
    assert play.tick(0.9) == []
    assert play.tick(0.1) == ["look"]
    play.found(A)
    assert held(play) == {A: 1}
    assert "look" not in play.tick(EVERY - 0.1)


def test_without_an_answer_grpc_looks_up() -> None:
    """A first dial waits no longer than `connect_timeout` for the look-up, if that is less than a second."""
    play = looking(connect_timeout=0.5)
    play.request(1)
    play.tick()
    play.now += 0.25
    play.request(None)
    assert "open 2" in play.tick(0.25)


def test_a_loss_does_not_wait_for_a_look_up_that_hangs() -> None:
    """The server may have moved: that is looked up as soon as the one under way is given up."""
    play = _known(looking(connect_timeout=10.0))
    play.lost(1)
    assert "look" not in play.tick(9.9)
    assert "look" in play.tick(0.1)


def test_the_next_target_does_not_wait_for_the_look_up_of_the_one_before() -> None:
    """Its own begins at once, whatever hangs; what that finds in the end is not used."""
    play = Play(leads=Leads(looks=True, every=EVERY, endpoints=2), random=lambda: 0.5, connect_timeout=10.0)
    play.request(1)
    play.tick()
    looks = 1
    while play.machine.fleet.endpoint == 0:
        for number, state in play.states().items():
            if state == "opening" and number in play.slots and play.now >= play[number].opened_at + 2.0:
                play.failed(number)
        looks += "look" in play.tick_in_time()
    switched = play.now
    last = play.look
    while play.look == last:
        play.tick_in_time()
    assert play.now == switched
    play.found(A, look=last)
    assert not play.machine.fleet.addresses.names
    play.found(B)
    assert play.machine.fleet.addresses.names == (B,)


@pytest.mark.parametrize("discovered", [False, True])
def test_few_hang_at_once(*, discovered: bool) -> None:
    """If none ever returns, ever fewer begin, whatever is dialled or lost; but there is always another."""
    play = _begun(looking(discovered=discovered, connect_timeout=10.0, min_size=1))
    while play.now < START + HOURS:
        for number in [number for number, state in play.states().items() if state == "opening"]:
            if number in play.slots and play.now >= play[number].opened_at + 1.0:
                play.failed(number)
        play.tick_in_time()
    assert 8 < play.look < 18
    # Once it can be looked up again, all is as before.
    while not play.machine.fleet.lookups.under_way:
        play.tick_in_time()
    play.found(A)
    assert play.machine.fleet.lookups.next_at() <= play.now + EVERY


def test_few_hang_although_others_succeed() -> None:
    """If each second one hangs, the time between two grows when many do."""
    play = _known(looking(connect_timeout=10.0))
    hangs = 0
    while play.now < START + HOURS:
        if play.machine.fleet.lookups.under_way:
            if hangs < play.look // 2:
                hangs += 1
                play.tick(10.0)
            else:
                play.found(A)
        play.acquire(1)
        play.release(1, 1)
        play.tick_in_time()
    assert 16 < len(play.machine.fleet.lookups._hanging) < 32


def test_closing_ends_the_wait_for_a_look_up() -> None:
    """Nothing is due any more."""
    play = _begun(looking(discovered=True))
    play.close()
    assert play.machine.next_deadline() == math.inf
    play.tick(HOURS)
    assert play.machine.next_deadline() == math.inf
    assert events(play, LookUpFailed) == []
