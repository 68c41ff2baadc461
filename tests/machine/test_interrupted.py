"""Releases that a signal handler ends halfway, and what other threads do before the repair, or without one."""

from __future__ import annotations

import dataclasses
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from grpcpool._machine.effects import Grant, Refuse
from grpcpool._machine.places import Holding
from grpcpool._machine.queue import Waiter
from grpcpool._machine.slot import Slot
from machine.play import Play
from support.signals import RaisesAt, TimeLimitError


def _is_of_the_machine(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith("grpcpool._machine.")


def _release(play: Play, slot: Slot, ask: int | None, holder: Holding | Waiter) -> None:
    if not holder._released and play.machine.places.release(slot, ask, play.now, holder):
        play.machine.settle(slot, play.now)


@dataclasses.dataclass
class _Interrupted:
    """A pool of two full slots, the holders of these, and three waiters; the release of the first was interrupted."""

    play: Play
    holders: dict[int, Holding]
    waiters: list[Waiter]
    raised: bool

    def release(self, number: int) -> None:
        """Releases what the holder of that slot still holds."""
        _release(self.play, self.play[number], None, self.holders[number])


def _at_each_point(asks: tuple[int | None, ...], picker: str, wait: float = math.inf) -> Iterator[_Interrupted]:
    """Releases that are interrupted at one point after the other; the last is not interrupted."""
    for number in itertools.count(1):
        play = Play(max_size=2, max_streams=1, picker=picker)
        play.filled(None, None)
        holders = {each: Holding(play[each]) for each in (1, 2)}
        waiters = []
        for ask in asks:
            play.request(ask, wait=wait)
            waiters.append(play.waiter)
        handler = RaisesAt(number, _is_of_the_machine)
        sys.setprofile(handler)
        try:
            _release(play, play[1], None, holders[1])
        except TimeLimitError:
            pass
        finally:
            sys.setprofile(None)
        yield _Interrupted(play, holders, waiters, handler.raised)
        if not handler.raised:
            return


_each_ask = pytest.mark.parametrize("asks", [(None, None, None), (1, 1, 1), (1, None, 1), (None, 1, None)], ids=str)
_each_picker = pytest.mark.parametrize("picker", ["least_loaded", "round_robin", "fill"])


@_each_picker
@_each_ask
def test_another_thread_releases_before_the_repair(asks: tuple[int | None, ...], picker: str) -> None:
    """Wherever a release is interrupted, each waiter gets one place, and none is lost."""
    for here in _at_each_point(asks, picker):
        here.release(2)
        if here.raised:
            here.play.machine.repair(here.play.now)
        # As the finalizer of a lease that the interruption has left unreleased.
        here.release(1)
        _check_the_answers(here.play, here.waiters)


@_each_picker
@_each_ask
def test_a_repair_that_is_interrupted_as_it_begins(asks: tuple[int | None, ...], picker: str) -> None:
    """Where a second handler keeps a step from being completed, the releases of others serve all waiters."""
    for here in _at_each_point(asks, picker):
        here.release(1)
        here.release(2)
        answered: set[Waiter] = set()
        for _ in here.waiters:
            grants = [effect for effect in here.play.recorder.take() if isinstance(effect, Grant)]
            answered |= {each.waiter for each in grants}
            for waiter in answered:
                assert waiter._slot is not None
                _release(here.play, waiter._slot, waiter.streams, waiter)
        assert answered == set(here.waiters)
        assert (here.play.stats.in_flight, here.play.stats.waiting) == (0, 0)


@_each_picker
def test_one_gives_up_before_the_repair(picker: str) -> None:
    """The place that has passed to it goes to another, which asks for something else, at once."""
    for here in _at_each_point((None,), picker):
        (first,) = here.waiters
        here.play.request(1)
        here.play.machine.cancel(first, here.play.now)
        if first._slot is not None:
            _release(here.play, first._slot, None, first)
        here.release(1)
        assert here.play.waiter._slot is here.play[1]
        assert here.play.stats.waiting == 0


def _time_is_up(play: Play) -> None:
    play.tick(10.0)


def _closed(play: Play) -> None:
    play.close(grace=5.0)


@pytest.mark.parametrize("then", [_time_is_up, _closed])
@_each_picker
@_each_ask
def test_none_with_a_place_is_refused(asks: tuple[int | None, ...], picker: str, then: Callable[[Play], None]) -> None:
    """A waiter whose place is decided gets that, although its time ends, or the pool, before the repair."""
    for here in _at_each_point(asks, picker, wait=5.0):
        effects = here.play.recorder.take()
        then(here.play)
        effects += here.play.effects
        if here.raised:
            here.play.machine.repair(here.play.now)
        effects += here.play.recorder.take()
        granted = {effect.waiter for effect in effects if isinstance(effect, Grant)}
        refused = {effect.waiter for effect in effects if isinstance(effect, Refuse)}
        assert granted == {waiter for waiter in here.waiters if waiter._slot is not None}
        assert refused == {*here.waiters} - granted


def _check_the_answers(play: Play, waiters: list[Waiter]) -> None:
    """Of three waiters two have a place, each another one; then the third gets one, and all are released."""
    grants = [effect for effect in play.recorder.take() if isinstance(effect, Grant)]
    granted = [waiter for waiter in waiters if waiter._slot is not None]
    assert {waiter._slot for waiter in granted} == {play[1], play[2]}
    assert len(granted) == 2
    assert {(each.waiter, each.slot) for each in grants} == {(waiter, waiter._slot) for waiter in granted}
    assert play.stats.waiting == 1
    for waiter in granted:
        assert waiter._slot is not None
        _release(play, waiter._slot, waiter.streams, waiter)
    (last,) = (waiter for waiter in waiters if waiter not in granted)
    assert last._slot is not None
    _release(play, last._slot, last.streams, last)
    assert (play.stats.in_flight, play.stats.waiting, play.machine.places.load) == (0, 0, 0)
    assert play.machine.queue.next_deadline() == math.inf
