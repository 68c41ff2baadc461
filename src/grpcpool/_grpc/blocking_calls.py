"""Cancels calls that block their threads: gRPC returns no object for them while they run.

Closing a channel cancels them, but the connections of a shared pool carry the calls of others as well.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Collection
from types import FrameType
from typing import Any, Final

import grpc

from .missing import warn_of_missing

_BLOCKING: Final = "_blocking"
_CALL: Final = "call"
_MODULE: Final = "grpc._channel"

# It turns the garbage collector off and on.
_one_at_a_time: Final = threading.Lock()

CHANNEL_CLOSED: Final = "Channel closed!"
"""gRPC's text."""


def cancel_blocking(threads: Collection[int], is_within: Callable[[FrameType], bool]) -> None:
    """Cancels calls that threads wait for, as the close of their channel would.

    Args:
        threads: The threads. Some may wait for nothing any more, or for something else.
        is_within: Whether a frame is one that waits for a call that is to be cancelled.
    """
    if not threads:
        return
    if not _is_known():
        warn_of_missing("_UnaryUnaryMultiCallable._blocking")
        return
    for call in _calls_of(threads, is_within):
        call.cancel(grpc.StatusCode.CANCELLED.value[0], CHANNEL_CLOSED)


def _calls_of(threads: Collection[int], is_within: Callable[[FrameType], bool]) -> list[Any]:
    with _one_at_a_time:
        collects = gc.isenabled()
        # In Python 3.11 a collection within `_current_frames` waits for itself.
        gc.disable()
        frames = {}
        try:
            frames = sys._current_frames()
            found = [_call_of(frames[thread], is_within) for thread in threads if thread in frames]
        finally:
            # They hold the frame of this function, and so all that the callers of it and of other threads hold.
            frames.clear()
            if collects:
                gc.enable()
    return [call for call in found if call is not None]


def _is_known() -> bool:
    """Whether gRPC's blocking calls wait where this module expects it."""
    module = sys.modules.get(_MODULE)
    if module is None:
        # Not imported yet, or the interpreter shuts down: nothing waits there.
        return True
    waits = getattr(getattr(module, "_UnaryUnaryMultiCallable", None), _BLOCKING, None)
    return _CALL in getattr(getattr(waits, "__code__", None), "co_varnames", ())


def _call_of(frame: FrameType | None, is_within: Callable[[FrameType], bool]) -> Any:
    call = None
    while frame is not None:
        if frame.f_code.co_name == _BLOCKING and frame.f_globals.get("__name__") == _MODULE:
            # Not there yet: the call is about to begin.
            call = frame.f_locals.get(_CALL)
        elif call is not None and is_within(frame):
            return call
        frame = frame.f_back
    return None
