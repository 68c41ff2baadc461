"""Where idle connections close, if they lead to several addresses: those that stay are spread over them."""

from __future__ import annotations

from collections import Counter

import pytest

from grpcpool._machine.addresses import Addressing
from machine.play import Play

A, B = "10.0.0.1:1", "10.0.0.2:1"


def busy(*, min_size: int) -> Play:
    """A pool with two connections to each of two addresses, each with one call; `min_size` connections stay."""
    addressing = Addressing(addresses=[A, B], every=1000.0)
    play = Play(min_size=4, max_size=4, max_streams=1, idle_timeout=10.0, addressing=addressing, random=lambda: 0.5)
    play.open()
    play.opened(*play.slots)
    for _ in range(4):
        assert play.acquire(1) is not None
    play.resize(min_size, 4)
    return play


def released(play: Play, *addresses: str) -> list[int]:
    """A call to each of these addresses ends, one a second, on another connection each time; returns which."""
    numbers = []
    for address in addresses:
        number = min(slot.id for slot in play.slots.values() if slot.address == address and slot.in_flight)
        play.release(number, 1)
        numbers.append(number)
        play.tick(1.0)
    return numbers


def rested(play: Play) -> None:
    """Nothing happens for some time, except what the pool asks for."""
    until = play.now + 15.0
    while play.machine.next_deadline() <= until:
        play.tick_in_time()


def led(play: Play) -> Counter[str | None]:
    """How many connections lead to each address."""
    return Counter(slot.address for slot in play.machine.fleet.slots)


@pytest.mark.parametrize("order", [(A, A, B, B), (A, B, A, B), (A, B, B, A)])
def test_those_that_stay_at_rest_lead_to_different_addresses(order: tuple[str, ...]) -> None:
    """In whatever order connections became idle."""
    play = busy(min_size=2)
    released(play, *order)
    rested(play)
    assert led(play) == {A: 1, B: 1}


def test_those_that_have_been_idle_for_equally_long_close_evenly() -> None:
    """As after a burst: all are due in the same step."""
    play = busy(min_size=2)
    for number in sorted(play.slots, key=lambda number: str(play[number].address)):
        play.release(number, 1)
    play.tick(10.0)
    assert led(play) == {A: 1, B: 1}


def test_where_most_lead_what_has_been_idle_for_longest_closes() -> None:
    """One to the other address has been idle for longer, and stays; the step is due when its turn has come."""
    play = busy(min_size=2)
    first, other, second, third = released(play, A, B, B, A)
    play.now += 6.0
    assert play.machine.next_deadline() == play.now
    assert play.tick() == [f"closed {first}: idle", f"close {first}"]
    # That to B has been idle for longer than the other one to A. Two lead to B.
    play.tick_in_time()
    assert led(play) == {A: 1, B: 1}
    assert {other, second} - play.states().keys() == {other}
    assert third in play.states()


def test_where_most_lead_nothing_closes_that_is_not_due() -> None:
    """The only idle connection to an address stays until one of two to the other has been idle for long enough."""
    play = busy(min_size=1)
    first, second, third, last = released(play, A, A, B, B)
    play.now += 6.0
    assert play.tick() == [f"closed {first}: idle", f"close {first}"]
    assert play.tick(1.0) == []
    assert play.machine.next_deadline() == play.now + 1.0
    assert play.tick(1.0) == [
        *(f"closed {third}: idle", f"close {third}"),
        *(f"closed {second}: idle", f"close {second}"),
    ]
    assert play.states() == {last: "ready"}


def test_busy_connections_keep_no_other_open() -> None:
    """An idle connection closes, although more lead to the other address: these carry calls."""
    play = busy(min_size=1)
    first, second = released(play, A, A)
    rested(play)
    assert not {first, second} & play.states().keys()


def test_what_becomes_busy_holds_nothing_up() -> None:
    """One to the other address was to close first, and is used again before its time."""
    play = busy(min_size=1)
    first, second, _ = released(play, A, A, B)
    play.tick(7.0)
    assert first not in play.states()
    assert play.states()[second] == "ready"
    last = next(slot.id for slot in play.slots.values() if slot.address == B and not slot.in_flight)
    for _ in range(2):
        assert play.request(1)[0].startswith("grant")
    play.release(second, 1)
    play.tick(10.0)
    assert second not in play.states()
    assert play.states()[last] == "ready"


def test_what_waits_for_others_that_are_used_again_and_again_closes_in_the_end() -> None:
    """Two to one address are used every second; the only one to the other waits for as long again, and no longer."""
    addressing = Addressing(addresses=[A, B], every=1000.0)
    play = Play(min_size=3, max_size=3, idle_timeout=10.0, picker="fill", addressing=addressing, random=lambda: 0.5)
    play.open()
    play.opened(*play.slots)
    for _ in range(3):
        play.acquire(2)
    play.resize(0, 3)
    fullest = led(play).most_common(1)[0][0]
    (only,) = [number for number, slot in play.slots.items() if slot.address != fullest]
    used = [number for number in play.slots if number != only]
    play.release(only, 2)
    for second in range(1, 21):
        for number in used:
            play.release(number, 2)
        play.now += 1.0
        if play.machine.next_deadline() <= play.now:
            play.tick()
        assert (only in play.states()) == (second < 20)
        for _ in used:
            play.acquire(2)
    assert all(play.states()[number] == "ready" for number in used)


def test_a_lost_connection_that_nothing_needs_keeps_no_other_from_its_server() -> None:
    """Another to the same server is ready: that is well again, and gets its share of what is dialled."""
    play = busy(min_size=0)
    play.resize(0, 6)
    play.machine.opened(play.machine.fleet.dial(play.now, address=B), object(), play.now)
    released(play, A)
    (down,) = [slot.id for slot in play.slots.values() if slot.address == A and not slot.in_flight]
    play.lost(down)
    assert not play.machine.outage.which_are_needed(play.now)(play[down])
    assert play.machine.fleet.dial(play.now).address == A


def test_a_lost_connection_closes_wherever_it_leads() -> None:
    """One that is down serves nothing: it closes when it has been idle for long enough."""
    play = busy(min_size=1)
    released(play, A)
    (down,) = [slot.id for slot in play.slots.values() if slot.address == A and not slot.in_flight]
    play.lost(down)
    play.tick(9.0)
    assert down not in play.states()
    assert led(play) == {A: 1, B: 2}
