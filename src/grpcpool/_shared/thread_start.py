"""Starting a thread."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable


def new_thread(work: Callable[[], object], name: str) -> threading.Thread:
    """A daemon thread that does `work`, not started yet."""
    return threading.Thread(target=work, name=name, daemon=True)


def start(thread: threading.Thread) -> threading.Thread:
    """Starts the thread, and returns it.

    Raises:
        RuntimeError: It cannot be started: the process is at its limit, or the interpreter shuts down.
    """
    if sys.is_finalizing():
        # On some versions of Python it would never run, and starting it waits until it runs.
        raise RuntimeError("the interpreter is shutting down")
    thread.start()
    return thread
