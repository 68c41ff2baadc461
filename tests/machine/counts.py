"""The model's own counts, from its records."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from grpcpool._machine.queue import Waiter
from grpcpool._machine.slot import Slot
from machine.records import Records
from machine.settings import EPOCH

F = TypeVar("F", bound=Callable[..., Any])


def _looked_up_once(look_up: F) -> F:
    """Remembers what the function returns as long as the invariants are checked: many of them need the same."""

    @functools.wraps(look_up)
    def looked_up(world: Records) -> Any:
        found = world.found
        if found is None:
            return look_up(world)
        if look_up in found:
            return found[look_up]
        value = found[look_up] = look_up(world)
        return value

    return looked_up  # type: ignore[return-value]


@functools.lru_cache(maxsize=256)
def moment(at: float) -> dt.datetime:
    """The date of a time on the model's clock."""
    return EPOCH + dt.timedelta(seconds=at)


@_looked_up_once
def _by_state(world: Records) -> dict[str, list[Slot]]:
    by_state: dict[str, list[Slot]] = {}
    for slot in world.slots:
        if not slot.probes:
            by_state.setdefault(slot.state, []).append(slot)
    return by_state


def in_state(world: Records, *states: str) -> list[Slot]:
    """The slots in one of these states."""
    found = world.found
    if found is None:
        return _in_state(world, states)
    # As what `_looked_up_once` remembers: the invariants ask this most often.
    if states in found:
        slots: list[Slot] = found[states]
        return slots
    slots = found[states] = _in_state(world, states)
    return slots


def _in_state(world: Records, states: tuple[str, ...]) -> list[Slot]:
    by_state = _by_state(world)
    if len(states) == 1:
        return by_state.get(states[0], [])
    return [slot for state in states for slot in by_state.get(state, ())]


@_looked_up_once
def asking(world: Records) -> list[Waiter]:
    """The waiters that do not pause."""
    return [waiter for waiter in world.waiting if waiter not in world.paused]


@_looked_up_once
def connections(world: Records) -> int:
    """The number that `max_size` bounds: see no. 6 above."""
    return sum([slot.replaces is None for slot in in_state(world, "opening", "ready", "lost")])


@_looked_up_once
def all_carried(world: Records) -> dict[Slot, list[int | None]]:
    """What each slot carries."""
    by_slot: dict[Slot, list[int | None]] = {}
    for held in world.held:
        by_slot.setdefault(held.slot, []).append(held.streams)
    return by_slot


def carried(world: Records, slot: Slot) -> Sequence[int | None]:
    """The requests that were granted on the slot and not released."""
    return all_carried(world).get(slot, ())


def ranks(world: Records) -> dict[Slot, tuple[int, int]]:
    """How the ready slots with room for one stream rank in the picker's order, except by turn."""
    slots = [slot for slot in in_state(world, "ready") if fits(world, slot, 1) and not slot.reserved]
    return {slot: _rank(world, slot) for slot in slots}


def _rank(world: Records, slot: Slot) -> tuple[int, int]:
    if world.config.picker == "least_loaded":
        return slot.in_flight + handicap(world, slot), 0
    if world.config.picker == "fill" and not slot.recent_failures:
        below = slot.in_flight < world.config.resolved_target_streams
        return 0, -slot.in_flight if below else slot.in_flight
    return int(slot.recent_failures > 0), 0


def handicap(world: Records, slot: Slot) -> int:
    """As how many calls the slot's failures of late count."""
    worst = -(-world.config.max_streams // 10) * 10
    if world.config.picker == "fill":
        return worst if slot.recent_failures else 0
    return min(10 * slot.recent_failures, worst)


def fits(world: Records, slot: Slot, streams: int | None) -> bool:
    """Whether the slot has room for this request beside what it carries."""
    asks = carried(world, slot)
    if streams is None:
        return not asks and slot.carries_up_to > 0
    return None not in asks and sum([ask or 0 for ask in asks]) + streams <= slot.carries_up_to


def weight(world: Records, streams: int | None) -> int:
    """How many of a connection's `target_streams` a waiter for `streams` counts as."""
    target = world.config.resolved_target_streams
    return target if streams is None else min(streams, target)
