"""How a pool connects, opens and closes, tested as events in and effects out."""

from __future__ import annotations

import math

import pytest

from grpcpool._machine.addresses import Addressing
from grpcpool._machine.effects import Notify
from grpcpool._values.errors import Refusal
from grpcpool.events import Granted, Opened, OpenFailed, Opening, Rejected, TimedOut
from machine.play import START, Play

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


def test_a_close_that_was_interrupted_is_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler may raise as the look-ups are ended: then they are ended by the repair, and no tick is due."""
    play = Play(addressing=Addressing(addresses=["10.0.0.1:1", "10.0.0.2:1"], every=30.0), max_size=1)
    play.filled(None)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(play.machine.fleet.lookups, "close", interrupted)
        with pytest.raises(KeyboardInterrupt):
            play.machine.close(START + 60.0, START)
    play.machine.repair(START)
    play.machine.tick(START)
    assert play.machine.next_deadline() == START + 60.0


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
