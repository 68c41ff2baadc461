"""Cancels calls that block their threads: gRPC returns no object for them while they run.

Closing a channel cancels them, but the connections of a shared pool carry the calls of others as well.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable
from typing import Any, Final

import grpc

from .missing import warn_of_missing

_BLOCKING: Final = "_blocking"
_CALL: Final = "call"
_MODULE: Final = "grpc._channel"

CHANNEL_CLOSED: Final = "Channel closed!"
"""gRPC's text."""


def cancel_blocking(threads: Iterable[int]) -> None:
    """Cancels the call that each of these threads waits for, as the close of its channel would. Some may have none."""
    if not _is_known():
        warn_of_missing("_UnaryUnaryMultiCallable._blocking")
        return
    frames = sys._current_frames()
    for thread in threads:
        call = _call_of(frames.get(thread))
        if call is not None:
            call.cancel(grpc.StatusCode.CANCELLED.value[0], CHANNEL_CLOSED)


@functools.cache
def _is_known() -> bool:
    """Whether gRPC's blocking calls wait where this module expects it."""
    module = sys.modules.get(_MODULE)
    waits = getattr(getattr(module, "_UnaryUnaryMultiCallable", None), _BLOCKING, None)
    return _CALL in getattr(getattr(waits, "__code__", None), "co_varnames", ())


def _call_of(frame: Any) -> Any:
    while frame is not None:
        if frame.f_code.co_name == _BLOCKING and frame.f_globals.get("__name__") == _MODULE:
            # Not there yet: the call is about to begin.
            return frame.f_locals.get(_CALL)
        frame = frame.f_back
    return None
