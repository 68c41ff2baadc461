"""What a call gets while no connection is up, and the attempt that is made for the first one."""

from __future__ import annotations

import math
from typing import Any

import pytest

from grpcpool import Mode
from machine.play import Play


def _idle() -> Play:
    """A pool with one connection, which is up and carries nothing."""
    play = Play(min_size=1, max_size=1)
    play.request(1)
    play.opened(1)
    play.release(1, 1)
    return play


def _outage(*, pauses: bool = True) -> Play:
    """A pool whose only connection is down."""
    play = _idle()
    play.lost(1)
    play[1].pauses = pauses
    play.now += 0.5
    return play


def test_an_attempt_is_made_for_the_first_call() -> None:
    """The first call does not get a channel that pauses, but waits for an attempt, which serves it."""
    play = _outage()
    assert play.request(1, fail_fast=True) == ["open 2 for 1"]
    assert play.request(1, fail_fast=True) == []
    assert [word for word in play.opened(2) if "grant" in word] == ["grant 2", "grant 2"]


def test_when_the_attempt_fails_so_does_the_call() -> None:
    """Then it gets the channel that is down; so do those that follow, until nothing is asked for during ten seconds."""
    play = _outage()
    play.request(1, fail_fast=True)
    assert "grant 1" in play.failed(2)
    play.release(1, 1)
    for seconds in (0.01, 9.9):
        play.now += seconds
        assert play.request(1, fail_fast=True) == ["grant 1"]
        play.release(1, 1)
    play.now += 10
    assert play.request(1, fail_fast=True) == ["open 3 for 1"]


def test_a_call_does_not_wait_for_an_attempt_that_hangs() -> None:
    """After a second it gets the channel that is down."""
    play = _outage()
    play.request(1, fail_fast=True)
    play.now += 0.99
    assert "grant 1" not in play.tick()
    play.now += 0.01
    assert "grant 1" in play.tick()


def test_no_attempt_is_made_while_grpc_reconnects() -> None:
    """A call gets a channel that is connecting: gRPC lets it wait for the outcome."""
    assert _outage(pauses=False).request(1, fail_fast=True) == ["grant 1"]


def test_a_lost_connection_that_is_back_ends_the_attempt() -> None:
    """Whichever is up first serves."""
    play = _outage()
    play.request(1, fail_fast=True)
    assert {"grant 1", "close 2"} <= set(play.recovered(1))


@pytest.mark.parametrize("fail_fast", [True, False])
def test_any_call_is_the_first(fail_fast: bool) -> None:
    """The attempt is also made for a call that waits until a connection is up."""
    play = _outage()
    assert play.request(1, fail_fast=fail_fast) == ["open 2 for 1"]
    assert "grant 2" in play.opened(2)


def test_calls_wait_for_the_check_of_a_connection_that_is_blocked() -> None:
    """It may be up. They do not fail, nor do they get it before the check has ended."""
    play = Play(min_size=1, max_size=1)
    play.request(1)
    play.opened(1)
    assert play.blocked(1) == ["watch 1"]
    assert play.request(1, fail_fast=True) == []
    assert play.release(1, 1) == []
    assert "grant 1" in play.recovered(1)


def test_a_connection_whose_check_does_not_end_gets_a_successor() -> None:
    """After two seconds, as each that is needed and not back; the calls that wait get that."""
    play = _idle()
    play.blocked(1)
    play.request(1, fail_fast=True)
    play.now += 1.9
    assert play.tick() == []
    play.now += 0.1
    assert "open 2 for 1" in play.tick()
    assert "grant 2" in play.opened(2)


def test_a_connection_that_is_blocked_for_good_gets_a_successor_at_once() -> None:
    """It is not checked, so that nothing is to be waited for."""
    play = _idle()
    play.blocked(1, for_good=True)
    play.request(1, fail_fast=True)
    assert "open 2 for 1" in play.tick()
    assert "grant 2" in play.opened(2)


def test_a_connection_that_is_blocked_for_good_does_not_come_back() -> None:
    """Whatever a check finds that began before. It is replaced, also where gRPC watches health and it is down."""
    play = Play(min_size=1, max_size=1, health_service="")
    play.request(1)
    play.opened(1)
    play.blocked(1, for_good=True)
    assert play.recovered(1) == []
    play.lost(1)
    play.request(1, fail_fast=True)
    assert "open 2 for 1" in play.tick()


