"""What becomes of calls and waiters while no connection is up, and which limits servers show."""

from __future__ import annotations

import math

from machine.play import START, Play

# --- nothing is up ----------------------------------------------------------------------------------------------


def test_a_fail_fast_call_is_refused_when_dialling_fails() -> None:
    """A fail-fast call waits while something is being dialled, and fails with the connect error when that fails."""
    play = Play()
    assert play.request(1, fail_fast=True) == ["open 1"]
    error = ConnectionError("no route")
    assert play.failed(1, error) == ["close 1", "refuse open_failed"]
    assert play.refusal.cause is error
    assert play.request(1, fail_fast=True) == ["refuse open_failed"]
    play.now += 0.1
    assert play.request(1, fail_fast=True) == ["open 2"]


def test_a_wait_for_ready_call_waits() -> None:
    """A wait-for-ready call is not refused when dialling fails, and is served when it succeeds."""
    play = Play()
    play.request(1)
    assert play.failed(1) == ["close 1"]
    assert play.tick_in_time() == ["open 2"]
    assert play.opened(2) == ["grant 2"]


def test_while_another_dial_runs_no_waiter_is_refused() -> None:
    """While one of two attempts is still under way, the failure of the other refuses no waiter."""
    play = Play(min_size=2)
    play.request(1, fail_fast=True)
    assert play.failed(1) == ["close 1"]
    assert play.failed(2) == ["close 2", "refuse open_failed"]


def test_a_lost_connection_gets_nothing_while_another_is_up() -> None:
    """A connection that is down is not picked while another is up, whatever their loads."""
    play = Play(max_size=2)
    play.filled(None, None)
    play.release(1)
    play.release(2)
    assert play.lost(1) == ["watch 1"]
    assert [play.request(1, fail_fast=True)[0] for _ in range(2)] == ["grant 2", "grant 2"]
    assert play.request(1, fail_fast=True) == ["watch 1"]
    assert play.recovered(1) == ["grant 1"]


def test_a_lost_connection_keeps_what_it_carries() -> None:
    """A lost connection keeps its calls, still counts against `max_size`, and serves waiters when it recovers."""
    play = Play(max_size=1)
    play.filled(1)
    play.lost(1)
    assert (play[1].in_flight, play.machine.fleet.slots.connections) == (1, 1)
    assert play.request(1) == []
    assert play.release(1, 1) == []
    assert play.recovered(1) == ["grant 1"]


def test_when_all_are_lost_a_fail_fast_call_goes_to_a_lost_one() -> None:
    """When nothing is up, a fail-fast call goes to the least loaded lost connection, whose error it then gets."""
    play = Play(max_size=2)
    play.filled(None, None)
    play.release(2)
    play.request(1)
    play.lost(1)
    play.lost(2)
    assert play.request(1) == []
    assert play.request(1, fail_fast=True) == ["grant 2"]


def test_the_loss_of_the_last_one_moves_fail_fast_waiters_to_it() -> None:
    """When the last connection is lost, fail-fast waiters are put on it as far as there is room."""
    play = Play(max_size=1)
    play.filled(1, 1)
    play.request(1, fail_fast=True)
    play.lost(1)
    assert play.release(1, 1) == ["grant 1"]


def test_the_discard_of_the_last_ready_one_moves_fail_fast_waiters() -> None:
    """When the last ready connection is discarded, a fail-fast waiter is put on a lost one with room."""
    play = Play(max_size=2)
    play.filled(None, None)
    play.lost(2)
    play.release(2)
    play.request(1, fail_fast=True)
    assert "grant 2" in play.discard(1)


def test_a_discard_during_backoff_refuses_fail_fast_waiters() -> None:
    """When nothing is up and backoff forbids dialling, a fail-fast waiter is refused at once."""
    play = Play(max_size=2)
    play.filled(None)
    play.request(None, fail_fast=True)
    play.failed(2)
    assert "refuse open_failed" in play.discard(1)


def test_after_a_refused_call_the_pool_still_fills_to_min_size() -> None:
    """The first call after a failed `open()` is refused during the backoff, but the pool dials again by itself."""
    play = Play(min_size=1)
    play.open()
    play.failed(1)
    assert play.request(1, fail_fast=True) == ["refuse open_failed"]
    assert play.machine.next_deadline() == START + 0.1
    assert play.tick_in_time() == ["open 2"]


def test_loss_and_recovery_in_other_states_do_nothing() -> None:
    """Reporting the loss of a slot that is not ready, or the recovery of one that is not lost, does nothing."""
    play = Play(max_size=1)
    play.request(None)
    assert (play.lost(1), play.recovered(1)) == ([], [])
    play.opened(1)
    assert play.recovered(1) == []
    play.discard(1)
    assert (play.lost(1), play.recovered(1)) == ([], [])


def test_a_refused_stream_lowers_the_limit() -> None:
    """After a refusal the slot's limit is what it still carries; further waiters get another connection."""
    play = Play(max_size=2, max_streams=4, target_streams=4)
    play.filled(1, 1, 1)
    assert play.refused_stream(1) == []
    assert (play[1].limit, play[1].in_flight, play.stats.refused_streams) == (2, 2, 1)
    assert play.request(1) == ["open 2"]
    assert play.opened(2) == ["grant 2"]


