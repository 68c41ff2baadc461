"""Targets in an order of preference: which is used, tested as events in and effects out."""

from __future__ import annotations

import pytest

from grpcpool import Mode
from grpcpool._machine.effects import Refuse, Started
from grpcpool._machine.queue import Waiter
from machine.ordered import Ordered


def test_the_first_is_used_and_no_other_is_connected() -> None:
    """While the first target has a connection, nothing leads to another."""
    pool = Ordered()
    assert pool.call() is None
    pool.opened(1)
    pool.advance(60.0)
    assert pool.endpoint == 0
    assert {slot.endpoint for slot in pool.slots.values()} == {0}


def test_the_next_is_used_after_ten_seconds() -> None:
    """A target without a ready connection for 10 seconds is left for the next."""
    pool = Ordered()
    pool.call()
    pool.opened(1)
    pool.lost(1)
    pool.advance(9.9)
    assert pool.endpoint == 0
    pool.advance(0.2)
    assert pool.endpoint == 1
    assert pool.opening(1)


def test_a_short_outage_changes_nothing() -> None:
    """A target that is back within 10 seconds stays in use."""
    pool = Ordered()
    pool.call()
    pool.opened(1)
    for _ in range(5):
        pool.lost(1)
        pool.advance(1.5)
        pool.machine.recovered(pool.slots[1], pool.now)
        pool.commit()
        pool.advance(3.0)
    assert pool.endpoint == 0


def test_waiters_are_served_by_the_next() -> None:
    """What waits for the first target is granted a place on the next."""
    pool = Ordered()
    pool.fail_over()
    assert pool.granted
    assert pool.slots[pool.granted[-1]].endpoint == 1


def test_the_next_is_opened_once_the_first_has_failed_for_long_enough() -> None:
    """A program that retries `open()` gets the next target after 10 seconds, not the first for ever."""
    pool = Ordered()
    for _ in range(10):
        pool.open(1.0)
        pool.failed(*pool.opening(0))
        pool.advance(1.0)
    assert (pool.endpoint, pool.answers) == (0, [Refuse] * 10)
    pool.advance(0.1)
    pool.open(1.0)
    assert pool.endpoint == 1
    # That another connection still finds out whether the first is up delays nothing.
    assert pool.opening(0)
    pool.opened(*pool.opening(1))
    assert pool.answers[10:] == [Started]


def test_a_preferred_target_is_used_again_once_it_has_been_up() -> None:
    """It must have been up for 5 to 15 seconds; calls in flight stay where they are, and the other is kept open."""
    pool = Ordered()
    pool.fail_over()
    (carries,) = {*pool.granted}
    probe = pool.stand_by()
    assert pool.call() == carries
    pool.advance(4.9)
    assert pool.endpoint == 1
    pool.advance(0.2)
    assert pool.endpoint == 0
    assert pool.call() == probe
    assert pool.slots[carries].in_flight == 2
    for _ in range(2):
        pool.end(carries)
    pool.advance(899.0)
    assert carries not in pool.closed
    pool.advance(2.0)
    assert carries in pool.closed


def test_a_preferred_target_that_flaps_is_not_used() -> None:
    """One that is lost before it has been up for long enough must be up for as long again."""
    pool = Ordered()
    pool.fail_over()
    for _ in range(5):
        while not pool.opening(0):
            pool.advance(1.0)
        (probe,) = pool.opening(0)
        pool.opened(probe)
        pool.advance(4.0)
        pool.lost(probe)
        assert pool.endpoint == 1
    assert pool.machine.fleet.slots.ready == 1


def test_the_other_is_taken_back_while_it_is_kept() -> None:
    """If the preferred target fails again within 15 minutes, the connections that were kept serve at once."""
    pool = Ordered()
    pool.fail_over()
    (kept,) = {*pool.granted}
    pool.lost(pool.come_back())
    pool.advance(10.1)
    assert pool.endpoint == 1
    assert pool.slots[kept].state == "ready"
    assert pool.call() == kept


