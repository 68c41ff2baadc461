"""Releases that a signal handler ends halfway, and what other threads do before the repair."""

from __future__ import annotations

import itertools
import math
import sys
from types import FrameType

import pytest

from grpcpool._machine.effects import Grant
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


@pytest.mark.parametrize("picker", ["least_loaded", "round_robin", "fill"])
@pytest.mark.parametrize("asks", [(None, None, None), (1, 1, 1), (1, None, 1), (None, 1, None)], ids=str)
def test_another_thread_releases_before_the_repair(asks: tuple[int | None, ...], picker: str) -> None:
    """Wherever a release is interrupted, each waiter gets one place, and none is lost."""
    for number in itertools.count(1):
        play = Play(max_size=2, max_streams=1, picker=picker)
        play.filled(None, None)
        holders = {each: Holding(play[each]) for each in (1, 2)}
        waiters = []
        for ask in asks:
            play.request(ask)
            waiters.append(play.waiter)
        handler = RaisesAt(number, _is_of_the_machine)
        sys.setprofile(handler)
        try:
            _release(play, play[1], None, holders[1])
        except TimeLimitError:
            pass
        finally:
            sys.setprofile(None)
        _release(play, play[2], None, holders[2])
        if handler.raised:
            play.machine.repair(play.now)
        # As the finalizer of a lease that the interruption has left unreleased.
        _release(play, play[1], None, holders[1])
        _check_the_answers(play, waiters)
        if not handler.raised:
            return


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
