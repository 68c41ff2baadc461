"""How connections are replaced, tested as events in and effects out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from machine.play import START, Play

# --- replacing --------------------------------------------------------------------------------------------------


def test_successor_first() -> None:
    """At `max_age` a successor is dialled; once it is ready, the old one takes nothing new and closes with its last."""
    play = Play(max_age=100.0, age_jitter=0.0)
    play.filled(1)
    assert play.tick(99.9) == []
    assert play.tick(0.1) == ["open 2 for 1"]
    assert play.opened(2) == ["draining 1: age"]
    assert play.request(1) == ["grant 2", "open 3"]
    assert play.release(1, 1) == ["closed 1: age", "close 1"]


def test_an_idle_connection_is_replaced_at_once() -> None:
    """An old connection with nothing on it closes as soon as its successor is ready."""
    play = Play(max_age=100.0, age_jitter=0.0, min_size=1)
    play.filled(None)
    play.release(1)
    play.tick(100.0)
    assert play.opened(2) == ["closed 1: age", "close 1"]


def test_the_successor_does_not_count_beside_its_predecessor() -> None:
    """A pool at `max_size` can replace its connections: a successor does not count beside the one it replaces."""
    play = Play(max_size=1, max_age=100.0)
    play.filled(None)
    assert play.tick(100.0) == ["open 2 for 1"]
    assert (play.machine.fleet.slots.connections, play.stats.size) == (1, 2)


def test_a_whole_lease_keeps_its_connection() -> None:
    """A whole lease keeps its old connection; the successor serves the next lease."""
    play = Play(max_size=1, max_age=100.0)
    play.filled(None)
    play.tick(100.0)
    play.request(None)
    assert play.opened(2) == ["draining 1: age", "grant 2"]


def test_a_failed_successor_keeps_the_old_one() -> None:
    """If the successor fails, the old connection stays in service, and the next attempt comes after the backoff."""
    play = Play(max_age=100.0, age_jitter=0.0)
    play.filled(1)
    play.tick(100.0)
    assert play.failed(2) == ["close 2"]
    assert play.acquire(None) is None
    assert play.states() == {1: "ready"}
    assert play.machine.next_deadline() == play.now + 0.1
    assert play.tick_in_time() == ["open 3 for 1"]


def test_a_successor_that_never_answers_keeps_the_old_one() -> None:
    """A successor that is not ready within `connect_timeout` counts as failed."""
    play = Play(max_age=100.0, age_jitter=0.0, connect_timeout=5.0)
    play.filled(1)
    play.tick(100.0)
    assert play.tick(5.0) == ["close 2"]
    assert play.states() == {1: "ready"}


@pytest.mark.parametrize(("drawn", "age"), [(0.0, 100.0), (0.5, 80.0), (0.75, 70.0)])
def test_jitter_is_drawn_once(drawn: float, age: float) -> None:
    """Up to `age_jitter` of `max_age` is taken off, once per connection, even when its successors fail."""
    play = Play(max_age=100.0, age_jitter=0.4, random=lambda: drawn)
    play.filled(1)
    due = play[1].retire_at
    assert due == pytest.approx(START + age)
    play.now = due
    play.tick()
    play.failed(2)
    assert play[1].retire_at == due


def test_each_connection_draws_its_own_jitter() -> None:
    """Connections opened together are not replaced together."""
    numbers: Iterator[float] = iter([0.5] * 2000)
    later = [0.25, 0.75]
    play = Play(max_age=100.0, age_jitter=0.4, random=lambda: next(numbers))
    play.request(None)
    play.request(None)
    numbers = iter(later)
    play.opened(1, 2)
    assert [play[number].retire_at - START for number in (1, 2)] == pytest.approx([90.0, 70.0])


@pytest.mark.parametrize(("size", "surge"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_a_quarter_is_replaced_at_a_time(size: int, surge: int) -> None:
    """At most a quarter of the pool, rounded up, has successors at a time; each that becomes ready starts the next."""
    play = Play(max_size=size, min_size=size, max_age=100.0, age_jitter=0.0)
    play.filled(1)
    assert len(play.tick(100.0)) == surge
    assert play.machine.fleet.slots.successors == surge
    rounds = 0
    while play.machine.fleet.slots.successors:
        play.opened(next(slot.id for slot in play.slots.values() if slot.state == "opening"))
        rounds += 1
        assert play.machine.fleet.slots.successors <= surge
    assert rounds == size


def test_while_failing_there_is_one_successor_at_a_time() -> None:
    """After a failure there is one attempt at a time, for replacements too."""
    play = Play(max_size=8, min_size=8, max_age=100.0, age_jitter=0.0)
    play.filled(1)
    assert play.tick(100.0) == ["open 9 for 1", "open 10 for 2"]
    play.failed(9)
    play.failed(10)
    assert play.tick_in_time() == ["open 11 for 1"]


def test_a_successor_inherits_idle_time() -> None:
    """A successor inherits the idle time: an unused connection still closes for idleness."""
    play = Play(max_age=6.0, age_jitter=0.0, idle_timeout=10.0)
    play.filled(None)
    play.release(1)
    play.tick(6.0)
    play.opened(2)
    assert play.tick(4.0) == ["closed 2: idle", "close 2"]


def test_the_successor_of_a_busy_connection_is_not_idle() -> None:
    """The successor of a connection in constant use is not closed at once as idle."""
    play = Play(max_age=30.0, age_jitter=0.0, idle_timeout=10.0)
    play.filled(1)
    play.tick(30.0)
    play.opened(2)
    assert play.tick() == []
    assert play[2].state == "ready"


def test_a_connection_with_a_successor_does_not_idle_out() -> None:
    """While its successor is being dialled, the old connection is not closed as idle."""
    play = Play(max_age=6.0, age_jitter=0.0, idle_timeout=10.0, connect_timeout=60.0)
    play.filled(None)
    play.release(1)
    play.tick(6.0)
    assert play.tick(50.0) == []


def test_refresh_replaces_everything() -> None:
    """A refresh replaces every current connection, a quarter at a time, including those being dialled."""
    play = Play(max_size=3)
    play.filled(None, None)
    play.release(1)
    play.request(None)
    play.request(None)
    assert play.refresh() == ["open 4 for 1"]
    assert play.opened(3) == ["grant 3"]
    play.release(3)
    assert play.opened(4) == ["draining 1: refresh", "open 5 for 2"]
    assert play.opened(5) == ["draining 2: refresh", "open 6 for 3"]
    assert play.opened(6) == ["closed 3: refresh", "close 3"]
    assert play.machine.next_deadline() == START + 600.0


def test_refresh_replaces_what_is_being_dialled() -> None:
    """A connection dialled before a refresh is replaced when it is ready, though it has not reached its own age."""
    play = Play(max_size=1, max_age=100.0)
    play.request(None)
    play.refresh()
    assert play.opened(1) == ["grant 1", "open 2 for 1"]


def test_refresh_of_an_unused_pool() -> None:
    """A refresh of a pool that was never used does nothing."""
    assert Play(min_size=2).refresh() == []


def test_refresh_keeps_what_cannot_be_replaced() -> None:
    """A refresh whose successor fails keeps the old connection in service and tries again."""
    play = Play()
    play.filled(1)
    play.refresh()
    play.failed(2)
    assert play.states() == {1: "ready"}
    assert play.tick(0.1) == ["open 3 for 1"]


def test_refresh_does_not_forget_the_next_attempt() -> None:
    """A refresh between the end of the backoff and a late tick makes the next attempt or leaves it due."""
    play = Play()
    play.request(1)
    play.failed(1)
    play.now += 1.0
    assert "open 2" in play.refresh() or play.machine.next_deadline() <= play.now


def test_discarding_the_old_one_makes_the_successor_ordinary() -> None:
    """When a connection that is being replaced is discarded, its successor becomes an ordinary one."""
    play = Play()
    play.filled(None)
    play.refresh()
    assert play.discard(1) == ["closed 1: discarded", "close 1"]
    assert (play.machine.fleet.slots.connections, play.machine.fleet.slots.successors) == (1, 0)
    play.opened(2)
    assert play.request(None) == ["grant 2"]
