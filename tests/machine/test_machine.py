"""Grants, waits and refusals, and how a pool opens and closes, tested as events in and effects out.

Unless a test says otherwise, `max_streams` is 2, `target_streams` is 1, `min_size` is 0, `max_size` is 3, and no
connection is closed for being idle. Slots are numbered from 1 in order of dialling.
"""

from __future__ import annotations

import datetime as dt
import math

import pytest

from grpcpool import Mode
from grpcpool._machine.effects import Grant, Notify
from grpcpool._machine.queue import Waiter
from grpcpool._values.errors import Refusal
from grpcpool.events import Granted, Opened, OpenFailed, Opening, Rejected, TimedOut
from machine.play import START, Play


def granted(play: Play) -> list[Waiter]:
    """The waiters that the last event granted, in order."""
    return [effect.waiter for effect in play.effects if isinstance(effect, Grant)]


# --- acquire and release ----------------------------------------------------------------------------------------


def test_an_unused_pool_does_nothing() -> None:
    """A pool opens nothing before the first request."""
    play = Play(min_size=3)
    assert play.acquire(1) is None
    assert play.tick(100.0) == []
    assert play.machine.next_deadline() == math.inf
    assert play.resize(2, 3) == []


def test_an_uncontended_acquire_and_release_have_no_effects() -> None:
    """An uncontended acquire and release produce no effect and leave the counts as they were."""
    play = Play(max_size=1)
    play.filled(1)
    assert play.acquire(1) is play[1]
    assert play[1].in_flight == 2
    assert play.release(1, 1) == []
    assert play.release(1, 1) == []
    assert (play[1].in_flight, play.machine.places.load) == (0, 0)


def test_the_first_ready_connection_serves_in_order_of_arrival() -> None:
    """A connection that becomes ready serves waiters first come, first served, as far as it has room."""
    play = Play(max_size=1)
    waiters = []
    for _ in range(3):
        play.request(1)
        waiters.append(play.waiter)
    assert play.opened(1) == ["grant 1", "grant 1"]
    assert granted(play) == waiters[:2]
    play.release(1, 1)
    assert granted(play) == waiters[2:]


def test_unequal_requests_do_not_block_each_other() -> None:
    """A call that fits overtakes a waiter for a whole connection, which gets the next one that becomes empty."""
    play = Play(max_size=2, max_streams=3)
    play.filled(1, 1, 1)
    assert play.request(None) == []
    assert play.request(1) == ["grant 1"]
    assert play.release(1, 1) == []
    assert play.release(2, 1) == ["grant 2"]


def test_several_streams() -> None:
    """Several streams of one connection are granted together or not at all."""
    play = Play(max_size=2, max_streams=3, target_streams=3)
    play.filled(2, 2)
    assert play.request(2) == []
    assert play.acquire(1) is play[2]
    assert play.release(2, 1) == []
    assert play.release(2, 2) == ["grant 2"]
    assert play[2].in_flight == 2


def test_a_large_ask_has_a_slot_reserved() -> None:
    """The oldest waiter, if it asks for much, gets a slot that takes nothing new until it has emptied far enough."""
    play = Play(max_size=1, max_streams=3)
    play.filled(1, 1)
    assert play.request(2) == []
    assert play.acquire(1) is None
    assert play.request(1) == []
    assert play.release(1, 1) == ["grant 1"]
    assert play.release(1, 1) == ["grant 1"]
    assert play[1].in_flight == 3


@pytest.mark.parametrize("limit_is_known", [True, False])
def test_an_ask_for_more_than_a_server_takes_holds_up_no_other(limit_is_known: bool) -> None:
    """A server has lowered the limit below an older ask: the next large one has the slot reserved, and is granted."""
    play = Play(max_size=1, max_streams=10)
    play.filled(*[1] * 8)

    def lower() -> None:
        while play[1].limit > 4:
            play.refused_stream(1)

    if limit_is_known:
        lower()
    assert play.request(5) == []
    older = play.waiter
    if not limit_is_known:
        lower()
    assert play.request(None) == []
    assert play[1].reserved
    while play[1].in_flight > 1:
        assert play.release(1, 1) == []
        assert play.acquire(1) is None
    assert play.release(1, 1) == ["grant 1"]
    assert play[1].exclusive
    assert older.queued


