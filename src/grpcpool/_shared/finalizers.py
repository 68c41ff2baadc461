"""Finalizers: they may interrupt any line of a thread, also one that holds a pool's lock.

To wait for the lock there would be to wait for oneself. The pool's own finalizers leave their work to others
(`Driver.defer`). Those of users, and of gRPC's intercepted calls, release leases and cancel calls; these defer it, too,
where the lock is held and it may be this thread that holds it.
"""

from __future__ import annotations

import sys
from types import FrameType

_PACKAGE = "grpcpool."


def interrupts_package() -> bool:
    """Whether foreign code that calls into this package interrupts, on the same thread, code of the package.

    So does code that the package has called: a listener, a callback.
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
