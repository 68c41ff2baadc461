"""Cancels calls that block their threads: gRPC returns no object for them while they run.

Closing a channel cancels them, but the connections of a shared pool carry the calls of others as well.
"""

from __future__ import annotations

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
    frames = sys._current_frames()
    for thread in threads:
        call = _call_of(frames.get(thread))
        if call is not None:
            _cancel(call)


def _call_of(frame: Any) -> Any:
    while frame is not None:
        if frame.f_code.co_name == _BLOCKING and frame.f_globals.get("__name__") == _MODULE:
            # Not there yet: the call is about to begin.
            return frame.f_locals.get(_CALL)
        frame = frame.f_back
    return None


def _cancel(call: Any) -> None:
    try:
        call.cancel(grpc.StatusCode.CANCELLED.value[0], CHANNEL_CLOSED)
    except AttributeError:
        warn_of_missing("_blocking")
    except ValueError:
        # It has ended.
        return