def test_what_is_kept_is_closed_by_discard() -> None:
    """A lease on a connection that is kept may ask to close it; then it is not taken back."""
    pool = Ordered(max_streams=9)
    pool.fail_over()
    (kept,) = {*pool.granted}
    pool.call()
    pool.come_back()
    pool.discard(kept)
    assert (kept in pool.closed, pool.slots[kept].in_flight) == (False, 1)
    pool.end(kept)
    assert kept in pool.closed


def test_what_is_kept_is_not_taken_back_after_a_refresh() -> None:
    """Such as one made with old credentials: what is idle is closed at once, the others when their calls end."""
    pool = Ordered()
    pool.fail_over()
    (kept,) = {*pool.granted}
    used = pool.come_back()
    pool.refresh()
    assert kept not in pool.closed
    pool.lost(used)
    pool.advance(10.1)
    assert pool.endpoint == 1
    assert pool.slots[kept].state == "draining"
    pool.end(kept)
    assert kept in pool.closed


def test_what_stands_by_is_replaced_by_a_refresh() -> None:
    """A connection to a preferred target that is not used yet is of this moment, too."""
    pool = Ordered()
    pool.fail_over()
    probe = pool.stand_by()
    pool.refresh()
    assert probe in pool.closed
    assert pool.opening(0)


def test_overflow_that_is_kept() -> None:
    """The last call on it ends while the preferred target has overflow, too."""
    pool = Ordered(mode=Mode.LOOSE, max_size=1, max_overflow=1, max_streams=1)
    pool.fail_over()
    (ordinary,) = {*pool.granted}
    pool.call()
    pool.opened(*pool.opening(1))
    _, overflow = pool.granted
    assert pool.slots[overflow].overflow
    pool.come_back()
    for _ in range(2):
        pool.call()
    pool.opened(*pool.opening(0))
    assert len(pool.granted) == 4
    for number in (overflow, ordinary):
        pool.end(number)
        assert pool.slots[number].state == "draining"


def test_a_connection_that_stood_by_ages() -> None:
    """The first one to a preferred target is replaced at `max_age`, as all others."""
    pool = Ordered(max_age=100.0, age_jitter=0.0)
    pool.fail_over()
    first = pool.come_back()
    pool.advance(93.9)
    assert not pool.opening(0)
    pool.advance(0.2)
    (successor,) = pool.opening(0)
    assert pool.slots[successor].replaces is pool.slots[first]


def test_a_preferred_target_is_used_at_once_if_the_other_fails() -> None:
    """What stands by need not have been up for long if nothing else is."""
    pool = Ordered()
    pool.fail_over()
    (backup,) = {*pool.granted}
    probe = pool.stand_by()
    pool.lost(backup)
    pool.advance(2.1)
    assert pool.endpoint == 0
    assert pool.call() == probe


def test_attempts_to_reach_a_preferred_target_back_off() -> None:
    """While it is down, it is dialled ever less often, one attempt at a time, and outside `max_size`."""
    pool = Ordered(max_size=1)
    pool.fail_over()
    began = pool.now
    attempts = 0
    while pool.now < began + 60.0:
        pool.advance(0.05)
        probes = pool.opening(0)
        assert len(probes) <= 1
        for number in probes:
            attempts += 1
            pool.failed(number)
    assert 5 <= attempts <= 20
    assert pool.machine.fleet.slots.connections == 1


@pytest.mark.parametrize("targets", [3])
def test_of_three_the_first_that_can_be_reached(targets: int) -> None:
    """If the second cannot be reached either, the third is used after as long again."""
    pool = Ordered(targets)
    pool.call()
    for _ in range(30):
        for endpoint in (0, 1):
            for number in pool.opening(endpoint):
                pool.failed(number)
        pool.advance(1.0)
    assert pool.endpoint == 2