def test_a_reservation_ends_with_its_waiter() -> None:
    """When the waiter gives up, or times out, others get what was kept for it."""
    play = Play(max_size=1, max_streams=3)
    play.filled(1)
    play.request(None)
    large = play.waiter
    assert play.request(1, wait=1.0) == []
    assert play.cancel(large) == (True, ["grant 1"])
    assert play.request(None, wait=1.0) == []
    assert play.request(1) == []
    assert play.tick(1.0) == ["refuse timeout", "grant 1"]


def test_a_reservation_moves_on_with_a_loss() -> None:
    """If the reserved slot goes down, another is reserved."""
    play = Play(max_size=2, max_streams=3)
    play.filled(1, 1, 1)
    play.request(None)
    assert (play[1].reserved, play[2].reserved) == (False, True)
    play.lost(2)
    assert (play[1].reserved, play[2].reserved) == (True, False)
    assert play.release(1, 1) == []
    assert play.release(1, 1) == ["grant 1"]


def test_a_reserved_slot_that_is_lost_serves_calls_that_would_rather_fail() -> None:
    """A slot that is down is kept for nothing: calls that would rather fail than wait do so on it."""
    play = Play(max_size=1, max_streams=3)
    play.filled(1)
    play.request(None)
    assert play.request(1, fail_fast=True) == []
    assert play.lost(1) == ["watch 1", "grant 1"]


def test_a_whole_connection_passes_from_a_lease_to_the_next() -> None:
    """While all connections are leased whole, nothing is reserved: the next one released is for the oldest waiter."""
    play = Play(max_size=2, max_streams=3)
    play.filled(None, None)
    assert (play.request(None), play.request(1), play.request(None)) == ([], [], [])
    assert play.release(1) == ["grant 1"]
    assert not any(slot.reserved for slot in play.slots.values())
    # One stream of it is granted, and the rest is kept for the last waiter.
    assert play.release(2) == ["grant 2"]
    assert (play[1].reserved, play[2].reserved) == (False, True)


def test_a_reservation_ends_if_its_waiter_gets_another_connection() -> None:
    """A whole connection passes to the waiter for which another slot is reserved: that takes calls again."""
    play = Play(max_size=2, max_streams=3)
    play.filled(None, 1)
    assert play.request(None) == []
    assert play[2].reserved
    assert play.request(1) == []
    assert play.release(1) == ["grant 1", "grant 2"]
    assert not play[2].reserved


def test_nothing_is_reserved_while_something_is_dialled() -> None:
    """A new connection is as good as a reserved one, and costs the calls nothing."""
    play = Play(max_size=2, max_streams=3)
    play.filled(1)
    assert play.request(None) == ["open 2"]
    assert play.acquire(1) is play[1]
    assert play.opened(2) == ["grant 2"]


def test_a_whole_lease_is_alone() -> None:
    """Nothing is granted beside a whole lease, and a whole lease is not granted on a connection with calls."""
    play = Play(max_size=1)
    play.filled(None)
    assert play.acquire(1) is None
    assert play.request(1) == []
    assert play.release(1) == ["grant 1"]
    assert play.request(None) == []
    assert not play[1].exclusive


def test_discard_closes_at_once_or_with_the_last() -> None:
    """A discarded connection takes nothing new, and closes at once or when the other calls on it have ended."""
    play = Play(max_size=1)
    play.filled(1, 1)
    assert play.discard(1, 1) == ["draining 1: discarded"]
    assert play.request(1) == ["open 2"]
    assert play.release(1, 1) == ["closed 1: discarded", "close 1"]


def test_discard_dials_for_a_waiter() -> None:
    """A discard makes room for another connection, which is dialled for the waiter."""
    play = Play(max_size=1)
    play.filled(None)
    play.request(None)
    assert play.discard(1) == ["closed 1: discarded", "close 1", "open 2"]


# --- waiting ----------------------------------------------------------------------------------------------------


def test_timeout() -> None:
    """A waiter is refused at its deadline, not before, and a tick is due then."""
    play = Play(max_size=1)
    play.filled(None)
    play.request(None, wait=2.0)
    assert play.machine.next_deadline() == START + 2.0
    assert play.tick(1.9) == []
    assert play.tick(0.1) == ["refuse timeout"]
    assert (play.refusal.waiter, play.refusal.refusal) == (play.waiter, Refusal.TIMEOUT)
    assert play.refusal.figures.waited == pytest.approx(2.0)
    assert play.release(1) == []


