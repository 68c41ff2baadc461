"""The place of a call over a pool: one stream of one connection, which is given back exactly once."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from .._machine import NOTHING

if TYPE_CHECKING:
    from .._slot import Slot
    from .core import Core


class Place:
    """Whoever is told first that the call is over gives it back.

    It is there before the place is taken. Should a signal's handler raise on the way to the call, or back from it, what
    was taken comes back when this is collected. Whoever waits for the call's end holds it.
    """

    __slots__ = ("core", "slot")

    # Set by who makes it: to call an __init__ would cost as much again. The slot is None when there is nothing to give.
    core: Core
    slot: Slot | None

    def give_back(self) -> None:
        """Gives it back; does nothing if it has been."""
        core = self.core
        effects = NOTHING
        try:
            with core.lock:
                slot = self.slot
                if slot is not None:
                    effects = core.machine.release(slot, 1, core.monotonic())
                    self.slot = None
        finally:
            if effects:
                core.commit(effects)

    def give_back_refused(self) -> None:
        """As `give_back`, of a call that the server refused."""
        with self.core.lock:
            slot, self.slot = self.slot, None
        if slot is not None:
            self.core.tell(self.core.machine.refused_stream, slot)

    def __del__(self) -> None:
        """Gives back what nobody did."""
        slot = self.slot
        if slot is not None and not self.core.void:
            self.core.defer(partial(self.core.release, slot, 1))


def place_on(slot: Slot, core: Core) -> Place:
    """The place that has been taken on the slot."""
    place = Place()
    place.core, place.slot = core, slot
    return place
