"""Sick servers: how long a handicap lasts, which connections count as silent, and what is made of it."""

from __future__ import annotations

import enum
import math
from typing import Any

import pytest

from grpcpool._machine.addresses import Addressing
from grpcpool._machine.effects import Notify
from grpcpool._machine.places import Holding
from grpcpool._machine.slot import Slot
from grpcpool.events import Avoided, Lost, Recovered
from machine.play import START, Play


class Status(enum.Enum):
    """Stands for a status."""

    INTERNAL = 1


def fail(play: Play, number: int) -> list[str]:
    """A call on that slot fails."""
    words = play.did(play.recorder.effects(play.machine.failed, play[number], Status.INTERNAL, play.now))
    play.release(number, 1)
    return words


def events(play: Play, kind: type) -> list[Any]:
    """The events of that kind among the last effects."""
    return [effect.event for effect in play.effects if isinstance(effect, Notify) and isinstance(effect.event, kind)]


def time_out(play: Play, number: int, *, began: float) -> list[str]:
    """A call on that slot, which began then, runs into its deadline."""
    slot = play[number]
    return play.did(play.recorder.effects(play.machine.unanswered, slot, Holding(slot), began, play.now))


def two(**config: Any) -> Play:
    """Two connections, each with a handful of calls."""
    settings: dict[str, Any] = {"min_size": 2, "max_size": 2, "max_streams": 9, "target_streams": 9, "picker": "fill"}
    play = Play(**(settings | config))
    play.open()
    play.opened(1, 2)
    for _ in range(12):
        play.request(1)
    return play


def test_a_handicap_lasts_until_nothing_has_failed_for_long_enough() -> None:
    """Each failure prolongs it; only the first of a row is an event; a tick at its end forgets it."""
    play = two(avoid_after_failure=5.0)
    play.machine.failed(play[1], Status.INTERNAL, play.now)
    play.did(play.recorder.effects(play.machine.tick, play.now))
    assert events(play, Avoided) == [Avoided(pool="pool", channel=1, code=Status.INTERNAL)]
    assert play.machine.next_deadline() == START + 5.0
    play.tick(4.0)
    fail(play, 1)
    assert not events(play, Avoided)
    assert (play[1].recent_failures, play.stats.avoided, play.stats.failures, play[1].failures) == (2, 1, 2, 2)
    play.tick(4.5)
    assert play[1].recent_failures == 2
    play.tick(0.5)
    assert (play[1].recent_failures, play.stats.avoided, play.stats.failures) == (0, 0, 2)
    assert play.machine.next_deadline() == math.inf


def test_a_new_connection_to_a_sick_address_is_avoided_as_long_as_the_others() -> None:
    """A successor has the handicap of its address, and no call has to fail on it; one to another address has none."""
    play = Play(min_size=2, max_size=2, avoid_after_failure=5.0, addressing=Addressing(looked_up=True, every=30.0))
    play.open()
    play.found("10.0.0.1:1", "10.0.0.2:1")
    play.opened(1, 2)
    for _ in range(3):
        play.machine.failed(play[1], Status.INTERNAL, play.now)
    play.now += 1.0
    play.refresh()
    successors = sorted(number for number, state in play.states().items() if state == "opening")
    for number in successors:
        play.opened(number)
    for number in (number for number, state in play.states().items() if state == "ready"):
        sick = play[number].address == play[1].address
        assert play[number].recent_failures == (3 if sick else 0)
        assert play[number].avoided_until == (START + 5.0 if sick else math.inf)
    play.tick(4.0)
    assert not play.stats.avoided


def test_what_fails_on_a_connection_that_is_down_is_only_counted() -> None:
    """It is out of service anyway, and ranks like others when it is back."""
    play = two()
    play.lost(1)
    fail(play, 1)
    assert (play[1].recent_failures, play.stats.failures, play.stats.lost, play.stats.losses) == (0, 1, 1, 1)


def test_a_loss_and_a_recovery_are_events() -> None:
    """Each once, with the cause, how many are up, and how long it was down."""
    play = two()
    cause = ConnectionError("reset")
    play.did(play.recorder.effects(play.machine.lost, play[1], cause, play.now))
    assert events(play, Lost) == [Lost(pool="pool", channel=1, cause=cause, up=1)]
    play.did(play.recorder.effects(play.machine.lost, play[1], cause, play.now))
    assert not events(play, Lost)
    play.now += 1.5
    play.recovered(1)
    assert events(play, Recovered) == [Recovered(pool="pool", channel=1, seconds=1.5)]
    play.recovered(1)
    assert not events(play, Recovered)


def test_calls_that_began_before_the_last_answer_do_not_count() -> None:
    """They may have waited for something that the others did not."""
    play = two(unresponsive_after=20.0)
    play.now += 1.0
    play.release(1, 1)
    for _ in range(4):
        play.now += 0.5
        time_out(play, 1, began=START)
    assert play.tick(100.0) == []


