"""The queue: first come, first served among equal requests; leaving is cheap, and the counts are exact."""

from __future__ import annotations

import math

import pytest

from grpcpool._machine.queue import Waiter, WaitQueue
from grpcpool._machine.slot import Slot


def waiter(streams: int | None = 1, *, deadline: float = math.inf, fail_fast: bool = False) -> Waiter:
    """A waiter for that many streams."""
    return Waiter(streams, since=0.0, deadline=deadline, fail_fast=fail_fast)


def queue_of(*waiters: Waiter, target: int = 4) -> WaitQueue:
    """A queue in which these waiters were queued in that order."""
    queue = WaitQueue(target)
    for each in waiters:
        queue.push(each)
    return queue


def slot_with(in_flight: int = 0, *, limit: int = 4) -> Slot:
    """A slot that carries this many streams."""
    slot = Slot(1, limit=limit, now=0.0, deadline=1.0)
    slot.in_flight = in_flight
    return slot


def pop_fitting(queue: WaitQueue, slot: Slot, *, fail_fast: bool = False) -> Waiter | None:
    """Takes out the first waiter that `slot` has room for."""
    found = queue.first_fitting(slot, fail_fast=fail_fast)
    return found if found is not None and queue.remove(found) else None


def pop_expired(queue: WaitQueue, now: float) -> Waiter | None:
    """Takes out the waiter whose deadline came first."""
    found = queue.first_expired(now)
    return found if found is not None and queue.remove(found) else None


def test_order_of_arrival() -> None:
    """Iteration yields waiters in order of arrival, whatever they request."""
    waiters = [waiter(1), waiter(None), waiter(2), waiter(1), waiter(None)]
    assert list(queue_of(*waiters)) == waiters


def test_first_come_first_served() -> None:
    """The first waiter that fits is taken, and it is no longer queued."""
    first, second, third = waiter(2), waiter(1), waiter(2)
    queue = queue_of(first, second, third)
    assert [pop_fitting(queue, slot_with()) for _ in range(4)] == [first, second, third, None]
    assert not first.queued
    assert queue.length == 0


@pytest.mark.parametrize(
    ("in_flight", "taken"),
    [(0, 0), (1, 1), (2, 2), (3, 3), (4, None)],
)
def test_a_waiter_that_does_not_fit_blocks_no_other(in_flight: int, taken: int | None) -> None:
    """A waiter for more than there is room for is overtaken by those that fit."""
    waiters = [waiter(None), waiter(3), waiter(2), waiter(1)]
    expected = None if taken is None else waiters[taken]
    assert pop_fitting(queue_of(*waiters), slot_with(in_flight)) is expected


def test_fail_fast_only() -> None:
    """On a lost slot only fail-fast waiters are served."""
    waiters = [waiter(1), waiter(1, fail_fast=True), waiter(2), waiter(2, fail_fast=True)]
    queue = queue_of(*waiters)
    taken = [pop_fitting(queue, slot_with(), fail_fast=True) for _ in range(3)]
    assert taken == [waiters[1], waiters[3], None]
    assert list(queue) == [waiters[0], waiters[2]]


@pytest.mark.parametrize(("streams", "weight"), [(1, 1), (3, 3), (4, 4), (5, 4), (None, 4)])
def test_weight(streams: int | None, weight: int) -> None:
    """A waiter counts as the streams it requests, but never as more than the target of one connection."""
    one = waiter(streams)
    queue = queue_of(one)
    assert (queue.length, queue.asked) == (1, weight)
    assert queue.remove(one)
    assert (queue.length, queue.asked) == (0, 0)


def test_remove_says_whether_the_waiter_was_queued() -> None:
    """Removing a queued waiter returns true; one that has left or never came was not queued."""
    waiters = [waiter(), waiter(), waiter()]
    queue = queue_of(*waiters)
    assert queue.remove(waiters[1])
    assert not queue.remove(waiters[1])
    assert not queue.remove(waiter())
    assert list(queue) == [waiters[0], waiters[2]]


def test_expiry() -> None:
    """A waiter is taken out when its deadline has come, not before, the earliest first."""
    late, early, never = waiter(deadline=7.0), waiter(None, deadline=5.0), waiter()
    queue = queue_of(late, early, never)
    assert queue.next_deadline() == 5.0
    assert pop_expired(queue, 4.9) is None
    assert [pop_expired(queue, 7.0) for _ in range(3)] == [early, late, None]
    assert queue.next_deadline() == math.inf
    assert list(queue) == [never]


def test_a_removed_waiter_has_no_deadline() -> None:
    """A removed waiter neither expires nor counts for the next deadline."""
    gone, here = waiter(deadline=5.0), waiter(deadline=6.0)
    queue = queue_of(gone, here)
    queue.remove(gone)
    assert queue.next_deadline() == 6.0
    assert pop_expired(queue, 5.0) is None


def test_a_waiter_that_comes_again_goes_to_the_end() -> None:
    """A waiter that was answered may queue again; it is last, and expires once."""
    again, other = waiter(deadline=5.0), waiter()
    queue = queue_of(again, other)
    queue.remove(again)
    queue.push(again)
    assert list(queue) == [other, again]
    assert [pop_expired(queue, 5.0), pop_expired(queue, 5.0)] == [again, None]


def test_removed_waiters_do_not_pile_up() -> None:
    """The heap of deadlines is pruned when removed waiters are the majority."""
    queue = WaitQueue(4)
    for number in range(10_000):
        leaver = waiter(deadline=float(number))
        queue.push(leaver)
        queue.remove(leaver)
    assert len(queue._deadlines) <= 64
    stayers = [waiter(deadline=float(number)) for number in range(1000)]
    for stayer in reversed(stayers):
        queue.push(stayer)
    assert [pop_expired(queue, 2000.0) for _ in stayers] == stayers