def test_without_time_to_wait_it_is_refused_but_dialled_for() -> None:
    """A request with no time to wait is refused at once without room, though a dial starts; with room it is granted."""
    play = Play(max_size=1)
    assert play.request(None, wait=0.0) == ["open 1", "refuse timeout"]
    assert play.stats.waiting == 0
    play.opened(1)
    assert play.request(None, wait=0.0) == ["grant 1"]
    assert play.request(None, wait=0.0) == ["refuse timeout"]
    assert play.stats.timeouts == 2


def test_max_waiters() -> None:
    """Beyond `max_waiters` a request is refused at once, unless there is room for it."""
    play = Play(max_size=2, max_streams=3, max_waiters=1)
    play.filled(1, 1, 1)
    assert play.request(None) == []
    assert play.request(None) == ["refuse exhausted"]
    assert play.request(1) == ["grant 1"]
    assert play.stats.rejected == 1


def test_without_a_queue_a_pool_still_dials() -> None:
    """With `max_waiters=0` and `min_size=0` a request is refused, but starts a dial: the next one finds room."""
    play = Play(max_waiters=0)
    assert sorted(play.request(1)) == ["open 1", "refuse exhausted"]
    play.opened(1)
    assert play.request(1)[0] == "grant 1"


def test_cancel_says_whether_the_waiter_was_queued() -> None:
    """`cancel` says whether the waiter was still queued; if not, the driver must release what it was granted."""
    play = Play(max_size=1)
    play.request(None)
    assert play.cancel() == (True, [])
    assert play.cancel() == (False, [])
    play.opened(1)
    play.request(None)
    assert play.cancel() == (False, [])
    assert play[1].in_flight == 1


def test_cancelled_waiters_are_not_served() -> None:
    """A cancelled waiter is skipped and no longer counts."""
    play = Play(max_size=1)
    play.filled(None)
    play.request(None, wait=1.0)
    gone = play.waiter
    play.request(None)
    play.cancel(gone)
    play.release(1)
    assert granted(play) == [play.waiter]
    assert play.tick(1.0) == []


def test_waiting_is_counted() -> None:
    """A grant after a wait is counted with its seconds, and listeners are notified."""
    play = Play(max_size=1)
    play.filled(None)
    play.request(None)
    play.now += 3.0
    play.release(1)
    assert (play.stats.acquired, play.stats.waited, play.stats.wait_seconds) == (2, 2, 3.0)
    events = [effect.event for effect in play.effects if isinstance(effect, Notify)]
    assert events == [Granted(pool="pool", channel=1, waited=3.0)]


def test_without_listeners_a_grant_emits_no_event() -> None:
    """A pool without listeners creates no events of grants, which nothing else needs."""
    play = Play(max_size=1)
    play.filled(None)
    play.request(None)
    play.machine.grants.has_listeners = False
    assert play.release(1) == ["grant 1"]
    assert len(play.effects) == 1
    assert play.stats.waited == 2


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
    assert (play[1].limit, play[1].avoided_for, play.stats.refused_streams) == (2, 1, 1)
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
    play.did(play.recorder.effects(play.machine.crowded, play[1], 2, play.now, play.now))
    play.lost(1)
    for _ in range(3):
        play.request(1, fail_fast=True)
    play.did(play.recorder.effects(play.machine.unreachable, play[2], object(), ConnectionError("no"), play.now))
    assert (play[2].state, play[2].in_flight) == ("lost", 3)
    play.recovered(1)
    assert (play[1].state, play[1].limit) == ("ready", 1)
    play.recovered(2)
    assert (play[2].state, play[2].in_flight, play[2].limit) == ("ready", 3, 3)


# --- connecting -------------------------------------------------------------------------------------------------


def test_connect_timeout() -> None:
    """A connection not ready within `connect_timeout` has failed; if it is ready later, it is closed."""
    play = Play(connect_timeout=0.5)
    play.request(1, fail_fast=True)
    assert play.machine.next_deadline() == START + 0.5
    assert play.tick(0.5) == ["close 1", "refuse open_failed"]
    assert isinstance(play.refusal.cause, TimeoutError)
    assert play.failed(1) == []
    assert play.opened(1) == ["close 1"]
    assert play.stats.open_failures == 1


