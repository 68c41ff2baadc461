"""Methods that a stub registers with its channel (since 1.63), so that gRPC need not send their names each time.

gRPC crashes the process when a method is registered with a closed `grpc.Channel`, or while that is being closed (1.64
to 1.85). Stubs do it when they are made; an interceptor chain does it at each call, and a pool when a call begins. So
each channel of a pool gets a guard, and no method is registered with a channel that has none.
"""

from __future__ import annotations

import inspect
import threading
import weakref
from collections.abc import Callable
from typing import Any

from .client_modules import CLIENT_MODULES, layers_of
from .missing import warn_of_missing


def takes_registered(make: Callable[..., Any]) -> bool:
    """Whether this maker of multicallables has ``_registered_method``: those of other makes may not."""
    try:
        return "_registered_method" in inspect.signature(make).parameters
    except (TypeError, ValueError):
        return False


def guard_registration(channel: Any) -> bool:
    """Registering a method with `channel` and closing it exclude each other from now on, on all threads.

    Returns:
        Whether that is so. It is not for a channel in which none of gRPC's own can be found.
    """
    own = [layer for layer in layers_of(channel) if type(layer).__module__ in CLIENT_MODULES]
    for layer in own:
        if not hasattr(layer, "_get_registered_call_handle"):
            if takes_registered(layer.unary_unary):
                warn_of_missing("Channel._get_registered_call_handle")
        elif not hasattr(layer, "_close"):
            warn_of_missing("Channel._close")
        else:
            _guard(layer)
            return True
    return False


def _guard(channel: Any) -> None:
    if not isinstance(getattr(channel._close, "__self__", None), _Guard):
        guard = _Guard(channel)
        channel._get_registered_call_handle, channel._close = guard.register, guard.close


class _Guard:
    """Takes the place of two methods of one channel."""

    def __init__(self, channel: Any) -> None:
        # Weakly, so that the channel still goes with its last reference.
        self._channel = weakref.ref(channel)
        self._register = type(channel)._get_registered_call_handle
        self._close = type(channel)._close
        # Reentrant: a signal handler may close the channel with which its thread is registering a method.
        self._lock = threading.RLock()
        self._registering = 0
        self._closed = self._closes_next = False

    def register(self, method: str) -> Any:
        """As gRPC's. On a closed channel the method stays unregistered; gRPC then raises when it is called."""
        with self._lock:
            if self._closed:
                return None
            channel = self._channel()
            self._registering += 1
            try:
                return self._register(channel, method)
            finally:
                self._registering -= 1
                if self._closes_next:
                    self._close(channel)

    def close(self) -> None:
        """As gRPC's, when no method is being registered."""
        with self._lock:
            self._closed = True
            if self._registering:
                # A signal handler has interrupted `register`, which closes the channel when it is done.
                self._closes_next = True
                return
        self._close(self._channel())
