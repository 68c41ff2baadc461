"""Finalizers: they may interrupt any line of a thread, also one that holds a pool's lock.

There, waiting for the lock would be a deadlock. The pool's own finalizers leave their work to others (`Driver.defer`).
Finalizers of users, and of gRPC's intercepted calls, release leases and cancel calls. These methods defer the work as
well when the lock is held, possibly by this very thread.
"""

from __future__ import annotations

import sys
import time
from types import FrameType
from typing import TYPE_CHECKING, Final

from .._machine.places import Holding

if TYPE_CHECKING:
    from .._machine.slot import Slot
    from .driver import Driver

_PACKAGE = "grpcpool."

# Between two looks at a lock.
_LOOKS_EVERY = 0.001

MAY_BE_OTHERS: Final = 0.1
"""Seconds after which a lock that is still held is this thread's own: others hold it for less."""


def interrupts_package() -> bool:
    """Whether foreign code that calls into this package interrupts, on the same thread, code of the package.

    Code that the package has called, such as a listener or a callback, counts as foreign.
    """
    return _interrupted() is not None


def _interrupted() -> tuple[int, int] | None:
    """Where foreign code interrupts the package: the frame and the instruction, by their numbers."""
    frame: FrameType | None = sys._getframe()
    foreign = False
    while frame is not None:
        ours = str(frame.f_globals.get("__name__")).startswith(_PACKAGE)
        if ours and foreign:
            return id(frame), frame.f_lasti
        foreign = foreign or not ours
        frame = frame.f_back
    return None


def interrupts(driver: Driver, within: float = 0.0) -> bool:
    """Whether this may be a finalizer that interrupts its thread with a lock held: it has to `defer` its work.

    It need not be if the lock of the machine becomes free within so many seconds: then another thread holds it.
    """
    until = time.monotonic() + within
    while not driver.guard._is_owned():
        where = _interrupted() if driver.lock.locked() else None
        if where is None:
            driver.interrupted_at = None
            return False
        if where == driver.interrupted_at:
            # As a finalizer before this one has found out there.
            break
        if time.monotonic() >= until:
            if within:
                driver.interrupted_at = where
            break
        time.sleep(_LOOKS_EVERY)
    return True


class LeftPlace(Holding):
    """A place whose holder has been collected. It is released when this is called.

    If a signal handler raises before that is done, it is called again, or collected and followed by another one.
    """

    __slots__ = ("_driver", "_streams")

    def __init__(self, driver: Driver, slot: Slot, streams: int | None) -> None:
        """Holds the place on `slot`."""
        self._driver = driver
        self._streams = streams
        super().__init__(slot)

    def __call__(self) -> None:
        """Releases the place, once."""
        if self._slot is None or self._released:
            return
        try:
            self._driver.release(self._slot, self._streams, self)
        except BaseException:
            if not self._released:
                self._driver.defer(self)
            raise

    def __del__(self) -> None:
        slot = getattr(self, "_slot", None)
        if slot is None or self._released:
            return
        # That of a driver that is collected as well would keep it, for ever: each would be followed by another one.
        if not (self._driver.void or self._driver.is_orphan()):
            self._driver.defer(LeftPlace(self._driver, slot, self._streams))
