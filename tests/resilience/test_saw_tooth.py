"""Under a load that rises and falls, the pool keeps what the peaks need, and opens nothing new for each peak.

The minutes are simulated: channels are fakes, and the test moves the clock.
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
    """Acquires and releases streams of a pool in the shape of a saw-tooth."""

    def __init__(self, subject: Subject, clock: ManualClock) -> None:
        """Holds none yet."""
        self._subject = subject
        self._clock = clock
        self._held: list[Any] = []

    def hold(self, streams: int) -> None:
        """Acquires or releases until it holds `streams`; connections opened for that are ready afterwards."""
        while len(self._held) < streams:
            self._held.append(self._subject.acquire(streams=1).result(LONG))
        while len(self._held) > streams:
            # The oldest first, as calls end.
            self._subject.release(self._held.pop(0))
        eventually(lambda: self._subject.stats().opening == 0)

    def wait(self, seconds: float) -> None:
        """Moves the clock, where the pool lives; afterwards everything due has been done."""
        self._subject.do(lambda _: self._clock.advance(seconds))

    def cut(self, low: int, high: int, *, period: float, seconds: float = MINUTE) -> PoolStats:
        """Goes up and down for `seconds`; returns the pool's stats at the end."""
        for _ in range(round(seconds / period)):
            for step in [*range(1, STEPS + 1), *range(STEPS - 1, -1, -1)]:
                self.hold(low + (high - low) * step // STEPS)
                self.wait(period / (2 * STEPS))
        return self._subject.stats()


@contextmanager
def teeth(world: World, clock: ManualClock, **config: Any) -> Iterator[Teeth]:
    """A pool of fakes that each carry 90 streams, with a target of 50."""
    with world.pool_over(world.fake_maker(), **config) as subject:
        held = Teeth(subject, clock)
        yield held
        held.hold(0)


@pytest.mark.parametrize(("low", "high", "needed"), [(0, 190, 4), (45, 55, 2), (0, 40, 1)])
def test_a_minute_of_teeth_opens_what_the_peak_needs(
    world: World, clock: ManualClock, low: int, high: int, needed: int
) -> None:
    """Over ten teeth, each shorter than `idle_timeout`, nothing is opened after the first, and nothing is closed."""
    with teeth(world, clock, idle_timeout=10) as saw:
        stats = saw.cut(low, high, period=6)
        assert (stats.opened, sum(stats.closed.values())) == (needed, 0)


def test_peaks_of_a_multiple_of_the_target_do_not_flap(world: World, clock: ManualClock) -> None:
    """Peaks of 200 on 4 connections with a target of 50 open a fifth, ahead of need; it stays open."""
    with teeth(world, clock, idle_timeout=10) as saw:
        stats = saw.cut(0, 200, period=6)
        assert (stats.opened, sum(stats.closed.values())) == (5, 0)


def test_teeth_longer_than_the_idle_timeout_open_once_more(world: World, clock: ManualClock) -> None:
    """Over two teeth of 30 s with an `idle_timeout` of 2 s, what was closed between them is opened once more."""
    with teeth(world, clock, idle_timeout=2) as saw:
        stats = saw.cut(0, 190, period=30)
        assert 4 <= stats.opened <= 4 + sum(stats.closed.values())
        assert stats.opened <= 2 * 4


def test_draining_connections_are_used_again(world: World, clock: ManualClock) -> None:
    """Two connections with calls drain because the load is low; when it returns, they are used again."""
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
