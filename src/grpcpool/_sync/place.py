"""The place of a call over a pool: one stream of one connection, which is released exactly once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from .._grpc.call_errors import is_answer_pending
from .._grpc.status import Status, code_of, details_of, is_without_metadata, says_refused
from .._machine.slot import Slot
from .._shared.finalizers import LeftPlace
from .driver import SyncDriver

# Looking it up in its enum takes longer than the rest of the line.
_OK = grpc.StatusCode.OK


class Place:
    """Releases the place at the latest when it is collected. It exists before the place is taken.

    So a place is not lost when a signal handler raises between the pool and the call, on the way in or out. What waits
    for the end of the call holds this.
    """

    __slots__ = ("_released", "_slot", "at_once", "began", "driver", "waits")

    # Set by its creator: calling an __init__ would cost as much again as all the rest.
    driver: SyncDriver
    _slot: Slot | None
    _released: bool
    # When the call began, or got its place if it waited for it.
    began: float
    # Whether a call that failed may be sent again at once; whether it was not refused, but never sent, and waits for
    # ready.
    at_once: bool
    waits: bool

    def release(self, *, answered: bool = False) -> None:
        """Releases the place, of a call that the server has `answered` or not; does nothing if it has been released."""
        driver = self.driver
        try:
            with driver.lock:
                slot = self._slot
                if slot is None or self._released:
                    return
                monotonic, places = driver.monotonic, driver.places
                release = places.release if answered else places.release_unanswered
                if not release(slot, 1, monotonic(), self):
                    return
                driver.machine.settle(slot, monotonic())
            driver.commit()
        except BaseException:
            driver.recover()
            raise

    def interrupted(self) -> None:
        """Releases the place of a call that raised no status: a signal handler may have interrupted gRPC."""
        self.driver.interrupted(self._slot)
        self.release()

    def end(
        self, ended: Any, may_resend: Callable[[], bool] = bool, *, waits: bool = False, can_wait: bool = False
    ) -> bool | None:
        """Releases the place of the call, or error, that `ended`; returns whether it may be sent again.

        The server has refused it, or it was never sent.

        Args:
            ended: The call or error; `None` for a stream that was dropped.
            may_resend: Whether it is sent again, if the server has not executed it. Asked only for one that failed;
                by default `False`.
            waits: Whether the call waits for ready.
            can_wait: Whether to release nothing, and to return `None`, while gRPC does not know yet what the server
                did.
        """
        driver, slot = self.driver, self._slot
        code = code_of(ended)
        if code is not _OK and slot is not None and not self._released:
            status = Status(code, details_of(ended))
            refused = says_refused(*status)
            if (refused or status.unreached is not None) and is_without_metadata(ended):
                if can_wait and is_answer_pending(ended):
                    return None
                if refused:
                    self.waits = False
                    self.at_once = driver.tell(driver.machine.refused_stream, slot, self, self.began)
                    return True
                if may_resend() and driver.release_unsent(slot, self, self.began, status, waits=waits):
                    self.at_once, self.waits = True, waits
                    return True
            driver.call_failed(slot, self, self.began, status)
        self.release(answered=True)
        return False

    def resend_at(self, resends: int) -> float | None:
        """When the call, which has been sent again so often, is sent again after its `end`; `None` if it is not."""
        return self.driver.resend_at(resends, at_once=self.at_once, waits=self.waits)

    def __del__(self) -> None:
        """Releases a place that nothing else has released."""
        # A signal handler may have raised before its creator had set anything.
        slot = getattr(self, "_slot", None)
        if slot is not None and not self._released and not self.driver.void:
            self.driver.defer(LeftPlace(self.driver, slot, 1))


def new_place(driver: SyncDriver, slot: Slot | None = None) -> Place:
    """The place that has been taken on `slot`; a place that is still to be taken if none is given."""
    place = Place()
    place.driver, place.began, place._slot, place._released = driver, driver.monotonic(), slot, False
    return place