def test_connect_dials_one() -> None:
    """`connect()` dials one connection, or `min_size`, and none if the pool has or dials one already."""
    play = Play()
    assert play.did(play.recorder.effects(play.machine.connect, play.now)) == ["open 1"]
    assert play.did(play.recorder.effects(play.machine.connect, play.now)) == []
    other = Play(min_size=2)
    assert other.did(other.recorder.effects(other.machine.connect, other.now)) == ["open 1", "open 2"]
    other.close()
    assert other.did(other.recorder.effects(other.machine.connect, other.now)) == []


def test_events_of_dialling() -> None:
    """Listeners get dials, successes with their duration, and failures with the seconds to the next attempt."""
    play = Play()
    events = []
    error = ConnectionError("no")

    def note() -> None:
        events.extend([effect.event for effect in play.effects if isinstance(effect, Notify)])

    play.request(1, wait=0.0)
    note()
    play.now += 2.0
    play.failed(1, error)
    note()
    play.tick(1.0)
    play.request(1)
    note()
    play.now += 0.5
    play.opened(2)
    note()
    assert events == [
        Opening(pool="pool", channel=1),
        TimedOut(pool="pool", waited=0.0),
        OpenFailed(pool="pool", channel=1, error=error, retry_in=0.1),
        Opening(pool="pool", channel=2),
        Opened(pool="pool", channel=2, seconds=0.5),
        Granted(pool="pool", channel=2, waited=0.5),
    ]


def test_the_event_of_a_rejection() -> None:
    """When a request is rejected, listeners get the number of waiters."""
    play = Play(max_size=1, max_waiters=1)
    play.filled(None)
    play.request(None)
    play.request(None)
    events = [effect.event for effect in play.effects if isinstance(effect, Notify)]
    assert events == [Rejected(pool="pool", waiting=1)]


# --- open() -----------------------------------------------------------------------------------------------------


def test_open_waits_for_min_size() -> None:
    """`open()` dials `min_size` connections and is answered when the last is ready."""
    play = Play(min_size=2)
    play.open()
    assert play.states() == {1: "opening", 2: "opening"}
    assert play.opened(2) == []
    assert play.opened(1) == ["started"]


def test_open_of_an_open_pool() -> None:
    """`open()` of a pool that has `min_size` connections is answered at once."""
    play = Play(min_size=1)
    play.filled(1)
    play.open()
    assert [type(effect).__name__ for effect in play.effects] == ["Started"]


def test_open_of_a_pool_that_is_down() -> None:
    """While a connection is lost, `open()` waits for `min_size` that are ready, whatever fails meanwhile."""
    play = Play(min_size=1, connect_timeout=10.0)
    play.filled(1)
    play.lost(1)
    play.open(wait=5.0)
    assert play.effects == []
    assert "open 2 for 1" in play.tick(2.0)
    assert "close 2" in play.failed(2)
    play.open()
    assert play.recovered(1) == ["started", "started"]


def test_open_of_a_pool_that_stays_down() -> None:
    """It fails at its deadline, without one after `connect_timeout`, with the last error. It closes nothing."""
    play = Play(min_size=1, connect_timeout=10.0)
    play.filled(1)
    play.lost(1)
    play.open()
    play.open(wait=5.0)
    play.tick(2.0)
    play.failed(2, ConnectionError("refused again"))
    assert play.tick(2.9) == ["open 3 for 1"]
    assert play.tick(0.1) == ["refuse open_failed"]
    assert play.tick(4.9) == []
    assert play.tick(0.1) == ["refuse open_failed"]
    assert str(play.refusal.cause) == "refused again"
    assert play.states() == {1: "lost", 3: "opening"}


def test_what_was_opened_may_be_lost_at_once() -> None:
    """`open()` waits for one that was ready, and is lost before the others are ready."""
    play = Play(min_size=2, connect_timeout=10.0)
    play.open()
    play.opened(1)
    play.lost(1)
    assert play.opened(2) == []
    assert play.recovered(1) == ["started"]


