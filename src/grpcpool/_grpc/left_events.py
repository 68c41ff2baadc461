"""Takes the events of single-threaded streams that were dropped before all had come.

No thread of gRPC's watches a stream of a channel with the option `SingleThreadedUnaryStream`: its reader takes each of
its events. gRPC frees such a stream, which keeps its connection open, once all of them have been taken. Of a stream
that is dropped early, is cancelled, or fails at once, some are left: its connection would stay open for as long as the
process runs, also after its channel was closed. So a thread takes what is left.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import time
import weakref
from collections import deque
from collections.abc import Collection
from typing import Any, Final

from .blocking_calls import CANCELLED, DROPPED
from .client_modules import CLIENT_MODULES
from .missing import warn_of_missing

# Seconds between two looks whether events of a cancelled stream are left: they come within a millisecond.
_PAUSE: Final = 0.001

# Seconds after which those of one are no longer expected. If a signal handler has raised within gRPC, an event may have
# been lost, and gRPC never frees that stream.
_PATIENCE: Final = 10.0


class _Left:
    """The dropped streams of this process, and the thread that takes their events, which runs while there are some."""

    def __init__(self) -> None:
        # What is below the calls of Python.
        self.calls: deque[Any] = deque()
        # Held by the thread.
        self.taking = _thread.allocate_lock()


_left = _Left()
# Those of the processes that this one was forked from: they are left untouched.
_parked: list[_Left] = []


def _renew_left() -> None:
    global _left  # noqa: PLW0603 -- in a forked child, the thread is gone, and the streams are the parent's
    _parked.append(_left)
    _left = _Left()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_left)


def take_when_dropped(call: Any) -> None:
    """Once `call` is dropped, it is cancelled, and what is left of its events is taken; if it has events of its own."""
    below = getattr(call, "_call", None)
    if type(call).__module__ in CLIENT_MODULES and hasattr(below, "next_event"):
        # Not the state, which holds the callbacks, which may hold the call.
        due = getattr(getattr(call, "_state", None), "due", (True,))
        weakref.finalize(call, _dropped, _left, below, due).atexit = False


def _dropped(left: _Left, below: Any, due: Collection[object]) -> None:
    """In a finalizer, which may interrupt any line, also one that holds a lock: so this waits for none."""
    if due and left is _left:
        left.calls.append(below)
        if not left.taking.locked():
            # If no thread can be started, the next that is dropped tries again.
            with contextlib.suppress(RuntimeError):
                _thread.start_new_thread(_take_all, (left,))


def _take_all(left: _Left) -> None:
    # A stream that is dropped while the lock is held may be added after the last look: so there is another one.
    while left.calls and left.taking.acquire(blocking=False):
        try:
            _take_in_turns(left.calls)
        finally:
            left.taking.release()


def _take_in_turns(calls: deque[Any]) -> None:
    """Takes what is left of the events of all of them. One whose events do not come keeps no other waiting."""
    begun: deque[tuple[Any, float]] = deque()
    while calls or begun:
        while calls:
            begun.append((calls.popleft(), time.monotonic() + _PATIENCE))
        for _ in range(len(begun)):
            below, until = begun.popleft()
            if not _take(below) and time.monotonic() < until:
                begun.append((below, until))
        if begun:
            time.sleep(_PAUSE)


def _take(below: Any) -> bool:
    """Cancels one, and takes the events that have come; returns whether these were all.

    gRPC begins an operation without content, which adds an event that it brings at once, unless it has freed the call.
    To take an event of one that has been freed would crash.
    """
    try:
        below.cancel(CANCELLED, DROPPED)
        if not below.operate((), None):
            return True
        while below.next_event().batch_operations:
            pass
    except Exception:  # noqa: BLE001 -- it is private: no assumption holds
        warn_of_missing("_call.next_event")
        return True
    return False
