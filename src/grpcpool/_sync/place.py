"""The place of a call over a pool: one stream of one connection, which is released exactly once."""

from __future__ import annotations

from functools import partial
from typing import Any

from .._grpc.status import code_of, details_of, is_refused_stream
from .._machine.slot import Slot
from .driver import SyncDriver


class Place:
    """Exists before the place is taken, and releases it when it is collected, should nothing else have done so.

    So a place is not lost when a signal handler raises between the pool and the call, on the way there or back. What
    waits for the end of the call holds this.
    """

    __slots__ = ("_released", "_slot", "driver")

    # Set by its creator: calling an __init__ would cost as much again as all the rest.
    driver: SyncDriver
    _slot: Slot | None
    _released: bool

    def release(self) -> None:
        """Releases the place; does nothing if it has been released."""
        driver = self.driver
        more = False
        try:
            with driver.lock:
                slot = self._slot
                if slot is not None and not self._released:
                    monotonic = driver.monotonic
                    if driver.places.release(slot, 1, monotonic(), self):
                        more = True
                        driver.machine.settle(slot, monotonic())
            if more:
                driver.commit()
        except BaseException:
            driver.recover()
            raise

    def release_refused(self) -> None:
        """As `release`, for a call that the server refused."""
        self.driver.tell(self._release_refused)

    def _release_refused(self, now: float) -> None:
        if self._slot is not None and not self._released:
            self.driver.machine.refused_stream(self._slot, self, now)

    def end(self, ended: Any) -> bool:
        """Releases the place of the call, or error, that `ended`; returns whether the server refused the call."""
        if is_refused_stream(ended):
            self.release_refused()
            return True
        # In this order: a slot that carries less because a call failed on it is the more attractive.
        if self._slot is not None and not self._released:
            self.driver.call_failed(self._slot, code_of(ended), details_of(ended))
        self.release()
        return False

    def __del__(self) -> None:
        """Releases a place that nothing else has released."""
        slot = self._slot
        if slot is not None and not self._released and not self.driver.void:
            self.driver.defer(partial(self.driver.release, slot, 1))


def new_place(driver: SyncDriver, slot: Slot | None = None) -> Place:
    """The place that has been taken on `slot`; a place that is still to be taken if none is given."""
    place = Place()
    place.driver, place._slot, place._released = driver, slot, False
    return place
