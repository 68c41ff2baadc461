"""Runs the parts of the demonstration, one after the other."""

from __future__ import annotations

import os
import threading
from typing import TextIO

from .calls import show_calls
from .leases import show_leases
from .screen import Screen
from .tasks import Tasks
from .threads import Threads

PARTS = (show_leases, show_calls)

# Of some ten. What hangs, hangs here or in gRPC; either way nobody is to wait for it.
_AT_MOST = 19.0


def run_demo(out: TextIO, *, aio: bool = False) -> int:
    """Shows every part on `out`, on threads or on asyncio; returns the exit code: 0 if all went as it should."""
    screen = Screen(out)
    world = Tasks() if aio else Threads()
    wrong: list[str] = []
    alarm = threading.Timer(_AT_MOST, _give_up, [screen])
    alarm.daemon = True
    alarm.start()
    try:
        for part in PARTS:
            wrong += part(world, screen)
    finally:
        alarm.cancel()
        screen.end_live()
    for text in wrong:
        screen.write(f"wrong: {text}")
    return 1 if wrong else 0


def _give_up(screen: Screen) -> None:
    """Ends the process, which ends the server."""
    screen.write(f"wrong: not done within {_AT_MOST:.0f} s")
    os._exit(1)
