"""Starting threads, and waiting for them.

No lock is held while a thread is started: the garbage collector may run in a new thread before it counts as started.
Finalizers that need the lock would wait for the thread that starts it, and that waits for them.
"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from collections.abc import Callable
from types import FrameType

from .signal_handlers import may_be_of_handler

# Between two looks at a thread that is being started.
_LOOKS_EVERY = 0.001

# How Python says that a thread cannot be started: "can't start new thread", or since 3.12 "can't create new thread at
# interpreter shutdown".
_CANNOT = "can't "

# Those that could not be started.
_failed: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


class NoThreadError(RuntimeError):
    """A thread cannot be started: the process is at its limit, or the interpreter shuts down.

    A type of its own: a signal handler may raise any `RuntimeError` while a thread is being started.
    """


def new_thread(work: Callable[[], object], name: str) -> threading.Thread:
    """A daemon thread that does `work`, not started yet."""
    return threading.Thread(target=work, name=name, daemon=True)


def start(thread: threading.Thread) -> None:
    """Starts the thread.

    Raises:
        NoThreadError: It cannot be started.
    """
    if sys.is_finalizing():
        # On some versions of Python it would never run, and starting it waits until it runs.
        raise NoThreadError("the interpreter is shutting down")
    try:
        thread.start()
    except RuntimeError as error:
        if not str(error).startswith(_CANNOT) and may_be_of_handler(error):
            raise
        _failed.add(thread)
        raise NoThreadError(str(error)) from error


def is_being_started() -> bool:
    """Whether another thread still waits, in `start`, until this one runs: what runs here is a finalizer."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals is vars(threading) and frame.f_code.co_name == "_bootstrap_inner":
            return not frame.f_locals["self"].is_alive()
        frame = frame.f_back
    return False


def join(thread: threading.Thread, timeout: float) -> None:
    """Waits up to `timeout` seconds for the end of a thread, which another one may be starting just now."""
    until = time.monotonic() + timeout
    while thread.ident is None and thread not in _failed and time.monotonic() < until:
        time.sleep(_LOOKS_EVERY)
    if thread.ident is not None:
        thread.join(max(0.0, until - time.monotonic()))
