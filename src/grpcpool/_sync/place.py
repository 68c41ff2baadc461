"""The place of a call over a pool: one stream of one connection, which is given back exactly once."""

from __future__ import annotations

from functools import partial
from typing import Any

from .._grpc.status import code_of, details_of, is_refused_stream
from .._machine.machine import NOTHING
from .._machine.slot import Slot
from .driver import SyncDriver


class Place:
    """Whoever is told first that the call is over gives it back.

    It is there before the place is taken. Should a signal's handler raise on the way to the call, or back from it, what
    was taken comes back when this is collected. Whoever waits for the call's end holds it.
    """

    __slots__ = ("driver", "slot")

    # Set by who makes it: to call an __init__ would cost as much again. The slot is None when there is nothing to give.
    driver: SyncDriver
    slot: Slot | None

    def give_back(self) -> None:
        """Gives it back; does nothing if it has been."""
        driver = self.driver
        effects = NOTHING
        try:
            with driver.lock:
                slot = self.slot
                if slot is not None:
                    effects = driver.machine.release(slot, 1, driver.monotonic())
                    self.slot = None
        finally:
            if effects:
                driver.commit(effects)

    def give_back_refused(self) -> None:
        """As `give_back`, of a call that the server refused."""
        with self.driver.lock:
            slot, self.slot = self.slot, None
        if slot is not None:
            self.driver.tell(self.driver.machine.refused_stream, slot)

    def end(self, ended: Any) -> bool:
        """Releases the place of the call, or error, that `ended`; returns whether the server refused the call."""
        if is_refused_stream(ended):
            self.give_back_refused()
            return True
        # In this order: a slot that carries less because a call failed on it is the more attractive.
        if self.slot is not None:
            self.driver.call_failed(self.slot, code_of(ended), details_of(ended))
        self.give_back()
        return False

    def __del__(self) -> None:
        """Gives back what nobody did."""
        slot = self.slot
        if slot is not None and not self.driver.void:
            self.driver.defer(partial(self.driver.release, slot, 1))


def place_on(slot: Slot, driver: SyncDriver) -> Place:
    """The place that has been taken on the slot."""
    place = Place()
    place.driver, place.slot = driver, slot
    return place
