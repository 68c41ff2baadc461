"""The close of a channel whose thread may be missing, because a signal handler raised while gRPC was starting it.

The close waits for the channel's futures and streams, whose end that thread notices: without it, the close would wait
forever, and the connection stay open. Here a thread of the pool's serves them until then. Only one may serve a channel:
what the close frees would crash another. So gRPC's, if there is one, is ended first.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import types
from collections.abc import Sized
from typing import Any, Self

from .client_modules import CLIENT_MODULES, call_state_of, compiled_channel, kept_by_state
from .empty_calls import begin_empty_call
from .interrupted_calls import module_of
from .missing import warn_of_missing

# Seconds within which gRPC's thread takes an event; and between two looks whether it has ended.
_PATIENCE = 2.0
_PAUSE = 0.01


class _Ended:
    """What gRPC's thread gets in place of its channel, and of an event: that of the end of the last call."""

    completion_type = None

    def __init__(self, state: Any) -> None:
        """For the thread of the channel of that state."""
        self._state = state

    def next_call_event(self) -> Self:
        """The event."""
        self._state.managed_calls = 1
        return self

    def tag(self, _: object) -> bool:
        """A call has ended."""
        return True


def serve_until_closed(channel: Any) -> bool:
    """Ends gRPC's thread of a channel, and starts one that serves what is left of its calls, until there are none.

    The channel is to be closed next, and begins no calls any more.

    Returns:
        Whether it can be closed. If no thread can be started, as when the interpreter exits, that might wait forever.
    """
    compiled = compiled_channel(channel)
    if compiled is None:
        return True
    taken = threading.Event()
    try:
        state = call_state_of(channel)
        # By their events.
        (calls,) = [it for it in kept_by_state(compiled) if type(it) is dict]
        state.channel = _Ended(state)
        if _is_served(state):
            # It may wait for an event, or be about to end.
            with contextlib.suppress(ValueError):
                begin_empty_call(compiled, lambda _: taken.set())
                until = time.monotonic() + _PATIENCE
                while not taken.wait(_PAUSE) and _is_served(state) and time.monotonic() < until:
                    pass
        thread = threading.Thread(target=_serve, args=(compiled, calls), name="grpcpool-broken", daemon=True)
        return _starts(thread) or not calls
    except (AttributeError, TypeError, ValueError):
        warn_of_missing("_call_state")
        return True


def _starts(thread: threading.Thread) -> bool:
    try:
        thread.start()
    except RuntimeError:
        return False
    return True


def _is_served(state: Any) -> bool:
    """Whether gRPC's thread of the channel of that state runs."""
    return any(_is_for(state, frame) for frame in sys._current_frames().values())


def _is_for(state: Any, frame: types.FrameType | None) -> bool:
    """Whether a thread that is in `frame` serves the channel of that state, or begins a call on it."""
    while frame is not None:
        if module_of(frame) in CLIENT_MODULES and frame.f_locals.get("state") is state:
            return True
        frame = frame.f_back
    return False


def _serve(compiled: Any, calls: Sized) -> None:
    """As gRPC's thread does. It alone takes events, so that as long as there are calls, more come."""
    while calls:
        event = compiled.next_call_event()
        if event.tag is not None:
            event.tag(event)
