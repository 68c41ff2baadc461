"""When addresses are looked up, and what look-ups that fail or hang lead to."""

from __future__ import annotations

import math

import pytest

from grpcpool._machine.addresses import Addressing
from grpcpool.events import LookUpFailed
from machine.over_addresses import EVERY, A, B, C, all_opened, events, held, looking, over
from machine.play import START, Play

# --- when addresses are looked up -------------------------------------------------------------------------------------


def test_the_first_use_looks_up() -> None:
    """Nothing is dialled before the answer, and one look-up at a time is under way."""
    play = looking(max_size=5, target_streams=2)
    assert play.machine.next_deadline() == math.inf
    words = play.request(1) + play.tick()
    assert words == ["look"]
    play.request(1)
    assert play.tick(0.5) == []
    assert play.found(A) == ["open 1"]


def test_without_an_answer_within_a_second_grpc_looks_up() -> None:
    """A look-up that hangs delays the first call by no more than that."""
    play = looking(max_size=5)
    play.request(1)
    play.tick()
    assert play.tick(0.9) == []
    assert play.tick(0.1) == ["open 1"]
    assert play[1].address is None
    # The answer is still used when it comes.
    play.opened(1)
    assert "open 2" in " ".join(play.found(A))


def test_a_pool_in_use_looks_up_again() -> None:
    """Every `every` seconds; one that rests does not."""
    play = looking(max_size=5, min_size=1, target_streams=2)
    play.request(1)
    play.tick()
    play.found(A)
    play.opened(1)
    for _ in range(3):
        assert play.tick(EVERY - 0.1) == []
        assert play.tick(0.1) == ["look"]
        play.found(A)
    play.release(1, 1)
    play.tick(EVERY)
    play.found(A)
    for _ in range(5):
        assert "look" not in play.tick(EVERY)
    assert play.request(1) + play.tick() == ["grant 1", "look"]


def test_a_loss_looks_up_at_most_once_a_second() -> None:
    """The server may have moved."""
    play = looking(max_size=5, min_size=1)
    play.request(1)
    play.tick()
    play.found(A, B)
    all_opened(play)
    play.tick(0.5)
    play.lost(1)
    assert "look" not in play.tick()
    assert "look" in play.tick(0.5)
    play.found(A, B)
    assert "look" not in play.tick(0.5)


