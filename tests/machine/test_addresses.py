"""Addresses: which one a connection leads to, and what is evened out."""

from __future__ import annotations

import math

import pytest

from grpcpool._machine.addresses import Addressing
from grpcpool.events import AddressesChanged
from machine.over_addresses import V6, A, B, C, D, Status, all_opened, events, held, looking, opened, over
from machine.play import Play

# --- which is dialled -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 4, 6, 8, 9])
@pytest.mark.parametrize("seed", range(3))
def test_connections_are_dealt_out(n: int, seed: int) -> None:
    """None of the addresses is left out, and no two differ by more than one."""
    play = opened(over(A, B, C, min_size=n, max_size=n, seed=seed))
    assert held(play).total() == n
    assert held(play).keys() == {A, B, C}
    assert max(held(play).values()) - min(held(play).values()) <= 1


def test_a_seed_decides_which_is_first() -> None:
    """Pools with one connection do not all choose the same address; pools of one seed do."""

    def first(seed: int, *names: str) -> str | None:
        play = over(*names, seed=seed, min_size=1, max_size=1)
        play.open()
        return play[1].address

    assert {first(seed, A, B, C) for seed in range(30)} == {A, B, C}
    for seed in range(30):
        assert first(seed, A, B, C) == first(seed, C, A, B)


def test_an_address_that_goes_changes_nothing_about_the_others() -> None:
    """Only pools that used it choose another."""
    for seed in range(30):
        firsts = []
        for names in ((A, B, C, D), (A, B, C)):
            play = over(*names, seed=seed, min_size=1, max_size=1)
            play.open()
            firsts.append(play[1].address)
        assert firsts[0] in (firsts[1], D)


def test_without_known_addresses_there_is_one() -> None:
    """It is left to gRPC where a connection leads."""
    play = opened(Play(min_size=2))
    assert held(play) == {None: 2}
    assert play.machine.next_deadline() == math.inf


def test_a_single_address_is_not_looked_up() -> None:
    """There is nothing to look up, and nothing to even out."""
    play = opened(Play(addressing=Addressing(addresses=(A,)), min_size=2))
    assert held(play) == {A: 2}
    assert play.machine.next_deadline() == math.inf


def test_each_address_gets_a_connection_at_first_use() -> None:
    """Whatever `min_size` is; with fewer connections than addresses none gets two."""
    play = over(A, B, C, min_size=0, max_size=10)
    play.request(1)
    play.tick()
    assert held(play) == {A: 1, B: 1, C: 1}
    few = over(A, B, C, D, min_size=0, max_size=3)
    few.request(1)
    few.tick()
    assert sorted(held(few).values()) == [1, 1, 1]


def test_the_next_connection_goes_where_the_fewest_lead() -> None:
    """A connection that is closed leaves a gap, which the next fills."""
    play = opened(over(A, B, C, min_size=6, max_size=6))
    play.request(1)
    number = next(slot.id for slot in play.machine.fleet.slots if slot.in_flight)
    gone = play[number].address
    play.discard(number, 1)
    assert play.states()[7] == "opening"
    assert play[7].address == gone


# --- changes ----------------------------------------------------------------------------------------------------------


def test_a_new_address_gets_a_connection_if_there_may_be_another() -> None:
    """At once; the others keep theirs."""
    play = looking(max_size=5)
    play.request(1)
    play.found(A, B)
    all_opened(play)
    assert play.found(A, B, C) == ["open 3"]
    assert [(event.new, event.gone) for event in events(play, AddressesChanged)] == [((C,), ())]
    assert play[3].address == C
    assert play.found(C, B, A) == []
    assert not events(play, AddressesChanged)


def test_a_new_address_of_a_full_pool_gets_what_the_fullest_gives_up() -> None:
    """A quarter at a time: a successor is ready before the connection that it replaces drains."""
    play = looking(min_size=6, max_size=6)
    play.open()
    assert play.found(A, B) == [f"open {number}" for number in range(1, 7)]
    all_opened(play)
    words = play.found(A, B, C)
    assert len(words) == 2
    assert all(play[number].address == C and play[number].replaces is not None for number in (7, 8))
    for number in (7, 8):
        replaced = play[number].replaces
        assert replaced is not None
        assert play.opened(number) == [f"closed {replaced.id}: refresh", f"close {replaced.id}"]
    assert held(play) == {A: 2, B: 2, C: 2}
    assert "opening" not in play.states().values()


