"""What signal handlers raise, whatever the main thread is doing."""

from __future__ import annotations

import asyncio
import functools
import signal
import threading
import types
from typing import Any


def may_be_of_handler(error: BaseException) -> bool:
    """Whether a signal handler, and not the foreign code that ran, may have raised this, as for Ctrl-C.

    Handlers run in the main thread only. On any other thread nothing that foreign code raises may pass: it would end
    the pool's worker, or gRPC's callback thread. `asyncio.CancelledError` may not pass on any thread: what is not a
    coroutine awaits nothing, so no task was cancelled. An `Exception`, such as Celery's `SoftTimeLimitExceeded`, is a
    handler's if the function that handles a signal is in its traceback.
    """
    if isinstance(error, asyncio.CancelledError) or threading.current_thread() is not threading.main_thread():
        return False
    return not isinstance(error, Exception) or _passed_a_handler(error)


def _passed_a_handler(error: Exception) -> bool:
    codes = {_code_of(signal.getsignal(number)) for number in signal.valid_signals()}
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        trace = trace.tb_next
    return False


def _code_of(handler: Any) -> types.CodeType | None:
    """The code of a handler; `None` of one that is not Python's."""
    while isinstance(handler, functools.partial):
        handler = handler.func
    if not hasattr(handler, "__code__"):
        # A method has it; the object of a class that can be called has such a method.
        handler = getattr(handler, "__call__", None)  # noqa: B004 -- to inspect the method, not to call it
    return getattr(handler, "__code__", None)