@pytest.mark.parametrize("min_size", [0, 1])
def test_open_does_not_wait_for_what_others_need(min_size: int) -> None:
    """With `min_size` ready, `open()` is answered at once; it does not wait for a dial that others need."""
    play = Play(min_size=min_size)
    play.filled(*[None] * min_size)
    play.request(None)
    assert play.states()[min_size + 1] == "opening"
    play.open()
    assert [type(effect).__name__ for effect in play.effects] == ["Started"]


def test_open_without_min_size() -> None:
    """`open()` with `min_size=0` opens nothing and is answered at once."""
    play = Play()
    play.open()
    assert [type(effect).__name__ for effect in play.effects] == ["Started"]


def test_a_failed_open_closes_what_it_opened() -> None:
    """When a dial fails, `open()` is refused with its error, all it opened is closed, and nothing is dialled again."""
    play = Play(min_size=3)
    waiter = play.open()
    play.opened(1)
    error = ConnectionError("no")
    assert sorted(play.failed(2, error)) == [
        "close 1",
        "close 2",
        "close 3",
        "closed 1: discarded",
        "refuse open_failed",
    ]
    assert (play.refusal.waiter, play.refusal.cause) == (waiter, error)
    assert play.tick(100.0) == []
    assert play.states() == {}


def test_open_may_be_tried_again() -> None:
    """After a failed `open()` another may succeed."""
    play = Play(min_size=1)
    play.open()
    play.failed(1)
    play.now += 1.0
    play.open()
    assert play.opened(2) == ["started"]


def test_two_opens_share() -> None:
    """Two concurrent calls of `open()` wait for the same connections, and both are answered."""
    play = Play(min_size=1)
    first = play.open()
    second = play.open()
    assert play.states() == {1: "opening"}
    assert play.opened(1) == ["started", "started"]
    assert first is not second


def test_two_opens_fail_together() -> None:
    """Two concurrent calls of `open()` are both refused when one of their connections fails."""
    play = Play(min_size=2)
    play.open()
    play.open()
    assert play.failed(1).count("refuse open_failed") == 2
    assert play.states() == {}


def test_one_of_two_opens_gives_up() -> None:
    """When one `open()` gives up, connections that another `open()` waits for are not closed."""
    play = Play(min_size=1)
    first = play.open()
    play.open()
    assert play.cancel(first) == (True, [])
    assert play.cancel(first) == (False, [])
    assert play.opened(1) == ["started"]


def test_open_times_out() -> None:
    """`open()` is refused at its deadline, and what it opened is closed."""
    play = Play(min_size=2)
    play.open(wait=0.5)
    play.opened(1)
    assert play.machine.next_deadline() == START + 0.5
    assert sorted(play.tick(0.5)) == ["close 1", "close 2", "closed 1: discarded", "refuse open_failed"]
    assert play.opened(2) == ["close 2"]


def test_a_cancelled_open_leaves_the_pool_as_it_was() -> None:
    """A cancelled `open()` leaves the pool as it was before the call."""
    play = Play(min_size=1, idle_timeout=10.0)
    waiter = play.open()
    assert play.cancel(waiter) == (True, ["close 1"])
    assert play.tick(1000.0) == []
    assert play.machine.next_deadline() == math.inf


def test_a_cancelled_open_takes_nothing_from_a_request() -> None:
    """A connection being dialled for a request is not closed when an `open()` gives up."""
    play = Play(min_size=1)
    play.request(1)
    waiter = play.open()
    assert play.cancel(waiter) == (True, [])
    assert play.opened(1) == ["grant 1"]


def test_resize_may_complete_an_open() -> None:
    """`open()` does not wait for a connection that a resize gave up."""
    play = Play(min_size=2)
    play.open()
    play.opened(1)
    assert play.resize(1, 1) == ["close 2", "started"]


# --- the cause of a refusal -------------------------------------------------------------------------------------


def test_a_past_loss_is_not_the_cause() -> None:
    """A refusal while a connection is down has the loss as its cause; once the connection is up again, it has none."""
    play = Play(max_size=1)
    play.filled(None)
    error = ConnectionError("reset")
    play.did(play.recorder.effects(play.machine.lost, play[1], error, play.now))
    play.request(None, wait=0.0)
    assert play.refusal.cause is error
    play.recovered(1)
    play.request(None, wait=0.0)
    assert play.refusal.cause is None


