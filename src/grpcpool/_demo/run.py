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

# It takes about ten seconds. If something hangs, here or in gRPC, the demonstration ends anyway.
_TIME_LIMIT = 19.0


def run_demo(out: TextIO, *, aio: bool = False) -> int:
    """Shows every part on `out`, with threads or asyncio; returns the exit code: 0 if there were no problems."""
    screen = Screen(out)
    world = Tasks() if aio else Threads()
    problems: list[str] = []
    alarm = threading.Timer(_TIME_LIMIT, _give_up, [screen])
    alarm.daemon = True
    alarm.start()
    try:
        for part in PARTS:
            problems += part(world, screen)
    finally:
        alarm.cancel()
        screen.end_live()
    for text in problems:
        screen.write(f"failed: {text}")
    return 1 if problems else 0


def _give_up(screen: Screen) -> None:
    """Ends the process, which also ends the server."""
    screen.write(f"failed: not finished within {_TIME_LIMIT:.0f} s")
    os._exit(1)
