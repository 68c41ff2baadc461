"""Pools over addresses."""

from __future__ import annotations

import enum
from collections import Counter
from typing import Any

from grpcpool._machine.addresses import Addressing
from grpcpool._machine.effects import Notify
from machine.play import Play

A, B, C, D = (f"10.0.0.{i}:1" for i in range(1, 5))


V6 = "[::1]:1"


EVERY = 30.0


class Status(enum.Enum):
    """Stands for a status."""

    INTERNAL = 1


def over(*names: str, seed: int = 0, **config: Any) -> Play:
    """A pool whose addresses are known."""
    return Play(addressing=Addressing(addresses=names, every=EVERY, seed=seed), random=lambda: 0.5, **config)


def looking(*, either_family: bool = False, discovered: bool = False, **config: Any) -> Play:
    """A pool whose addresses are looked up, exactly every 30 seconds; if they are `discovered`, only so."""
    addressing = Addressing(looked_up=True, every=EVERY, either_family=either_family, discovered=discovered)
    return Play(addressing=addressing, random=lambda: 0.5, **config)


def held(play: Play) -> Counter[str | None]:
    """How many connections lead to each address, without those that drain."""
    return Counter(slot.address for slot in play.machine.fleet.slots if slot.state not in ("draining", "closed"))


def all_opened(play: Play) -> None:
    """Whatever is being opened is ready, until nothing is."""
    while opening := [number for number, state in play.states().items() if state == "opening"]:
        play.opened(*opening[:1])


def opened(play: Play) -> Play:
    """The pool has its connections."""
    play.open()
    all_opened(play)
    return play


def events(play: Play, kind: type) -> list[Any]:
    """The events of that kind among the last effects."""
    return [effect.event for effect in play.effects if isinstance(effect, Notify) and isinstance(effect.event, kind)]
