"""A load that comes and goes: the pool keeps what the peaks need, and opens nothing anew for each of them.

The minutes are simulated: channels are fakes, and the clock is turned by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from grpcpool import PoolStats
from grpcpool.testing import ManualClock
from resilience.worlds import Subject, World
from support.waiting import LONG, eventually

pytestmark = pytest.mark.timeout(60)

MINUTE = 60.0
STEPS = 10


class Teeth:
    """Streams leased from a pool and given back, as a saw-tooth."""

    def __init__(self, subject: Subject, clock: ManualClock) -> None:
        """Holds none yet."""
        self._subject = subject
        self._clock = clock
        self._held: list[Any] = []

    def hold(self, streams: int) -> None:
        """Leases or gives back until it holds so many; what is dialled for that is ready afterwards."""
        while len(self._held) < streams:
            self._held.append(self._subject.acquire(streams=1).result(LONG))
        while len(self._held) > streams:
            # The oldest first, as calls end.
            self._subject.release(self._held.pop(0))
        eventually(lambda: self._subject.stats().opening == 0)

    def wait(self, seconds: float) -> None:
        """Lets time pass, where the pool lives: what falls due has been done afterwards."""
        self._subject.do(lambda _: self._clock.advance(seconds))

    def cut(self, low: int, high: int, *, period: float, seconds: float = MINUTE) -> PoolStats:
        """Goes up and down for so many seconds; returns what the pool says then."""
        for _ in range(round(seconds / period)):
            for step in [*range(1, STEPS + 1), *range(STEPS - 1, -1, -1)]:
                self.hold(low + (high - low) * step // STEPS)
                self.wait(period / (2 * STEPS))
        return self._subject.stats()


@contextmanager
def teeth(world: World, clock: ManualClock, **config: Any) -> Iterator[Teeth]:
    """On a pool of fakes, of which each bears 90 streams and is to carry 50."""
    with world.pool_over(world.fake_maker(), **config) as subject:
        held = Teeth(subject, clock)
        yield held
        held.hold(0)


@pytest.mark.parametrize(("low", "high", "needed"), [(0, 190, 4), (45, 55, 2), (0, 40, 1)])
def test_a_minute_of_teeth_opens_what_the_peak_needs(
    world: World, clock: ManualClock, low: int, high: int, needed: int
) -> None:
    """Ten teeth, each shorter than `idle_timeout`: what the first has opened serves all, and nothing is closed."""
    with teeth(world, clock, idle_timeout=10) as saw:
        stats = saw.cut(low, high, period=6)
        assert (stats.opened, sum(stats.closed.values())) == (needed, 0)


def test_peaks_of_a_multiple_of_the_target_do_not_flap(world: World, clock: ManualClock) -> None:
    """Peaks of 200 on 4 connections of 50 open a fifth, ahead of need; it stays, and does not come and go."""
    with teeth(world, clock, idle_timeout=10) as saw:
        stats = saw.cut(0, 200, period=6)
        assert (stats.opened, sum(stats.closed.values())) == (5, 0)


def test_teeth_longer_than_the_idle_timeout_cost_what_they_gave_back(world: World, clock: ManualClock) -> None:
    """Two teeth of 30 s with an `idle_timeout` of 2 s: what was closed between them is opened once more, no more."""
    with teeth(world, clock, idle_timeout=2) as saw:
        stats = saw.cut(0, 190, period=30)
        assert 4 <= stats.opened <= 4 + sum(stats.closed.values())
        assert stats.opened <= 2 * 4


def test_what_shrinking_drains_is_taken_back(world: World, clock: ManualClock) -> None:
    """Two connections are drained for want of load, with calls on them; when the load is back, so are they."""
    with world.pool_over(world.fake_maker(), min_size=4, idle_timeout=10) as subject:
        subject.open()
        subject.do(lambda pool: pool.resize(1, 10))
        held = Teeth(subject, clock)
        held.hold(190)
        held.hold(60)
        for _ in range(3):
            held.wait(10)
        stats = subject.stats()
        assert (stats.ready, stats.draining) == (2, 2)
        held.hold(190)
        stats = subject.stats()
        assert (stats.ready, stats.draining, stats.opened) == (4, 0, 4)
        held.hold(0)