def test_a_lowered_limit_grows_back_step_by_step() -> None:
    """After a refusal the limit grows back slowly, and each step serves a waiter."""
    play = Play(max_size=1, max_streams=3, target_streams=3)
    play.filled(1, 1)
    play.refused_stream(1)
    assert play.request(1) == []
    assert play.tick(0.25) == []
    assert play.tick(0.25) == ["grant 1"]
    assert play[1].limit == 2
    assert play.tick_in_time() == []
    assert (play[1].limit, play.machine.next_deadline()) == (3, math.inf)


def test_a_lone_call_that_is_refused_lowers_no_limit() -> None:
    """A server that refuses a call that is alone sheds load: a lower limit would not help, nor another connection."""
    play = Play(max_size=2, target_streams=2)
    play.filled(1)
    play.refused_stream(1)
    assert (play[1].limit, play[1].recent_failures, play.stats.refused_streams) == (2, 1, 1)
    assert play.request(1) == ["grant 1"]


def test_a_server_that_sheds_load_has_its_limits_back() -> None:
    """After several refusals of lone calls, apart, the limits are taken back, and not lowered for a while."""
    play = Play(max_size=1, max_streams=20, target_streams=20)
    play.filled(*[1] * 12)
    for _ in range(11):
        play.refused_stream(1)
    limits = []
    for _ in range(3):
        play.now += 0.05
        play.refused_stream(1)
        limits.append(play[1].limit)
        assert play.request(1) == ["grant 1"]
    assert limits == [1, 1, 20]
    for _ in range(5):
        play.request(1)
    play.refused_stream(1)
    assert play[1].limit == 20
    play.now += 31.0
    play.refused_stream(1)
    assert play[1].limit == 4


def test_lone_refusals_in_a_burst_count_as_one() -> None:
    """A server that cleans up what was cancelled may refuse some calls that come at once."""
    play = Play(max_size=1, max_streams=20, target_streams=20)
    play.filled(*[1] * 4)
    for _ in range(3):
        play.refused_stream(1)
    for _ in range(5):
        play.refused_stream(1)
        play.request(1)
    assert play[1].limit == 1


def test_in_doubt_what_min_size_misses_is_opened() -> None:
    """A refusal does not hold up what the pool has to have in any case."""
    play = Play(min_size=2, max_size=2, max_streams=20, target_streams=20)
    play.open()
    play.opened(1, 2)
    play.request(1)
    play.request(1)
    assert "open 3" in play.discard(2, 1)
    play.failed(3)
    retry_at = play.machine.next_deadline()
    play.now = retry_at - 0.0625
    play.refused_stream(1)
    assert play.machine.next_deadline() == retry_at
    assert play.tick_in_time() == ["open 4"]


def test_in_doubt_nothing_is_opened_for_waiters() -> None:
    """After a refusal at light load it is open whether another connection would help; soon it is opened in any case."""
    play = Play(max_size=2, max_streams=20, target_streams=20)
    play.filled(*[1] * 6)
    play.refused_stream(1)
    assert play.request(1) == []
    assert play.tick(0.0625) == []
    assert play.tick(0.0625) == ["open 2"]


def test_unfit() -> None:
    """A grant on a connection that turns out to be down is taken back, uncounted, and the connection is lost."""
    play = Play(max_size=1)
    play.filled(1)
    play.release(1, 1)
    play.request(1)
    assert play.unfit(1, 1) == ["watch 1"]
    assert (play[1].state, play[1].in_flight, play.stats.acquired) == ("lost", 0, 1)
    assert play.request(1) == ["watch 1"]
    assert play.recovered(1) == ["grant 1"]


def test_a_wait_counts_once() -> None:
    """A lease that gets a connection that turns out to be down waits on; all its wait counts, and none of it twice."""
    play = Play(max_size=1)
    play.filled(None)  # It has waited, too.
    play.request(None)
    waiter, since = play.waiter, play.waiter.since
    play.now += 1.0
    assert play.release(1) == ["grant 1"]
    assert (play.stats.acquired, play.stats.waited, play.stats.wait_seconds) == (2, 2, 1.0)
    play.unfit(1, None, waiter)
    assert (play.stats.acquired, play.stats.waited, play.stats.wait_seconds) == (1, 1, 0.0)
    play.request(None)
    play.waiter.since = since
    play.now += 1.0
    assert play.recovered(1) == ["grant 1"]
    assert (play.stats.acquired, play.stats.waited, play.stats.wait_seconds) == (2, 2, 2.0)


def test_the_limit_of_a_channel_that_carried_calls_before_it_was_up() -> None:
    """A new connection gets the limit of the others, but never less than the calls that it carries already."""
    play = Play(max_size=2, max_streams=4, target_streams=4)
    play.filled(None)
    play.did(play.recorder.effects(play.machine.note_refusal, play[1], 2, play.now, play.now))
    play.lost(1)
    for _ in range(3):
        play.request(1, fail_fast=True)
    play.did(play.recorder.effects(play.machine.unreachable, play[2], object(), ConnectionError("no"), play.now))
    assert (play[2].state, play[2].in_flight) == ("lost", 3)
    play.recovered(1)
    assert (play[1].state, play[1].limit) == ("ready", 1)
    play.recovered(2)
    assert (play[2].state, play[2].in_flight, play[2].limit) == ("ready", 3, 3)