def test_a_call_does_not_wait_for_what_is_broken_if_no_successor_can_be_opened() -> None:
    """It fails when the dial has failed, and while dials pause; it waits while one is under way."""
    play = _idle()
    play.blocked(1, for_good=True)
    assert play.request(1, fail_fast=True) == []
    assert "open 2 for 1" in play.tick()
    assert "refuse open_failed" in play.failed(2)
    assert play.request(1, fail_fast=True) == ["refuse open_failed"]
    assert "open 3 for 1" in play.tick(after=1.0)
    assert play.request(1, fail_fast=True) == []
    assert "grant 3" in play.opened(3)


def test_a_connection_with_a_health_watch_that_is_blocked_gets_a_successor() -> None:
    """While gRPC watches health, one that is down is not replaced: its server may not serve. This one may be up."""
    play = Play(min_size=1, max_size=1, health_service="")
    play.request(1)
    play.opened(1)
    play.blocked(1)
    play.request(1, fail_fast=True)
    play.now += 2
    assert "open 2 for 1" in play.tick()


def test_a_connection_with_a_health_watch_that_was_blocked_and_is_down_stays() -> None:
    """The check has ended: the server does not serve."""
    play = Play(min_size=1, max_size=1, health_service="")
    play.request(1)
    play.opened(1)
    play.blocked(1)
    play.lost(1)
    play.request(1)
    play.now += 2
    assert play.tick() == []


def test_a_connection_that_is_checked_is_said_to_be_lost_when_it_is() -> None:
    """A signal handler that raised causes neither event nor count, unless the check finds the connection down."""
    play = _idle()
    assert play.blocked(1) == ["watch 1"]
    losses = play.machine.counters.losses
    assert play.recovered(1) == []
    play.blocked(1)
    play.lost(1)
    assert (losses, play.machine.counters.losses) == (0, 1)
    # From here on it is down like any other: a call that would rather fail gets it.
    assert play.request(1, fail_fast=True) == ["grant 1"]


def test_a_connection_that_is_blocked_is_not_taken_back() -> None:
    """It drains because there were too many. Another is dialled instead, because its check may never end."""
    play = Play(max_size=2, max_streams=1)
    for number in (1, 2):
        play.request(1)
        play.opened(number)
    play.blocked(2)
    assert play.resize(0, 1) == ["draining 2: shrink"]
    assert play.resize(0, 2) == []
    assert play.request(1) == ["open 3"]


def test_a_connection_that_is_down_may_be_blocked_as_well() -> None:
    """Calls that would rather fail wait for its check, and get it then. Its loss is announced once."""
    play = _outage(pauses=False)
    assert play.blocked(1) == ["watch 1"]
    assert play.request(1, fail_fast=True) == []
    assert play.lost(1) == ["grant 1"]
    assert play.machine.counters.losses == 1


def test_what_waits_brings_back_what_was_not_needed() -> None:
    """Connections that were lost while idle are left alone, until one is full and something waits."""
    play = Play(max_size=3, max_streams=1)
    play.filled(None, None, None)
    for number in (2, 3):
        play.release(number)
        play.lost(number)
    play.tick(60.0)
    assert play.states() == {1: "ready", 2: "lost", 3: "lost"}
    assert play.request(1) == ["watch 2", "watch 3"]
    # They have had their time, so that they get successors at once.
    assert play.machine.next_deadline() == play.now
    assert play.tick(0.0) == ["open 4 for 2"]
    play.opened(4)
    assert play[4].in_flight == 1


@pytest.mark.parametrize("wait", [0.0, 1.0])
def test_what_was_asked_for_comes_back_although_that_has_gone(wait: float) -> None:
    """What waited may be served, or refused, before the lost connections are checked."""
    play = Play(max_size=2, max_streams=1)
    play.filled(None, None)
    play.release(2)
    play.lost(2)
    play.tick(60.0)
    assert "watch 2" in play.request(1, wait=wait)
    if wait:
        assert play.release(1) == ["grant 1"]
    assert play.machine.outage.which_are_needed(play.now)(play[2])
    # The next that asks does not begin all over again.
    assert "watch 2" not in play.request(1, wait=wait)
    assert play.tick(0.0) == ["open 3 for 2"]