def test_a_past_failure_is_not_the_cause() -> None:
    """A refusal after a failed dial has that failure as its cause; once another dial succeeded, it has none."""
    play = Play(max_size=1)
    play.request(None)
    error = ConnectionError("refused")
    play.failed(1, error)
    play.request(None, wait=0.0)
    assert play.refusal.cause is error
    play.tick(after=1.0)
    play.opened(2)
    play.request(None, wait=0.0)
    assert play.refusal.cause is None


# --- close ------------------------------------------------------------------------------------------------------


def test_close_refuses_waiters_and_closes_what_is_idle() -> None:
    """`close()` refuses waiters and openers, closes what is idle or being dialled, and needs no more ticks."""
    play = Play(min_size=2, max_size=2)
    play.request(None)
    play.opened(1)
    play.request(None)
    play.open()
    closed = ["close 1", "close 2", "closed 1: pool_closed", "draining 1: pool_closed"]
    assert sorted(play.close()) == [*closed, "refuse closed", "refuse closed"]
    assert play.stats.in_flight == 0
    assert play.machine.next_deadline() == math.inf


def test_close_with_grace() -> None:
    """With a grace, a connection in use closes when its last lease ends, and at the end of the grace at the latest."""
    play = Play()
    play.filled(None, None)
    assert play.close(grace=5.0) == ["draining 1: pool_closed", "draining 2: pool_closed"]
    assert play.release(1) == ["closed 1: pool_closed", "close 1"]
    assert play.machine.next_deadline() == START + 5.0
    assert play.tick(4.9) == []
    assert play.tick(0.1) == ["closed 2: pool_closed", "close 2"]
    assert play.machine.next_deadline() == math.inf


def test_the_grace_also_bounds_slots_already_draining() -> None:
    """A slot already draining is closed at the end of the grace, or at its own deadline if that is earlier."""
    play = Play(drain_timeout=10.0)
    play.filled(1, 1)
    play.did(play.recorder.effects(play.machine.fleet.retire, play[1], play[1].reason, play.now))
    play.close(grace=5.0)
    assert play.machine.next_deadline() == START + 5.0
    assert play.tick(5.0) == ["closed 1: age", "close 1"]


def test_a_later_close_only_brings_the_end_forward() -> None:
    """A second close may end the grace earlier, but never extends it."""
    play = Play()
    play.filled(None)
    play.close(grace=5.0)
    assert play.close(grace=50.0) == []
    assert play.machine.next_deadline() == START + 5.0
    assert play.close() == ["closed 1: pool_closed", "close 1"]
    assert play.close() == []


def test_nothing_begins_after_close() -> None:
    """After close every request is refused, and nothing is dialled."""
    play = Play(min_size=1)
    play.filled(1)
    play.close(grace=5.0)
    assert play.acquire(1) is None
    assert play.request(1) == ["refuse closed"]
    play.open()
    assert play.refusal.refusal is Refusal.CLOSED
    assert (play.resize(2, 3), play.refresh(), play.lost(1)) == ([], [], [])
    assert play.discard(1, 1) == ["closed 1: pool_closed", "close 1"]
    assert play.tick(100.0) == []


def test_what_comes_up_after_close_is_closed() -> None:
    """A connection that becomes ready after the close is closed; a failure after the close does nothing."""
    play = Play(min_size=2)
    play.request(1)
    play.close()
    assert play.opened(1) == ["close 1"]
    assert play.failed(2) == []
    assert play.stats.opened == 0


def test_late_releases_are_harmless() -> None:
    """Releases, discards and losses of slots closed by force do nothing and change no count."""
    play = Play()
    play.filled(None, None)
    play.close()
    before = play.stats
    assert (play.release(1), play.discard(2), play.unfit(2)) == ([], [], [])
    assert (play[1].in_flight, play[2].in_flight, play.machine.places.load) == (0, 0, 0)
    assert (before.size, play.stats.size) == (0, 0)


def test_closed_while_dialling_needs_no_more_ticks() -> None:
    """A closed and empty pool has no next deadline, even if its connection was still being dialled."""
    play = Play(idle_timeout=10.0)
    play.request(1)
    play.close()
    assert play.states() == {}
    assert play.machine.next_deadline() == math.inf


