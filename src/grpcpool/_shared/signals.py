"""What signal handlers raise, whatever the main thread is doing."""

from __future__ import annotations

import asyncio
import threading


def may_be_a_signals(error: BaseException) -> bool:
    """Whether a signal handler, and not the foreign code that ran, may have raised this, as for Ctrl-C.

    Handlers run in the main thread only. On any other thread nothing that foreign code raises may pass: it would end
    the pool's worker, or gRPC's callback thread. `asyncio.CancelledError` may not pass on any thread: what is not a
    coroutine awaits nothing, so no task was cancelled.
    """
    if isinstance(error, Exception | asyncio.CancelledError):
        return False
    return threading.current_thread() is threading.main_thread()
