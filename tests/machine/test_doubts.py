"""Connections in doubt: after a server seems to be gone, what is left of its connections takes little, for a moment."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable

import pytest

from grpcpool._machine.addresses import Addressing
from grpcpool._machine.doubts import NOTICED_WITHIN
from grpcpool._machine.queue import Waiter
from machine.over_addresses import A, B, held, opened, over
from machine.play import Play, calls
from support.signals import RaisesAt, TimeLimitError

RESET = ConnectionResetError("Socket closed")


def gone(*loads: int, **config: object) -> Play:
    """A pool that has just lost the first two of its connections; a call has shown that of the first."""
    return lose_two(calls(*loads, **config))


def lose_two(play: Play) -> Play:
    """As above, for a pool that is there."""
    play.lost(1, RESET)
    play.lost(2)
    return play


def ask(play: Play, number: int, *, fail_fast: bool = False) -> list[str]:
    """That many calls begin."""
    return [word for _ in range(number) for word in play.request(1, fail_fast=fail_fast)]


@pytest.mark.parametrize("fail_fast", [False, True])
def test_each_takes_one_more_and_the_rest_waits(fail_fast: bool) -> None:
    """Whether a call would rather fail or not; when gRPC has noticed what there is to notice, all are served."""
    play = gone(2, 2, 3, 2)
    assert sorted(ask(play, 6, fail_fast=fail_fast)) == ["grant 3", "grant 4"]
    assert (play.stats.waiting, play[3].in_flight, play[4].in_flight) == (4, 4, 3)
    play.tick()
    assert play.machine.next_deadline() == play.now + NOTICED_WITHIN
    assert len(play.tick(NOTICED_WITHIN)) == 4
    assert (play.stats.waiting, play[3].in_flight + play[4].in_flight) == (0, 11)
    assert {slot.carries_up_to for slot in play.machine.fleet.slots} == {8}


def test_where_a_call_ends_another_begins() -> None:
    """A connection that is well goes on as before."""
    play = gone(0, 0, 3)
    ask(play, 3)
    assert play.stats.waiting == 2
    assert play.release(3, 1) == ["grant 3"]
    assert play.release(3, 1) == ["grant 3"]
    assert play[3].in_flight == 4


def test_one_that_is_lost_as_well_leaves_the_calls_waiting() -> None:
    """That is what the doubt is for: they do not fail on it."""
    play = gone(2, 2, 2)
    ask(play, 5)
    assert play.lost(3, RESET) == ["watch 3"]
    assert play.stats.waiting == 4
    assert play.tick(NOTICED_WITHIN) == []
    play.recovered(3)
    assert (play.stats.waiting, play[3].in_flight) == (0, 7)


def test_each_further_loss_prolongs_it() -> None:
    """The bound of what is in doubt already stays."""
    play = gone(0, 0, 1, 1)
    ask(play, 3)
    play.now += NOTICED_WITHIN / 2
    play.lost(3, RESET)
    assert (play[4].in_flight, play[4].carries_up_to, play.stats.waiting) == (2, 2, 1)
    assert play.tick(NOTICED_WITHIN / 2) == []
    assert play.tick(NOTICED_WITHIN / 2) == ["grant 4"]


def test_losses_without_end_prolong_it_for_a_while() -> None:
    """After a tenth of a second all that waits is served; then another doubt may begin."""
    play = gone(*[0] * 15)
    ask(play, 40)
    began, lost = play.now, iter(range(3, 15))
    while play.stats.waiting:
        play.lost(next(lost), RESET)
        play.tick(0.015)
    assert 0.1 <= play.now - began < 0.12
    play.lost(next(lost), RESET)
    assert play[15].doubted
    assert play[15].carries_up_to == play[15].in_flight + 1


def test_one_that_is_up_again_is_not_in_doubt() -> None:
    """Its connection is a new one."""
    play = gone(0, 0, 0, 0)
    play.lost(3, RESET)
    ask(play, 4)
    assert play.stats.waiting == 3
    assert play.recovered(3) == ["grant 3"] * 3


@pytest.mark.parametrize("picker", ["least_loaded", "round_robin", "fill"])
@pytest.mark.parametrize("ends", ["in time", "as an ask has no time"])
def test_those_that_waited_are_spread(picker: str, ends: str) -> None:
    """They get the connections that they would have got without a doubt, in their order."""
    play = gone(0, 0, 0, 0, 0, 0, picker=picker, max_streams=100, target_streams=10)
    ask(play, 40)
    if ends == "in time":
        play.tick(NOTICED_WITHIN)
    else:
        play.request(1, wait=0.0)
    loads = [play[number].in_flight for number in range(3, 7)]
    assert sum(loads) >= 40
    assert max(loads) <= 11


def test_a_call_that_pauses_goes_on_pausing() -> None:
    """It asks for its place later, as the last of all."""
    play = gone(0, 0, 0)
    ask(play, 2)
    play.waiter = Waiter(1, since=play.now, deadline=math.inf, not_before=play.now + 1.0)
    play.did(play.recorder.effects(play.machine.request, play.waiter, play.now))
    assert play.tick(NOTICED_WITHIN) == ["grant 3"]
    assert (play.waiter.queued, play.stats.waiting) == (True, 1)


# --- what is not in doubt ---------------------------------------------------------------------------------------------


def test_after_one_loss_nothing_is_in_doubt() -> None:
    """It may be the word of a call alone; and behind the address of a balancer one server of many may be gone."""
    play = calls(2, 2, 2)
    play.lost(1, RESET)
    assert len(ask(play, 8)) == 8


def test_losses_that_no_call_has_shown_put_nothing_in_doubt() -> None:
    """A server that closes connections in peace lets their calls end."""
    play = calls(2, 2, 2)
    play.lost(1)
    play.lost(2)
    assert ask(play, 6) == ["grant 3"] * 6


def test_losses_some_time_apart_put_nothing_in_doubt() -> None:
    """They have nothing to do with each other."""
    play = calls(2, 2, 2)
    play.lost(1, RESET)
    play.now += 0.06
    play.lost(2, RESET)
    assert ask(play, 6) == ["grant 3"] * 6


def test_a_channel_that_has_never_connected_is_no_loss() -> None:
    """It waits for its server to become healthy, as long as that takes."""
    play = opened(Play(min_size=4, max_size=5, max_streams=8, target_streams=4, health_service="x"))
    ask(play, 17)
    play.unreachable(5)
    assert play.states()[5] == "lost"
    play.lost(1, RESET)
    assert not any(slot.doubted for slot in play.machine.fleet.slots)


def test_what_is_blocked_is_no_loss() -> None:
    """It is out of service until it is checked; its server may be well."""
    play = calls(0, 0, 0)
    play.blocked(1)
    play.lost(2, RESET)
    assert not play[3].doubted


def test_connections_to_other_servers_are_not_in_doubt() -> None:
    """A server that is gone says nothing of others."""
    play = opened(over(A, B, min_size=6, max_size=6, max_streams=4, target_streams=2))
    assert set(held(play).values()) == {3}
    to_a = [number for number in play.slots if play[number].address == A]
    for number in to_a[:2]:
        play.lost(number, RESET)
    assert [slot.address for slot in play.machine.fleet.slots if slot.doubted] == [A]


def test_a_connection_that_is_leased_whole_is_not_in_doubt() -> None:
    """Nothing else is put on it in any case."""
    play = calls(0, 0, 0)
    play.machine.places.acquire(None, play.waiter, play[3])
    play.lost(1, RESET)
    play.lost(2)
    assert not play[3].doubted


def test_an_idle_connection_in_doubt_is_leased_whole() -> None:
    """That is the one more that it takes."""
    play = gone(0, 0, 0)
    assert play.request(None) == ["grant 3"]


# --- nothing is refused, or dialled, because of a doubt ---------------------------------------------------------------


def test_what_has_no_time_ends_the_doubt() -> None:
    """Those who waited are served first."""
    play = gone(1, 1, 1)
    ask(play, 2)
    assert play.stats.waiting == 1
    assert play.request(1, wait=0.0) == ["grant 3", "grant 3"]
    assert play.waiter.refusal is None
    assert ask(play, 2) == ["grant 3", "grant 3"]


def test_what_has_less_time_than_the_doubt_ends_it() -> None:
    """It would be too late for it otherwise."""
    play = gone(1, 1, 1)
    ask(play, 2)
    assert play.request(1, wait=NOTICED_WITHIN / 2) == ["grant 3", "grant 3"]


def test_what_has_no_time_left_ends_a_doubt_that_has_begun_later() -> None:
    """Nothing is refused for a doubt, whenever it has begun."""
    play = gone(0, 0, 0, 0)
    ask(play, 2)
    play.request(1, wait=1.5 * NOTICED_WITHIN)
    play.now += NOTICED_WITHIN - 0.001
    play.lost(4, RESET)
    assert play.waiter.queued
    assert play.tick(NOTICED_WITHIN / 2 + 0.001) == ["grant 3"]


def test_a_call_that_would_rather_fail_does_so_on_what_is_lost_by_now() -> None:
    """It ends the doubt about that, too: all are down, and each takes as many calls as ever."""
    play = lose_two(opened(Play(min_size=3, max_size=3, max_streams=8, max_waiters=0)))
    play.lost(3, RESET)
    assert not [word for word in ask(play, 24, fail_fast=True) if not word.startswith("grant")]
    assert [play[number].in_flight for number in (1, 2, 3)] == [8, 8, 8]


@pytest.mark.parametrize("most", [0, 1])
def test_a_full_queue_ends_the_doubt(most: int) -> None:
    """An ask is not rejected for it."""
    play = lose_two(opened(Play(min_size=3, max_size=3, max_streams=8, max_waiters=most)))
    ask(play, 1 + most)
    assert play.stats.waiting == most
    assert ask(play, 1) == ["grant 3"] * (1 + most)
    assert (play.stats.rejected, play.stats.waiting) == (0, 0)


def test_what_is_really_too_much_is_refused() -> None:
    """All that the doubt kept back is used then."""
    play = lose_two(opened(Play(min_size=3, max_size=3, max_streams=2, max_waiters=0)))
    assert ask(play, 3) == ["grant 3", "grant 3", "refuse exhausted"]
    assert play.request(1, wait=0.0) == ["refuse exhausted"]


@pytest.mark.parametrize("ends", ["in time", "as an ask has no time"])
def test_nothing_is_dialled_before_it_ends(ends: str) -> None:
    """Then what still waits is."""
    play = gone(0, 0, 0, max_size=4)
    assert ask(play, 12) == ["grant 3", "watch 1", "watch 2"]
    play.tick()
    if ends == "in time":
        assert play.tick(NOTICED_WITHIN) == ["grant 3"] * 7 + ["open 4"]
    else:
        assert play.request(1, wait=0.0) == ["grant 3"] * 7 + ["open 4", "refuse timeout"]


def test_one_that_drains_meanwhile_and_is_taken_back_is_trusted_in_time() -> None:
    """It ends for it as for the others."""
    play = gone(0, 0, 1, 1)
    play.resize(0, 1)
    (draining,) = [slot for slot in play.machine.fleet.slots if slot.state == "draining" and slot.in_flight]
    play.resize(4, 4)
    ask(play, 3)
    assert (draining.state, draining.carries_up_to, play.stats.waiting) == ("ready", 2, 1)
    play.tick(NOTICED_WITHIN)
    assert (draining.carries_up_to, play.stats.waiting) == (8, 0)


def test_the_last_doubt_leaves_nothing_to_do() -> None:
    """No tick is due any more."""
    play = lose_two(opened(Play(addressing=Addressing(addresses=(A,)), min_size=3, max_streams=8)))
    play.recovered(1)
    play.recovered(2)
    play.tick(NOTICED_WITHIN)
    assert play.machine.next_deadline() == math.inf


# --- an interruption --------------------------------------------------------------------------------------------------


def _begins(play: Play) -> None:
    play.lost(2)


def _is_over(play: Play) -> None:
    play.lost(2)
    play.machine.tick(play.now + NOTICED_WITHIN)


def _ends(play: Play) -> None:
    play.lost(2)
    play.machine.request(Waiter(1, since=play.now, deadline=play.now), play.now)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("step", [_begins, _is_over, _ends])
def test_it_ends_wherever_a_step_is_interrupted(step: Callable[[Play], None]) -> None:
    """After the repair all that waits is served in time, and nothing is left of the doubt."""
    for number in itertools.count(1):
        play = calls(0, 0, 7, 7, 7)
        play.lost(1, RESET)
        ask(play, 3)
        for full in (3, 4, 5):
            play.release(full, 1)
        waiting = [*play.machine.queue]
        handler = RaisesAt(number, lambda frame: str(frame.f_globals.get("__name__")).startswith("grpcpool._machine."))
        sys.setprofile(handler)
        try:
            step(play)
        except TimeLimitError:
            pass
        finally:
            sys.setprofile(None)
        if handler.raised:
            play.machine.repair(play.now)
        play.tick(NOTICED_WITHIN)
        play.tick(NOTICED_WITHIN)
        assert not [slot for slot in play.machine.fleet.slots if slot.doubted or slot.carries_up_to != slot.limit]
        assert not any(waiter.queued for waiter in waiting)
        if not handler.raised:
            return