def test_what_is_rejected_brings_back_connections() -> None:
    """Without a queue, all that is asked for meanwhile is rejected."""
    play = Play(max_size=2, max_streams=1)
    play.filled(None, None)
    play.release(2)
    play.lost(2)
    play.tick(60.0)
    play.machine.fleet.config = play.machine.config.replace(max_waiters=0)
    assert play.request(1) == ["watch 2", "refuse exhausted"]
    assert play.machine.outage.which_are_needed(play.now)(play[2])


def test_a_cause_ends_with_the_outage() -> None:
    """A connection that was lost is not needed, and goes: later timeouts are those of a busy pool."""
    play = Play(min_size=1, max_size=3, max_streams=1, idle_timeout=600.0)
    play.filled(1, 1)
    for number in (1, 2):
        play.release(number, 1)
    play.did(play.recorder.effects(play.machine.lost, play[2], ConnectionError("reset"), play.now))
    while 2 in play.states():
        play.tick_in_time()
    play.request(1)
    play.resize(1, 1)
    play.request(1, wait=0.0)
    assert play.refusal.cause is None


def test_after_a_failed_open_a_call_gets_a_channel() -> None:
    """`open()` has closed what did not connect. The first call has one dialled, and later ones get the same."""
    play = Play(min_size=1, max_size=1)
    play.open()
    play.unreachable(1)
    assert play.states() == {}
    assert play.request(1, fail_fast=True) == ["open 2"]
    assert play.request(1, fail_fast=True) == []
    assert [word for word in play.unreachable(2) if "grant" in word] == ["grant 2", "grant 2"]
    play.release(2, 1)
    assert play.request(1, fail_fast=True) == ["grant 2"]


def test_after_an_acquire_that_timed_out_a_call_gets_a_channel() -> None:
    """Nothing but a lease was asked for, so that the channel was not kept."""
    play = Play(min_size=0, max_size=1)
    play.request(None, wait=1)
    play.unreachable(1)
    play.cancel()
    assert play.request(1, fail_fast=True) == ["open 2"]
    assert "grant 2" in play.unreachable(2)


def test_without_a_channel_a_call_fails_while_dials_pause() -> None:
    """Where the factory fails there is no channel on which the call could fail."""
    play = Play(min_size=0, max_size=1)
    play.request(None, wait=1)
    play.failed(1)
    play.cancel()
    assert "refuse" in " ".join(play.request(1, fail_fast=True))


# --- what is missed comes back --------------------------------------------------------------------------------------


def _unneeded(**config: Any) -> Play:
    """A pool with a ready connection, number 2, and one that was lost while idle, number 1, and is not needed."""
    play = Play(**{"min_size": 1, "max_size": 2, "idle_timeout": 600.0} | config)
    play.filled(None, None)
    play.release(1)
    play.lost(1)
    play.tick(60.0)
    assert not play.machine.outage.which_are_needed(play.now)(play[1])
    return play


def _connect(play: Play) -> list[str]:
    return play.did(play.recorder.effects(play.machine.connect, play.now))


@pytest.mark.parametrize("how", ["discard", "lose", "block", "unfit", "resize"])
def test_a_lost_connection_comes_back_when_it_is_missed(how: str) -> None:
    """It was not needed while another was up; it is as soon as there are less than `min_size`."""
    play = _unneeded()
    match how:
        case "discard":
            play.discard(2)
        case "lose":
            play.lost(2)
        case "block":
            play.blocked(2)
        case "unfit":
            play.unfit(2)
        case _:
            play.resize(2, 2)
    assert play.machine.outage.which_are_needed(play.now)(play[1])
    # It has had its time, so that it gets a successor at once.
    assert play.machine.next_deadline() == play.now
    assert play.tick() == ["open 3 for 1"]


def test_an_extra_connection_stays_instead_of_one_that_is_down() -> None:
    """A loose pool that has one too many closes one that is lost, or hangs, and not the only one that is up."""
    play = Play(min_size=1, max_size=1, mode=Mode.LOOSE)
    play.filled(None, None)
    play.release(1)
    play.lost(1)
    play.tick(3.0)
    assert play.release(2) == ["closed 1: lost", "close 1"]
    assert play.states() == {2: "ready"}
    play.request(None)
    play.request(None)
    assert play.states() == {2: "ready", 3: "opening"}
    play.release(2)
    play.opened(3)
    play.release(3)
    assert play.stats.ready == 1


