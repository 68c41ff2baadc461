"""How threads wait: so that signal handlers run meanwhile, whichever thread the signal has reached.

CPython runs signal handlers in the main thread, when that runs Python code. It is woken for that only if the signal
reaches it while it sleeps: not if another thread gets the signal, nor if it comes just before. gRPC's own waits in the
main thread therefore look every tenth of a second, and so do these.
"""

from __future__ import annotations

import os
import threading
import time

_LOOKS_EVERY = 0.1

_main_thread = threading.main_thread().ident


def _note_main_thread() -> None:
    global _main_thread  # noqa: PLW0603 -- it is another one in a child that another thread has forked
    _main_thread = threading.main_thread().ident


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_main_thread)


def acquire_within(lock: threading.Lock, seconds: float) -> bool:
    """Acquires `lock`, which is released by what is waited for; returns whether it came within `seconds`.

    `math.inf` waits without limit.
    """
    if threading.get_ident() == _main_thread:
        until = time.monotonic() + seconds
        while seconds > _LOOKS_EVERY:
            if lock.acquire(timeout=_LOOKS_EVERY):
                return True
            seconds = max(0.0, until - time.monotonic())
    # Without limit, if it is more than a lock can wait for.
    return lock.acquire(timeout=seconds if seconds <= threading.TIMEOUT_MAX else -1)
