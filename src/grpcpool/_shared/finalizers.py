"""Finalizers: they may interrupt any line of a thread, also one that holds a pool's lock.

There, waiting for the lock would be a deadlock. The pool's own finalizers leave their work to others (`Driver.defer`).
Finalizers of users, and of gRPC's intercepted calls, release leases and cancel calls. These methods defer the work as
well when the lock is held, possibly by this very thread.
"""

from __future__ import annotations

import sys
from types import FrameType

_PACKAGE = "grpcpool."


def interrupts_package() -> bool:
    """Whether foreign code that calls into this package interrupts, on the same thread, code of the package.

    Code that the package has called, such as a listener or a callback, counts as foreign.
    """
    frame: FrameType | None = sys._getframe()
    foreign = False
    while frame is not None:
        ours = str(frame.f_globals.get("__name__")).startswith(_PACKAGE)
        if ours and foreign:
            return True
        foreign = foreign or not ours
        frame = frame.f_back
    return False
