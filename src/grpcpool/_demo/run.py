"""Runs the parts of the demonstration, one after the other."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Final, TextIO

from .leases import show_leases
from .limit import show_limit
from .process import kill_servers
from .restart import show_restart
from .screen import OutputClosedError, Screen
from .sick import show_sick
from .tasks import Tasks
from .threads import Threads
from .world import World

Part = Callable[[World, Screen], list[str]]
"""Shows something; returns what was lost."""

PARTS: tuple[Part, ...] = (show_limit, show_sick, show_restart, show_leases)

INTERRUPTED: Final = 130

# It takes about fifteen seconds; on a busy machine, a minute. No part begins after that, and none takes as long as what
# remains. If something hangs, the demonstration ends anyway.
_LAST_BEGINS = 70.0
_TIME_LIMIT = 120.0


def run_demo(out: TextIO | None, *, aio: bool = False) -> int:
    """Shows every part on `out`, with threads or asyncio; returns the exit code: 0 if nothing was lost.

    If the program that reads `out` ends, the demonstration ends silently with 1. `None` stands for a closed output.
    """
    if out is None:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            return run_demo(nowhere, aio=aio)
    try:
        return _run_parts(Tasks() if aio else Threads(), Screen(out))
    except OutputClosedError:
        # Otherwise Python reports at its exit that it could not write what is still buffered.
        nowhere_fd = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere_fd, out.fileno())
        os.close(nowhere_fd)
        return 1


def _run_parts(world: World, screen: Screen) -> int:
    problems: list[str] = []
    alarm = threading.Timer(_TIME_LIMIT, _give_up, [screen])
    alarm.daemon = True
    # What the pool logs while servers restart is for operators.
    logging.getLogger("grpcpool").addHandler(logging.NullHandler())
    ends = time.monotonic() + _LAST_BEGINS
    with _quiet_interrupt(screen):
        alarm.start()
        try:
            for part in PARTS:
                if time.monotonic() < ends:
                    problems += _run_part(part, world, screen)
                else:
                    screen.write("\nThis machine was too busy to show more.")
                    break
        finally:
            alarm.cancel()
            screen.end_live()
        return _report(problems, screen)


def _run_part(part: Part, world: World, screen: Screen) -> list[str]:
    """Shows a part; returns what was lost, or the error that it raised, below its table as it was then."""
    try:
        return part(world, screen)
    except OutputClosedError:
        raise
    except Exception as error:  # noqa: BLE001 -- every error is reported
        _show_unfinished(screen)
        return [f"{type(error).__name__}: {error}"]


def _report(problems: list[str], screen: Screen) -> int:
    """Writes what was lost; returns the exit code."""
    for text in problems:
        screen.write(f"failed: {text}")
    if not problems:
        screen.write("\nNothing was lost: every call has ended, and every connection is closed.")
    return 1 if problems else 0


@contextlib.contextmanager
def _quiet_interrupt(screen: Screen) -> Iterator[None]:
    """Lets Ctrl-C end the process at once during the ``with`` block, wherever its threads are."""

    def end(_signal: int, _frame: FrameType | None) -> None:
        screen.leave()
        kill_servers()
        os._exit(INTERRUPTED)

    before = signal.getsignal(signal.SIGINT)
    # Only the main thread may set it. A process in the background ignores Ctrl-C.
    if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
        yield
        return
    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _show_unfinished(screen: Screen) -> None:
    # What the part has so far may not be enough for a table. An output that is closed shows at the next line.
    with contextlib.suppress(Exception):
        screen.show_unfinished()


def _give_up(screen: Screen) -> None:
    """Ends the process, which also ends the servers."""
    _show_unfinished(screen)
    screen.write(f"failed: not finished within {_TIME_LIMIT:.0f} s")
    os._exit(1)
