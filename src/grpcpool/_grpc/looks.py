"""Keeps an older gRPC from looking at its connections while the process is being forked.

Before 1.80, a fork while another thread is in such a wait skips what gRPC does for forks: the parent may crash, and the
child may never connect. The pool's own threads look while no call runs, so users cannot prevent that. A look that
begins while a process is being forked does not wait.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from .version import NOTICES_LOSSES

# A look takes some 2 ms. One that a fork on its own thread has interrupted, as from a signal handler, does not end.
_LONGEST = 0.1
_PAUSE = 0.0005

# Changed by single operations, without a lock that a fork could find locked.
_running: set[object] = set()
_forking: list[None] = []


def look(wait: Callable[[], object]) -> None:
    """Waits, unless a process is being forked."""
    this = object()
    try:
        # In this order: a fork first says that it begins, and then waits for those that run.
        _running.add(this)
        if not _forking:
            wait()
    finally:
        _running.discard(this)


def before_fork() -> None:
    """From here on no look waits."""
    _forking.append(None)
    over = time.monotonic() + _LONGEST
    while _running and time.monotonic() < over:
        time.sleep(_PAUSE)


def after_fork() -> None:
    """In the parent, looks wait again."""
    _forking.pop()


def after_fork_in_child() -> None:
    """In the child, looks wait again; those of other threads are gone."""
    _forking.clear()
    _running.clear()


if hasattr(os, "register_at_fork") and not NOTICES_LOSSES:
    os.register_at_fork(before=before_fork, after_in_parent=after_fork, after_in_child=after_fork_in_child)
