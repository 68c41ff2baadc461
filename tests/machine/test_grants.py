"""Grants, waits and refusals, tested as events in and effects out."""

from __future__ import annotations

import datetime as dt
import math

import pytest

from grpcpool import Mode
from grpcpool._machine.effects import Grant, Notify
from grpcpool._machine.queue import Waiter
from grpcpool._values.errors import Refusal
from grpcpool.events import Granted
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


@pytest.mark.parametrize("picker", ["least_loaded", "round_robin", "fill"])
@pytest.mark.parametrize("ask", [None, 1])
def test_a_place_passes_on_as_it_is(ask: int | None, picker: str) -> None:
    """A place that is released while others wait for the same passes to the first: the slot stays as full as it was."""
    play = Play(max_size=1, max_streams=1, picker=picker)
    play.filled(ask)
    slot, places = play[1], play.machine.places
    carried, used_at = (slot.in_flight, slot.exclusive, places.load, places.peak), slot.used_at
    waiters = []
    for _ in range(2):
        assert play.request(ask) == []
        waiters.append(play.waiter)
    for count, waiter in enumerate(waiters, 2):
        play.now += 1
        assert play.release(1, ask) == ["grant 1"]
        assert granted(play) == [waiter]
        assert (slot.in_flight, slot.exclusive, places.load, places.peak) == carried
        assert slot not in places
        assert (slot.calls, slot.used_at) == (count, used_at + count - 1)
    assert play.release(1, ask) == []
    assert slot in places
    assert (slot.in_flight, places.load) == (0, 0)


def test_a_place_passes_by_nobody_who_asked_for_something_else_before() -> None:
    """What a lease of a whole connection releases goes to the oldest waiter that fits, whatever that asks for."""
    play = Play(max_size=1)
    play.filled(None)
    play.request(1)
    older = play.waiter
    assert play.request(None) == []
    younger = play.waiter
    play.release(1)
    assert granted(play) == [older]
    play.release(1, 1)
    assert granted(play) == [younger]


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
