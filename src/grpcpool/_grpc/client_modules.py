"""The modules of gRPC's that sync channels and calls are from: whether a frame or an object is gRPC's.

Private, and so learned from the channels that the factories of pools return. To import the module would fix settings
that gRPC reads from the environment when it is imported.
"""

from __future__ import annotations

import gc
import sys
import types
from collections.abc import Iterator
from typing import Any

CLIENT_MODULES = {"grpc._channel"}
"""Their names."""

AIO_CHANNELS = "grpc.aio._channel"
"""The module of asyncio channels."""

WHOLE_MODULES: set[str] = set()
"""Those of them that have been imported to the end. Other threads see a module while it is being imported."""

_PACKAGE = "grpc."
_COMPILED = "grpc._cython."

# Interceptors wrap channels in channels, but never deeper than this.
_DEEPEST = 16


def learn_module_of(channel: object) -> None:
    """Adds the module of one of gRPC's own channels; does nothing for channels of another implementation."""
    module = type(channel).__module__
    if is_of_grpc(channel):
        CLIENT_MODULES.add(module)
        WHOLE_MODULES.add(module)


def is_of_grpc(channel: object) -> bool:
    """Whether the channel is one of gRPC's own, of either world."""
    return type(channel).__module__.startswith(_PACKAGE)


def layers_of(channel: Any) -> Iterator[Any]:
    """The channel, the one that it wraps, the one that this wraps, and so on."""
    for _ in range(_DEEPEST):
        yield channel
        channel = getattr(channel, "_channel", None)
        if channel is None:
            return


def compiled_channel(channel: Any) -> Any:
    """What gRPC has in C below one of its sync channels; `None` if that has none, or is another's."""
    return next((layer for layer in layers_of(channel) if is_compiled(type(layer).__module__)), None)


def kept_by_state(compiled: Any) -> list[Any]:
    """What the state of a channel or call of gRPC's in C refers to. That state has no name in Python."""
    return gc.get_referents(*gc.get_referents(compiled))


def call_state_of(channel: Any) -> Any:
    """What counts the futures and streams of one of gRPC's sync channels. Raises `ValueError` if there is none."""
    # Layers may pass on what those within them have.
    *_, state = (layer._call_state for layer in layers_of(channel) if hasattr(layer, "_call_state"))
    return state


def is_compiled(module: str) -> bool:
    """Whether a module of that name is gRPC's in C."""
    return module.startswith(_COMPILED)


def is_within_call() -> bool:
    """Whether gRPC is below us on the stack: this is a callback, a request iterator or a serializer.

    gRPC closes a channel by waiting for its calls to end, and a call does not end before its callbacks have. A callback
    that waits for the close waits for itself, even if another thread does the closing (measured).
    """
    frame: types.FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__") in CLIENT_MODULES:
            return True
        frame = frame.f_back
    return False