def test_a_look_up_that_fails_is_tried_again_ever_later() -> None:
    """After 1, 2, 4 ... seconds, at most `every`; the addresses that are known stay."""
    play = looking(max_size=5, min_size=1)
    play.request(1)
    play.tick()
    play.found(A, B)
    all_opened(play)
    play.tick(EVERY)
    for pause in (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        play.look_failed()
        assert len(events(play, LookUpFailed)) == 1
        assert "look" not in play.tick(pause - 0.1)
        assert "look" in play.tick(0.1)
    assert held(play) == {A: 1, B: 1}
    play.found(A, B)
    assert "look" not in play.tick(EVERY - 0.1)
    assert "look" in play.tick(0.1)


def test_a_closed_pool_looks_nothing_up() -> None:
    """What comes of a look-up that was under way changes nothing."""
    play = looking(max_size=5)
    play.request(1)
    play.tick()
    play.close()
    assert play.found(A) == []
    assert play.look_failed() == []
    assert (play.machine.next_deadline(), play.states()) == (math.inf, {})
    assert play.now == START


def test_a_silent_address_does_not_keep_the_only_place() -> None:
    """At `max_size`, a dial that hangs ends after a second if another address may be reached; it counts as failed."""
    play = over(A, B, min_size=1, max_size=1, connect_timeout=10.0)
    play.request(1)
    (first,) = play.machine.fleet.slots
    play.now = START + 1.0
    for _ in range(2):
        play.tick()
    (second,) = play.machine.fleet.slots
    assert {first.address, second.address} == {A, B}
    assert (play.stats.open_failures, play.stats.opening) == (1, 1)


def test_a_silent_server_with_one_address_keeps_it() -> None:
    """With nothing better the dial has all of `connect_timeout`."""
    play = over(A, min_size=1, max_size=1, connect_timeout=10.0)
    play.request(1)
    play.now = START + 9.9
    play.tick()
    assert (play.stats.open_failures, play.stats.opening) == (0, 1)


# --- the user's own discovery ----------------------------------------------------------------------------------------


def test_a_first_look_up_that_fails_is_left_to_grpc() -> None:
    """As long as no addresses are known, gRPC looks them up; once they are, its connection is replaced."""
    play = looking(max_size=1)
    play.request(1)
    play.tick()
    assert play.look_failed() == ["open 1"]
    assert play[1].address is None
    assert play.opened(1) == ["grant 1"]
    play.release(1, 1)
    play.tick(1.0)
    assert play.found(A) == ["open 2 for 1"]
    assert play.opened(2) == ["closed 1: address_gone", "close 1"]


def test_without_discovered_addresses_dials_fail() -> None:
    """Each fails with the error of a look-up that is younger than the dial. What may wait is served in the end."""
    play = looking(discovered=True, max_size=1)
    play.request(1, fail_fast=True)
    play.tick()
    assert "refuse open_failed" in play.look_failed()
    assert str(play.refusal.cause) == "no such name"
    assert play.request(1) == []
    dials = 1
    while play.now < START + 20.0:
        play.tick_in_time()
        if play.states():
            assert play.machine.fleet.lookups.next_at() <= play.now + 1.0 or play.machine.fleet.lookups.under_way
        if play.machine.fleet.lookups.under_way:
            dials += len(play.states())
            play.look_failed()
            assert play.states() == {}
    assert 5 <= dials <= 20
    assert play.stats.open_failures == dials
    while not play.machine.fleet.lookups.under_way:
        play.tick_in_time()
    play.found(A)
    (number,) = play.states()
    assert play[number].address == A
    assert "grant " + str(number) in play.opened(number)


def test_a_discovery_that_blocks_at_first() -> None:
    """A dial waits for it until `connect_timeout`, and then fails; nothing is dialled beside it."""
    play = looking(discovered=True, max_size=3, connect_timeout=10.0)
    play.request(1, fail_fast=True)
    assert [*play.tick(), *play.tick(5.0), *play.tick(4.9)] == ["look"]
    assert play.states() == {1: "opening"}
    assert play.tick(0.1) == ["close 1", "refuse open_failed"]
    assert str(play.refusal.cause) == "addresses() has not returned within connect_timeout, 10.0 s"
    play.request(1)
    play.tick_in_time()
    (number,) = play.states()
    assert play.found(A, B)[0] == f"open {number}"


def test_discovered_addresses_stay() -> None:
    """Once some are known, a look-up that fails changes nothing."""
    play = looking(discovered=True, max_size=1)
    play.request(1)
    play.tick()
    play.found(A)
    play.failed(1)
    play.tick_in_time()
    if play.machine.fleet.lookups.under_way:
        play.look_failed()
    while not play.states():
        play.tick_in_time()
    assert [slot.address for slot in play.machine.fleet.slots] == [A]


# --- silent addresses ------------------------------------------------------------------------------------------------


def _silent(play: Play, until: float) -> list[str]:
    """Ticks until then, in time; each dial that has its channel is late at its deadline. Returns the last effects."""
    did: list[str] = []
    while play.now < until:
        for slot in play.machine.fleet.slots:
            slot.channel = slot.channel or object()
        play.now = min(play.machine.next_deadline(), until)
        did = play.tick()
    return did


@pytest.mark.parametrize("names", [(), (A,), (A, B), (A, B, C)], ids=len)
@pytest.mark.parametrize("connect_timeout", [0.5, 1.0, 3.0, 10.0])
def test_a_call_fails_with_the_dial_to_a_silent_address(names: tuple[str, ...], connect_timeout: float) -> None:
    """A call that would rather fail gets its channel at `connect_timeout`, whatever is dialled beside it."""
    addressing = Addressing(addresses=names, every=EVERY if len(names) > 1 else None)
    play = Play(addressing=addressing, random=lambda: 0.5, min_size=1, max_streams=9, connect_timeout=connect_timeout)
    play.request(1, fail_fast=True)
    assert not any("grant" in word for word in _silent(play, START + connect_timeout - 0.01))
    assert any("grant" in word for word in _silent(play, START + connect_timeout))
    # Later ones fail at once, also while others are dialled.
    for after in range(5):
        _silent(play, play.now + 0.7 * after)
        assert any("grant" in word for word in play.request(1, fail_fast=True))


def test_a_call_waits_for_a_dial_that_has_just_begun() -> None:
    """Of several connections that are opened at once, another may be made although the first was refused."""
    play = Play(min_size=3, max_size=3)
    play.request(1, fail_fast=True)
    assert "close 1" in play.unreachable(1)
    assert "close 2" in play.unreachable(2)
    assert "grant 3" in play.opened(3)


def test_look_ups_may_fail_for_days() -> None:
    """However often one has failed, the next comes within `every`."""
    play = looking(max_size=1, min_size=1)
    play.request(1)
    play.tick()
    play.found(A)
    all_opened(play)
    for _ in range(1200):
        play.tick_in_time()
        play.acquire(1)
        play.release(1, 1)
        if play.machine.fleet.lookups.under_way:
            play.look_failed()
    assert play.machine.next_deadline() <= play.now + EVERY


def test_a_dial_that_fails_looks_up() -> None:
    """The server may have moved."""
    play = looking(max_size=1)
    play.request(1)
    play.tick()
    play.found(A)
    play.tick(0.9)
    play.now += 1.0
    assert "look" in [*play.failed(1), *play.tick()]


def test_a_pool_rests_although_a_dial_fails() -> None:
    """While one of its addresses is down, an unused pool stops looking up and dialling anyway."""
    play = looking(max_size=2, min_size=1)
    play.request(1)
    play.tick()
    play.found(A, B)
    dials = 0
    while play.now < START + 600.0:
        for number in [number for number, state in play.states().items() if state == "opening"]:
            if play[number].address == A:
                play.opened(number)
            else:
                dials += 1
                play.failed(number)
        if play.machine.fleet.lookups.under_way:
            play.found(A, B)
        for number in {*play.states()} & {1, 2}:
            if play[number].in_flight:
                play.release(number, 1)
        play.tick(0.5)
    assert not play.machine.fleet.usage.in_use
    assert 3 <= dials <= 15


# --- look-ups that hang ---------------------------------------------------------------------------------------------

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
    while play.machine.fleet.lookups._attempts.begun < 2:
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
    play = Play(
        addressing=Addressing(looked_up=True, every=EVERY, endpoints=2), random=lambda: 0.5, connect_timeout=10.0
    )
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
    assert 16 < len(play.machine.fleet.lookups._attempts.hanging) < 32


def test_closing_ends_the_wait_for_a_look_up() -> None:
    """Nothing is due any more."""
    play = _begun(looking(discovered=True))
    play.close()
    assert play.machine.next_deadline() == math.inf
    play.tick(HOURS)
    assert play.machine.next_deadline() == math.inf
    assert events(play, LookUpFailed) == []