def test_close_ends_what_is_kept() -> None:
    """A closed pool has no connection to any target."""
    pool = Ordered()
    pool.fail_over()
    while not pool.opening(0):
        pool.advance(1.0)
    pool.opened(pool.opening(0)[0])
    pool.advance(6.0)
    pool.machine.close(pool.now, pool.now)
    pool.commit()
    assert not len(pool.machine.fleet.slots)


def test_a_preferred_target_that_flaps_is_dialled_ever_less_often() -> None:
    """Such as a proxy without servers, which accepts connections and closes them."""
    pool = Ordered()
    pool.fail_over()
    dials = 0
    for _ in range(150):
        for number in pool.opening(0):
            dials += 1
            pool.opened(number)
            pool.advance(0.1)
            pool.lost(number)
        pool.advance(0.4)
    assert pool.endpoint == 1
    assert 5 <= dials <= 15


def test_no_more_is_taken_back_than_there_may_be() -> None:
    """The bounds may have changed while another target was used."""
    pool = Ordered(max_size=3, max_streams=1)
    pool.fail_over()
    for _ in range(2):
        pool.call()
        pool.opened(*pool.opening(1))
    kept = [*pool.granted]
    assert len(kept) == 3
    for number in kept:
        pool.end(number)
    used = pool.come_back()
    pool.machine.resize(0, 1, pool.now)
    pool.commit()
    pool.lost(used)
    pool.advance(10.1)
    assert pool.endpoint == 1
    assert sorted(str(pool.slots[number].state) for number in kept) == ["draining", "draining", "ready"]


def test_a_preferred_target_is_not_used_by_a_connection_that_is_blocked() -> None:
    """What stands by, and on which gRPC was interrupted, is closed; another connection to that target is dialled."""
    pool = Ordered()
    pool.fail_over()
    probe = pool.stand_by()
    pool.machine.blocked(pool.slots[probe], pool.now, for_good=True)
    pool.commit()
    assert probe in pool.closed
    assert pool.come_back() != probe


def test_what_drains_is_not_taken_back_for_another_target() -> None:
    """One that was too many leads to the target that was used before, and goes on draining."""
    pool = Ordered(min_size=3, max_size=3, max_streams=1)
    pool.fail_over()
    for number in pool.opening(1):
        pool.opened(number)
    for _ in range(2):
        pool.call()
    pool.machine.resize(2, 2, pool.now)
    pool.commit()
    (draining,) = [slot for slot in pool.slots.values() if slot.state == "draining"]
    pool.come_back()
    assert draining.state == "draining"
    assert pool.opening(0)


def test_of_two_that_are_back_the_one_whose_time_has_come_is_used() -> None:
    """Each preferred target has its own time to stand by. The pool does not wait for the first, nor tick meanwhile."""
    pool = Ordered(3)
    pool.call()
    while pool.endpoint < 2:
        for number in pool.opening(0) + pool.opening(1):
            pool.failed(number)
        pool.advance(1.0)
    pool.opened(*pool.opening(2))
    while not (pool.opening(0) and pool.opening(1)):
        pool.advance(0.5)
    chance = iter([0.9, 0.1])
    pool.machine.endpoints._random = lambda: next(chance)
    for number in pool.opening(0) + pool.opening(1):
        pool.opened(number)
    # They are used once they have been up for 14 seconds and for 6.
    used = []
    for seconds in (5.9, 0.2, 7.8, 0.2):
        pool.advance(seconds)
        used.append(pool.endpoint)
    assert used == [2, 1, 1, 0]


@pytest.mark.parametrize("then", ["call", "open"])
def test_one_failure_long_ago_says_nothing(then: str) -> None:
    """An `open()` has failed, and nothing was tried since: the first target is tried, and used."""
    pool = Ordered()
    pool.open(3.0)
    pool.refuse(4)
    assert pool.answers == [Refuse]
    pool.advance(3600.0)
    if then == "call":
        pool.call()
    else:
        pool.open(3.0)
    assert (pool.endpoint, len(pool.opening(0))) == (0, 1)


