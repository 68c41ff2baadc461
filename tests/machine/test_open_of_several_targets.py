"""How a pool with several targets opens, tested as events in and effects out."""

from __future__ import annotations

import math

import pytest

from grpcpool._machine.effects import Refuse, Started
from machine.ordered import START, Ordered


def test_open_goes_on_to_the_next() -> None:
    """`open()` dials the first target again, with backoff, and after 10 seconds the next."""
    pool = Ordered()
    pool.open(30.0)
    dials = 0
    while pool.endpoint == 0:
        for number in pool.opening(0):
            pool.failed(number)
            dials += 1
        pool.advance(0.1)
    assert 10.0 <= pool.now - START < 10.2
    assert 4 <= dials <= 12
    assert pool.answers == []
    pool.opened(*pool.opening(1))
    assert pool.answers == [Started]


def test_open_goes_on_after_a_dial_that_hangs() -> None:
    """A dial to the first target that hangs is given up for the next, which does not count as opened."""
    pool = Ordered(connect_timeout=60.0)
    pool.open(30.0)
    pool.advance(10.1)
    assert pool.endpoint == 1
    assert pool.answers == []
    pool.opened(*pool.opening(1))
    assert pool.answers == [Started]


@pytest.mark.parametrize("patience", [3.0, math.inf])
def test_open_of_several_targets_fails_at_its_deadline(patience: float) -> None:
    """Without a timeout that is `connect_timeout`. Nothing of it is left: the pool is as before."""
    pool = Ordered(connect_timeout=3.0)
    pool.open(patience)
    end = START + 3.0
    while pool.now < end - 0.05:
        for number in pool.opening(0):
            pool.failed(number)
        assert pool.answers == []
        pool.advance(0.1)
    pool.advance(0.1)
    assert pool.answers == [Refuse]
    assert not len(pool.machine.fleet.slots)
    assert str(pool.machine.outage.cause) == "refused"
    dialled = len(pool.slots)
    pool.advance(60.0)
    assert len(pool.slots) == dialled


def test_open_of_a_target_that_comes_up() -> None:
    """If the first target can be reached in time, `open()` succeeds there."""
    pool = Ordered()
    pool.open()
    pool.failed(*pool.opening(0))
    pool.advance(1.0)
    pool.opened(*pool.opening(0))
    assert pool.answers == [Started]
    assert pool.endpoint == 0


def test_an_open_of_several_targets_closes_nothing_of_others() -> None:
    """What calls, or `min_size`, have dialled stays, also if the opener is patient."""
    pool = Ordered(min_size=2)
    pool.call()
    dials = pool.opening(0)
    pool.open(0.3)
    pool.advance(0.5)
    assert pool.answers == [Refuse]
    assert pool.opening(0) == dials