def test_closing_an_unused_pool() -> None:
    """Closing an unused pool has no effects."""
    play = Play(min_size=1)
    assert play.close() == []
    assert play.request(1) == ["refuse closed"]


# --- time -------------------------------------------------------------------------------------------------------


def test_next_deadline_is_the_earliest() -> None:
    """The next deadline is the earliest of waiters, openers, dials, idleness and age; an early tick changes nothing."""
    play = Play(min_size=1, max_size=2, connect_timeout=0.75, idle_timeout=5.0, max_age=0.5, age_jitter=0.0)
    play.open(wait=0.875)
    deadlines = [play.machine.next_deadline()]
    play.request(None, wait=0.625)
    deadlines.append(play.machine.next_deadline())
    play.opened(1)
    deadlines.append(play.machine.next_deadline())
    play.request(None, wait=0.25)
    deadlines.append(play.machine.next_deadline())
    assert deadlines == [START + 0.75, START + 0.625, START + 0.5, START + 0.25]
    assert play.tick(0.125) == []
    assert play.machine.next_deadline() == START + 0.25


def test_the_next_deadline_is_not_past_after_a_tick() -> None:
    """After a tick nothing is overdue, even if that tick started a dial and so made a lost connection dispensable."""
    play = Play(min_size=1, max_size=2, idle_timeout=5.0)
    play.filled(None)
    play.lost(1)
    play.release(1)
    play.request(1)
    for _ in range(12):
        for number in [number for number, state in play.states().items() if state == "opening"]:
            play.failed(number)
        play.tick_in_time()
        assert play.machine.next_deadline() >= play.now


# --- figures and stats ------------------------------------------------------------------------------------------


def test_figures_of_a_refusal() -> None:
    """A refusal carries the pool's current figures."""
    play = Play(max_size=2)
    play.filled(None)
    play.request(None)
    play.request(1, wait=0.0)
    figures = play.refusal.figures
    assert (figures.open, figures.opening, figures.max_size) == (1, 1, 2)
    assert (figures.in_flight, figures.waiting, figures.waited) == (1, 1, 0.0)


@pytest.mark.parametrize("refusal", ["full", "no time", "closed"])
def test_only_waiters_have_waited(refusal: str) -> None:
    """A caller that is refused at once has not waited, even if its request reaches the machine a little later."""
    play = Play(max_size=1, max_waiters=1)
    play.filled(None)
    if refusal == "full":
        play.request(1)
    if refusal == "closed":
        play.close()
    since = play.now - 0.004
    deadline = since if refusal == "no time" else math.inf
    play.did(play.recorder.effects(play.machine.request, Waiter(1, since=since, deadline=deadline), play.now))
    assert play.refusal.figures.waited == 0.0
    assert "waited" not in str(play.refusal.figures)


def test_waiters_that_a_close_refuses_have_waited() -> None:
    """The figures of a waiter that was in the queue say how long."""
    play = Play(max_size=1)
    play.filled(None)
    play.request(1)
    play.now += 2.5
    play.close()
    assert str(play.refusal.figures).endswith(", waited 2.500 s")


def test_stats() -> None:
    """A snapshot contains gauges, counters and each connection."""
    play = Play(min_size=1, max_size=2)
    play.filled(None)
    play.now += 5.0
    play.release(1)
    play.request(1)
    stats = play.stats
    assert (stats.size, stats.ready, stats.opening, stats.idle, stats.draining) == (2, 1, 1, 0, 0)
    assert (stats.in_flight, stats.waiting, stats.acquired, stats.opened) == (1, 0, 2, 1)
    channel = stats.channels[0]
    assert (channel.id, channel.state, channel.in_flight, channel.limit, channel.exclusive) == (1, "ready", 1, 2, False)
    assert channel.created_at == dt.datetime.fromtimestamp(START, tz=dt.UTC)
    assert channel.used_at - channel.created_at == dt.timedelta(seconds=5)
    assert channel.calls == 2
    assert stats.closed["idle"] == 0


def test_stats_of_overflow() -> None:
    """Overflow and draining connections count in `size`, not in `max_size`."""
    play = Play(max_size=1, mode=Mode.LOOSE, max_overflow=1)
    play.filled(None, None)
    play.discard(2)
    play.request(None)
    assert (play.stats.size, play.stats.max_size, play.stats.closed["discarded"]) == (2, 1, 1)
