"""What gRPC's asyncio multicallables do for each call although a pool does not need it, and what takes its place.

Together it is a twentieth of a call.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc

_EMPTY = ()


class _NoMetadata(grpc.aio.Metadata):
    """Empty, and read by functions of C, as gRPC reads the metadata of every call."""

    __iter__: Any = _EMPTY.__iter__
    __len__: Any = _EMPTY.__len__


_NO_METADATA = _NoMetadata()


class _Register:
    """Stands for a channel of gRPC's in the eyes of a multicallable, which registers each call with it."""

    def __init__(self, channel: Any, register: Callable[[Any], object]) -> None:
        self._channel = channel
        self._register_call = register

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)


class _Calls(weakref.WeakSet[Any]):
    """The calls of a channel: those that it has registered itself, and before them those in `running`."""

    def __init__(self, running: set[Any], own: Iterable[Any]) -> None:
        super().__init__(own)
        self.running = running

    def __iter__(self) -> Iterator[Any]:
        yield from tuple(self.running)
        yield from super().__iter__()


def also_cancel(channel: Any, running: set[Any]) -> None:
    """From now on gRPC's channel also cancels the calls in `running` when it is closed.

    Before 1.83 a channel does not know its calls, and this does nothing.
    """
    own = getattr(channel, "_active_calls", None)
    if isinstance(own, weakref.WeakSet) and hasattr(channel, "_register_call"):
        channel._active_calls = _Calls(running, own)


def make_lean(multicallable: Any, running: set[Any]) -> bool:
    """Makes the calls of a multicallable of a channel without interceptors cheaper.

    All calls without metadata share one empty object. And each call is added to `running`; the code that starts the
    call has to remove it at its end. GRPC would register the call with its channel, which takes two weak references
    and a callback.

    Returns:
        Whether calls are added to `running`. They are if the channel cancels those in it, see `also_cancel`.
    """
    own = getattr(multicallable, "_init_metadata", None)
    if _arguments(own) == ("metadata", "compression"):
        multicallable._init_metadata = _without(own)
    channel = getattr(multicallable, "_python_channel", None)
    calls = getattr(channel, "_active_calls", None)
    if not (isinstance(calls, _Calls) and calls.running is running):
        return False
    multicallable._python_channel = _Register(channel, running.add)
    return True


def _arguments(function: Any) -> tuple[str, ...]:
    code = getattr(function, "__code__", None)
    return () if code is None else code.co_varnames[: code.co_argcount]


def _without(own: Any) -> Callable[[Any, Any], Any]:
    """Like gRPC's own, but quicker if there is no metadata."""

    def init_metadata(metadata: Any = None, compression: Any = None) -> Any:
        if metadata is None and compression is None:
            return _NO_METADATA
        return own(metadata, compression)

    return init_metadata
