"""Cancels calls that block their threads: gRPC returns no object for them while they run.

Closing a channel cancels them, but the connections of a shared pool carry the calls of others as well.
"""

from __future__ import annotations

import gc
import os
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


class _Look:
    """At the frames of threads: one at a time, because it turns the garbage collector off and on."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        # Whether the garbage collector is off because of it.
        self.turned_off = False


_look = _Look()


def _renew_look() -> None:
    global _look  # noqa: PLW0603 -- in a forked child, the thread that was looking is gone
    if _look.turned_off:
        gc.enable()
    _look = _Look()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_look)

CANCELLED: Final = grpc.StatusCode.CANCELLED.value[0]
"""As gRPC's own calls below those of Python take it."""

CHANNEL_CLOSED: Final = "Channel closed!"
DROPPED: Final = "Cancelled upon garbage collection!"
"""gRPC's texts."""


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
        call.cancel(CANCELLED, CHANNEL_CLOSED)


def _calls_of(threads: Collection[int], is_within: Callable[[FrameType], bool]) -> list[Any]:
    look = _look
    with look.lock:
        frames = {}
        look.turned_off = gc.isenabled()
        try:
            # In Python 3.11 a collection within `_current_frames` waits for itself.
            gc.disable()
            frames = sys._current_frames()
            found = [_call_of(frames[thread], is_within) for thread in threads if thread in frames]
        finally:
            # They hold the frame of this function, and so all that the callers of it and of other threads hold.
            frames.clear()
            if look.turned_off:
                gc.enable()
                look.turned_off = False
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