def test_a_quarter_is_replaced_at_a_time() -> None:
    """Of eight connections, four are to move: two begin, and each that is done lets another begin."""
    play = looking(min_size=8, max_size=8)
    play.open()
    play.found(A, B)
    all_opened(play)
    assert len(play.found(A, B, C, D)) == 2
    assert "open 11" in " ".join(play.opened(9))
    assert "open 12" in " ".join(play.opened(10))
    assert "open" not in {word.partition(" ")[0] for word in play.opened(11, 12)}
    assert held(play) == {A: 2, B: 2, C: 2, D: 2}


def test_connections_to_an_address_that_is_gone_drain() -> None:
    """At once, if the others are enough; what they carry goes on."""
    play = looking(max_size=5)
    play.request(1)
    play.found(A, B)
    all_opened(play)
    carries = next(slot for slot in play.machine.fleet.slots if slot.in_flight)
    other = B if carries.address == A else A
    assert play.found(other) == [f"draining {carries.id}: address_gone"]
    assert play.release(carries.id, 1) == [f"closed {carries.id}: address_gone", f"close {carries.id}"]
    assert held(play) == {other: 1}


def test_the_only_connection_is_replaced_first() -> None:
    """If none of the new addresses has a connection yet, the old one serves until one has."""
    play = looking(max_size=1)
    play.request(1)
    play.found(A)
    play.opened(1)
    assert play.found(B) == ["open 2 for 1"]
    assert play[2].address == B
    play.request(1)
    assert (play[1].in_flight, play.states()) == (2, {1: "ready", 2: "opening"})
    assert "draining 1: address_gone" in play.opened(2)


def test_an_address_that_comes_back_is_not_new_to_its_connection() -> None:
    """A connection that drains because its address was gone stays so; another is opened."""
    play = looking(max_size=5)
    play.request(1)
    play.found(A, B)
    all_opened(play)
    play.found(A)
    play.found(A, B)
    all_opened(play)
    assert held(play) == {A: 1, B: 1}


# --- reachability -----------------------------------------------------------------------------------------------------


def test_an_unreachable_address_backs_off_on_its_own() -> None:
    """The others get what it would have; when its pause is over, one dial at a time tries it."""
    play = over(A, B, min_size=2, max_size=2)
    play.open()
    dead = play[1].address
    other = play[2].address
    play.opened(2)
    play.failed(1)
    backoffs = {name: each.backoff.failures for name, each in play.machine.fleet.addresses._used.items()}
    assert backoffs == {dead: 1, other: 0}
    # Its place goes to the other meanwhile.
    assert held(play)[other] == 2
    assert all(slot.address == other for slot in play.machine.fleet.slots)
    all_opened(play)
    play.now = play.machine.fleet.addresses.next_retry(play.now)
    play.request(1)
    play.tick()
    attempts = [slot for slot in play.machine.fleet.slots if slot.state == "opening"]
    assert [slot.address for slot in attempts] == [dead]
    assert play.tick(0.01) == []
    play.opened(attempts[0].id)
    assert held(play) == {dead: 1, other: 1}


def test_while_all_fail_each_is_tried_in_turn() -> None:
    """The pool backs off only when every address does."""
    play = over(A, B, min_size=1, max_size=1)
    play.request(1)
    first = play[1].address
    play.failed(1)
    assert play.states() == {2: "opening"}
    assert play[2].address not in (None, first)
    play.failed(2)
    assert play.states() == {}
    play.tick()
    assert play.states() == {}
    assert play.now < play.machine.next_deadline() <= play.machine.fleet.addresses.retry_at
    play.tick_in_time()
    assert "opening" in play.states().values()


def test_an_address_with_a_lost_connection_comes_last() -> None:
    """It is not dialled while others can be, however few connections lead to these."""
    play = opened(over(A, B, C, min_size=3, max_size=6))
    play.lost(1)
    for _ in range(12):
        play.request(1)
    dialled = [slot.address for slot in play.machine.fleet.slots if slot.state == "opening"]
    assert dialled
    assert play[1].address not in dialled


def test_an_address_where_a_dial_hangs_comes_last() -> None:
    """Another dial begins beside it after a second, to another address."""
    play = over(A, B, min_size=1, max_size=3)
    play.request(1)
    play.tick()
    silent, other = play[1].address, play[2].address
    assert {silent, other} == {A, B}
    play.opened(2)
    play.tick(1.0)
    for _ in range(4):
        play.request(1)
    dialled = [slot.address for slot in play.machine.fleet.slots if slot.state == "opening" and slot.id > 2]
    assert dialled == [other]


# --- families ---------------------------------------------------------------------------------------------------------


def test_the_first_connection_decides_the_family() -> None:
    """Only addresses of one family are used, so that no server has twice as many connections as others."""
    play = looking(either_family=True, max_size=5)
    play.request(1)
    play.found(V6, A, B)
    assert play[1].address == V6
    play.opened(1)
    assert held(play) == {V6: 1}