def test_while_nothing_is_tried_no_other_is_used() -> None:
    """With `min_size=0`, one call that fails is not an outage of 10 seconds."""
    pool = Ordered(min_size=0)
    waiter = Waiter(1, since=pool.now, deadline=pool.now + 60, fail_fast=True)
    pool.machine.request(waiter, pool.now)
    pool.commit()
    pool.failed(*pool.opening(0))
    assert pool.answers == [Refuse]
    pool.advance(60.0)
    assert (pool.endpoint, len(pool.machine.fleet.slots)) == (0, 0)


def test_what_is_taken_back_is_not_idle_at_once() -> None:
    """Connections are kept for longer than idle ones. Back in use, they have all of `idle_timeout` again."""
    pool = Ordered(max_streams=1, target_streams=1)
    pool.fail_over()
    for _ in range(3):
        pool.call()
        for number in pool.opening(1):
            pool.opened(number)
    spare = [slot for slot in pool.machine.fleet.slots if slot.endpoint == 1 and slot.state == "ready"]
    main = pool.come_back()
    for number in pool.granted:
        if pool.slots[number] in spare:
            pool.end(number)
    pool.advance(660.0)
    pool.lost(main)
    pool.refuse(12)
    assert pool.endpoint == 1
    assert [slot.state for slot in spare] == ["ready"] * len(spare)


@pytest.mark.parametrize("every", [5.0, 11.0, 30.0, 90.0])
def test_attempts_with_pauses_in_between(every: float) -> None:
    """What asks now and then, and gives up at once, finds the next target when the first has failed for long enough."""
    pool = Ordered(min_size=0)
    for _ in range(3):
        waiter = Waiter(1, since=pool.now, deadline=pool.now + 0.01, fail_fast=True)
        pool.machine.request(waiter, pool.now)
        pool.commit()
        for number in pool.opening(0):
            pool.failed(number)
        pool.advance(every)
    pool.call()
    assert pool.endpoint == 1


def test_a_connection_that_is_not_needed_is_not_missed() -> None:
    """The server closes what is idle, and nothing asks for another: calls later find the first target, not the next."""
    pool = Ordered(min_size=0)
    pool.call()
    pool.opened(1)
    pool.end(1)
    pool.machine.lost(pool.slots[1], None, pool.now)
    pool.commit()
    pool.advance(20.0)
    assert pool.endpoint == 0
    pool.call()
    assert pool.endpoint == 0


def test_what_rested_while_it_was_kept_is_suspected_together() -> None:
    """One call on a connection that was taken back shows that a balancer has forgotten all that rested as long."""
    pool = Ordered(max_streams=1, target_streams=1)
    pool.fail_over()
    for _ in range(2):
        pool.call()
        for number in pool.opening(1):
            pool.opened(number)
    spare = [slot.id for slot in pool.machine.fleet.slots if slot.endpoint == 1 and slot.state == "ready"]
    main = pool.come_back()
    for number in [number for number in pool.granted if number in spare]:
        pool.end(number)
    pool.advance(300.0)
    pool.lost(main)
    pool.refuse(12)
    assert pool.endpoint == 1
    dead = pool.call()
    assert dead in spare
    pool.lost(dead)
    assert not [slot for slot in pool.machine.fleet.slots if slot.id in spare and slot.state == "ready"]


def test_a_pool_that_is_to_be_ready_connects_to_the_next_target() -> None:
    """A pool that keeps no connections open, and is asked again and again to connect, does so where that is possible.

    The preferred target is silent: it is dialled in the background from then on, which does not help.
    """
    pool = Ordered(min_size=0)
    for _ in range(12):
        pool.machine.connect(pool.now)
        pool.commit()
        pool.advance(1.0)
    assert pool.endpoint == 1
    number, *_ = pool.opening(1)
    pool.opened(number)
    assert pool.slots[number].state == "ready"
