"""What gRPC's asyncio multicallables do for each call although a pool does not need it, and what takes its place.

Together it is a twentieth of a call.
"""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc

from .cancel_messages import KEEPS_MESSAGE

_EMPTY = ()

# The arguments of a call after its request, in gRPC's order.
_BY_NAME = ("timeout", "metadata", "credentials", "wait_for_ready", "compression")

_UNARY = "UnaryUnaryCall"


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


def start_of(multicallable: Any) -> Callable[..., Any]:
    """What starts the calls of a multicallable of gRPC's own, with all arguments by position.

    It is the code of gRPC's own `__call__`, in which `KEEPS_MESSAGE` stands for the class of unary calls. To pass
    arguments by name costs three times as much.
    """
    own = type(multicallable).__call__
    if _arguments(own)[2:] != _BY_NAME:
        return by_position(multicallable.__call__)
    return types.MethodType(_changed(own), multicallable)


@functools.cache
def _changed(own: types.FunctionType) -> types.FunctionType:
    names, code = own.__globals__, own.__code__
    if KEEPS_MESSAGE is not None and names.get(_UNARY) is KEEPS_MESSAGE.__base__:
        names = {**names, _UNARY: KEEPS_MESSAGE}
    code = code.replace(co_argcount=code.co_argcount + code.co_kwonlyargcount, co_kwonlyargcount=0)
    return types.FunctionType(code, names, own.__name__, None, own.__closure__)


def by_position(start: Callable[..., Any]) -> Callable[..., Any]:
    """As `start`, which takes all arguments but the first by name."""

    def started(request: Any, *arguments: Any) -> Any:
        return start(request, **dict(zip(_BY_NAME, arguments, strict=True)))

    return started


def _arguments(function: Any) -> tuple[str, ...]:
    """The names of its arguments; none of what stands for a function, as tracers have it."""
    if type(function) is not types.FunctionType:
        return ()
    code = function.__code__
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def _without(own: Any) -> Callable[[Any, Any], Any]:
    """Like gRPC's own, but quicker if there is no metadata."""

    def init_metadata(metadata: Any = None, compression: Any = None) -> Any:
        if metadata is None and compression is None:
            return _NO_METADATA
        return own(metadata, compression)

    return init_metadata