def test_a_family_that_cannot_be_reached_is_no_failure() -> None:
    """The other is tried at once, and nothing is counted; its addresses get their connections."""
    play = looking(either_family=True, max_size=5)
    play.request(1)
    play.found(V6, A, B)
    play.failed(1)
    (second,) = play.states()
    assert play[second].address in (A, B)
    all_opened(play)
    assert held(play) == {A: 1, B: 1}
    assert play.stats.open_failures == 0
    # The next look-up changes nothing.
    assert play.found(V6, A, B) == []


def test_both_families_unreachable_is_a_failure() -> None:
    """The last to fail says so."""
    play = looking(either_family=True, max_size=5)
    play.request(1, fail_fast=True)
    play.found(V6, A)
    play.failed(1)
    assert "refuse open_failed" in play.failed(2)
    assert play.stats.open_failures == 1


def test_a_family_that_is_gone_is_replaced_by_the_other() -> None:
    """A name that has no address of the used family any more."""
    play = looking(either_family=True, max_size=1)
    play.request(1)
    play.found(V6, A)
    play.opened(1)
    assert play.found(A) == ["open 2 for 1"]
    assert play[2].address == A


# --- handicaps --------------------------------------------------------------------------------------------------------


def test_a_handicap_is_that_of_the_address() -> None:
    """A call that fails on one connection ranks all connections to the same server behind the others."""
    play = opened(over(A, B, min_size=4, max_size=4, target_streams=2))
    sick = play[1].address
    play.did(play.recorder.effects(play.machine.failed, play[1], Status.INTERNAL, play.now))
    avoided = {slot.address for slot in play.machine.fleet.slots if slot.recent_failures}
    assert avoided == {sick}
    assert play.stats.avoided == 2
    for _ in range(4):
        play.request(1)
    assert {slot.address for slot in play.machine.fleet.slots if slot.in_flight} == {A, B} - {sick}


def test_a_handicap_over_a_single_address_is_that_of_the_connection() -> None:
    """It may be a balancer's, with many servers behind it."""
    play = opened(Play(addressing=Addressing(addresses=(A,)), min_size=3))
    play.did(play.recorder.effects(play.machine.failed, play[1], Status.INTERNAL, play.now))
    assert [slot.id for slot in play.machine.fleet.slots if slot.recent_failures] == [1]


# --- addresses without a connection -----------------------------------------------------------------------------------


def test_a_higher_max_size_connects_the_addresses_that_had_no_connection() -> None:
    """They do not wait for the next look-up."""
    play = opened(over(A, B, C, min_size=1, max_size=1))
    play.tick(1.0)
    assert len(held(play)) == 1
    play.resize(1, 3)
    assert play.machine.next_deadline() == play.now
    play.tick()
    all_opened(play)
    assert held(play) == {A: 1, B: 1, C: 1}


def test_what_is_discarded_leaves_no_address_without_a_connection() -> None:
    """Another is opened to its address, although `min_size` does not need it."""
    play = opened(over(A, B, min_size=1, max_size=3))
    play.tick(1.0)
    assert held(play) == {A: 1, B: 1}
    play.request(None)
    (slot,) = [slot for slot in play.slots.values() if slot.exclusive]
    play.discard(slot.id)
    assert play.machine.next_deadline() == play.now
    play.tick()
    all_opened(play)
    assert held(play) == {A: 1, B: 1}


def test_the_first_use_after_an_open_that_failed_connects_all_addresses() -> None:
    """At once, and not at the next look-up."""
    play = looking(min_size=1, max_size=3)
    play.open(wait=0.5)
    assert "refuse open_failed" in play.tick(0.5)
    assert play.states() == {}
    play.found(A, B)
    play.now += 2.0
    play.request(1)
    assert play.machine.next_deadline() == play.now
    play.tick()
    assert held(play) == {A: 1, B: 1}


def test_the_first_use_after_a_rest_connects_all_addresses() -> None:
    """At once, although there was a look-up less than a second ago, after a loss."""
    play = looking(min_size=1, max_size=3, idle_timeout=40.0)
    play.request(1)
    play.found(A, B)
    all_opened(play)
    play.release(1, 1)
    while len(play.states()) > 1:
        play.tick_in_time()
        play.found(A, B)
    assert not play.machine.fleet.usage.in_use
    play.tick(1.0)
    (number,) = play.states()
    play.lost(number)
    play.tick()
    play.recovered(number)
    play.now += 0.1
    play.request(1)
    assert play.machine.next_deadline() == play.now
    play.tick()
    assert held(play) == {A: 1, B: 1}