def test_an_extra_connection_stays_instead_of_a_dial_that_hangs() -> None:
    """Nothing was asked for meanwhile: the pool was to be ready, and stays so."""
    play = Play(max_size=1, mode=Mode.LOOSE)
    assert _connect(play) == ["open 1"]
    play.tick(1.0)
    assert _connect(play) == ["open 2"]
    assert play.opened(2) == ["close 1"]
    assert play.states() == {2: "ready"}


def test_an_extra_connection_stays_instead_of_a_dial_that_nothing_waits_for() -> None:
    """It was ready first, and served both callers. The next one finds it ready."""
    play = Play(max_size=1, mode=Mode.LOOSE)
    assert play.request(None) == ["open 1"]
    assert play.request(None) == ["open 2"]
    assert play.opened(2) == ["grant 2"]
    assert play.release(2) == ["grant 2"]
    assert play.release(2) == ["close 1"]
    assert play.states() == {2: "ready"}
    assert play.request(None) == ["grant 2"]


def test_an_extra_connection_goes_if_the_other_still_carries_calls() -> None:
    """What is lost may carry calls that wait for it to come back: nobody is cut off."""
    play = Play(min_size=1, max_size=1, mode=Mode.LOOSE)
    play.filled(None, None)
    play.lost(1)
    assert play.release(2) == ["closed 2: overflow", "close 2"]
    assert play.states() == {1: "lost"}


def test_connect_brings_back_what_was_lost() -> None:
    """A user who waits for the pool to be ready does not wait for a request of another."""
    play = _unneeded(min_size=0)
    play.discard(2)
    play.tick()
    assert _connect(play) == ["watch 1"]
    assert play.machine.outage.which_are_needed(play.now)(play[1])
    assert play.tick() == ["open 3 for 1"]
    assert _connect(play) == []
    play.opened(3)
    assert _connect(play) == []


def test_connect_dials_beside_what_drains() -> None:
    """A connection that drains serves nobody who comes now."""
    play = Play(max_size=1)
    play.filled(1)
    play.acquire(1)
    play.discard(1, 1)
    assert play.states() == {1: "draining"}
    assert _connect(play) == ["open 2"]


def test_connect_takes_back_what_drains_only_because_there_were_too_many() -> None:
    """Then there is nothing to wait for."""
    play = Play(max_size=2)
    play.filled(None, None)
    play.resize(0, 1)
    play.discard(2 if play[1].state == "draining" else 1)
    play.tick()
    assert list(play.states().values()) == ["draining"]
    assert _connect(play) == []
    assert list(play.states().values()) == ["ready"]


def test_connect_dials_beside_a_dial_that_hangs() -> None:
    """As for a request; and one at a time."""
    play = Play()
    assert _connect(play) == ["open 1"]
    play.tick(0.9)
    assert _connect(play) == []
    play.tick(0.1)
    assert _connect(play) == ["open 2"]
    assert _connect(play) == []


# --- what is not needed is not replaced -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["refresh", "max_age"])
def test_what_is_due_and_not_needed_is_closed(how: str) -> None:
    """A lost connection of an unused pool gets no successor, when it has reached its age or at a `refresh`."""
    play = Play(max_size=2, max_age=5.0)
    play.filled(None)
    play.release(1)
    play.lost(1)
    play.tick(1.0)
    words = play.refresh() if how == "refresh" else play.tick(4.0)
    assert words == [f"closed 1: {'refresh' if how == 'refresh' else 'age'}", "close 1"]
    assert play.states() == {}
    assert play.machine.next_deadline() == math.inf


def test_what_is_due_and_needed_is_replaced() -> None:
    """A lost connection that `min_size` needs has a successor dialled."""
    play = Play(min_size=1, max_age=5.0)
    play.filled(None)
    play.release(1)
    play.lost(1)
    assert play.refresh() == ["open 2 for 1"]


@pytest.mark.parametrize("first", ["block", "resize"])
def test_what_may_be_down_is_not_taken_back(first: str) -> None:
    """A connection that is being checked drains: it gets no calls until it is known to be up."""
    play = Play(max_size=2)
    play.filled(None, None)
    if first == "block":
        play.blocked(1)
    play.resize(0, 1)
    if first == "resize":
        play.blocked(1)
    assert play[1].state == "draining"
    play.resize(0, 2)
    assert "open 3" in play.request(1)
    assert play[1].state == "draining"