def test_a_cancelled_call_is_no_answer_and_no_timeout() -> None:
    """Neither does it show that the server is there, nor that it is not."""
    play = two(unresponsive_after=20.0)
    play.now += 1.0
    for _ in range(4):
        time_out(play, 1, began=math.inf)
    assert play[1].overdue_calls == 0
    for _ in range(3):
        time_out(play, 1, began=START + 0.5)
        time_out(play, 1, began=math.inf)
    assert play.machine.next_deadline() == START + 20.0


@pytest.mark.parametrize("streams", [1, 2])
def test_the_end_of_a_lease_is_no_answer(streams: int) -> None:
    """A connection is silent although each call has a lease of its own, which is released after the call."""
    play = two(unresponsive_after=20.0)
    play.now += 1.0
    for _ in range(3):
        play.machine.unanswered(play[1], None, START + 0.5, play.now)
        play.now += 0.5
        play.machine.places.release_unanswered(play[1], streams, play.now, Holding(play[1]))
    assert play[1].overdue_calls == 3
    assert play.tick(0.0) == []
    assert play.machine.next_deadline() == START + 20.0


def test_a_call_on_a_lease_may_be_an_answer() -> None:
    """Its end is reported before the release of the lease."""
    play = two(unresponsive_after=20.0)
    play.now += 1.0
    for _ in range(3):
        play.machine.unanswered(play[1], None, START + 0.5, play.now)
    play.now += 0.5
    # As leases do at the end of a call that was answered.
    play[1].used_at = play.now
    play.machine.places.release_unanswered(play[1], 1, play.now, Holding(play[1]))
    assert play.tick(100.0) == []
    assert play[1].overdue_calls == 0


def test_a_message_of_a_stream_is_an_answer() -> None:
    """A connection on which streams receive something is not replaced."""
    play = two(unresponsive_after=20.0)
    play.now += 1.0
    for _ in range(3):
        time_out(play, 1, began=START + 0.5)
    play[1].heard += 1
    assert play.tick(100.0) == []


def test_a_successor_has_twice_as_long_until_one_answers() -> None:
    """A server that answers nothing on new connections either is not dialled ever again at the same pace."""
    play = two(unresponsive_after=20.0)
    for number, successor, wait in ((1, 3, 20.0), (3, 4, 40.0)):
        began = play.now
        for _ in range(3):
            play.request(1)
            time_out(play, number, began=play.now)
        play.now = began + wait - 1.0
        play.release(2, 1)
        assert play.tick() == []
        play.now = began + wait
        play.release(2, 1)
        play.request(1)
        assert play.tick() == [f"open {successor} for {number}"]
        play.opened(successor)
    assert (play[4].silence_factor, play[2].silence_factor) == (4, 1)


def test_a_successor_that_fails_leaves_no_reason() -> None:
    """A connection that answers again is not called unresponsive when it is replaced for its age."""
    play = two(unresponsive_after=20.0)
    for _ in range(3):
        play.request(1)
        time_out(play, 1, began=play.now)
    play.now += 20.0
    play.release(2, 1)
    play.request(1)
    assert play.tick() == ["open 3 for 1"]
    assert play[1].reason == "unresponsive"
    play.failed(3)
    assert play[1].reason == "age"


def test_an_answer_ends_the_patience() -> None:
    """A connection that has answered has no longer to answer than others."""
    play = two()
    play[1].silence_factor = 4
    time_out(play, 1, began=play.now)
    assert play[1].silence_factor == 4
    play.now += 1.0
    play.release(1, 1)
    play.now += 1.0
    time_out(play, 1, began=play.now)
    assert play[1].silence_factor == 1


def test_without_the_setting_nothing_is_replaced() -> None:
    """`unresponsive_after=None`: a connection may be silent for ever."""
    play = two(unresponsive_after=None)
    for _ in range(3):
        time_out(play, 1, began=play.now)
    assert play.tick(1e6) == []


@pytest.mark.parametrize("last", ["unanswered", "answered"])
def test_a_connection_that_came_back_has_not_been_silent(last: str) -> None:
    """What ran into deadlines before it was lost says nothing of it: it is not replaced at once."""
    play = Play(max_streams=10, target_streams=10, max_size=2, min_size=2, unresponsive_after=20.0, health_service="")
    play.request(1)
    play.opened(1, 2)
    silent, other = play[1], play[2]

    def call(slot: Slot, *, answered: bool) -> None:
        holder = Holding(slot)
        play.machine.places.acquire(1, holder, slot)
        play.now += 1.0
        if answered:
            play.machine.release(slot, 1, holder, play.now, answered=True)
        else:
            play.machine.unanswered(slot, holder, play.now - 1.0, play.now)

    for _ in range(3):
        call(silent, answered=False)
        call(other, answered=True)
    if last == "answered":
        call(silent, answered=True)
    play.lost(1)
    for _ in range(30):
        call(other, answered=True)
        play.tick()
    assert play.recovered(1) == []
    if last == "answered":
        for _ in range(3):
            call(silent, answered=False)
            call(other, answered=True)
        assert play.tick() == []
    else:
        assert play.tick(30.0) == []
    assert play.states() == {1: "ready", 2: "ready"}
