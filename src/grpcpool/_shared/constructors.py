"""What creates the channels of a pool over a target: gRPC's constructor, or what stands in its place.

Tracers replace gRPC's constructors by functions that call the one before and add an interceptor. Programs may replace
them by the pool's (``grpc.insecure_channel = grpcpool.insecure_channel``), before or after a tracer. Each call is to
have one span, so a tracer's interceptor must be around the pool or around each of its channels, never both:

- A pool looks gRPC's constructor up each time it creates a channel. A tracer there is around the channels.
- If the look-up leads back to the pool's function, that calls what it has replaced: the last function that stood in
  gRPC's place when the pool's was looked up in its module. A tracer there is around the channels, too.
- If on the way it is called by the very code that has created the pool, then that code, a tracer, has the pool already:
  the channel is used as it was below that code.

A factory of the user's calls gRPC's constructors as well. Meanwhile, the pool's functions create what was below them.

So a pool never consists of pools.
"""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable, Mapping
from typing import Any, Final

import grpc

from .._grpc.own_constructors import own_constructor

NAMES: Final = ("insecure_channel", "secure_channel")

_MOST: Final = 8
"""Of the functions that were replaced, as many are remembered."""


class _Creation:
    """A channel that is being created for a pool."""

    __slots__ = ("below", "pool_is_from", "running")

    def __init__(self, pool_is_from: types.CodeType | None) -> None:
        """Is for a pool that was created by the code `pool_is_from`."""
        self.pool_is_from = pool_is_from
        # The functions that are creating it, from the outermost inwards.
        self.running: list[Callable[..., Any]] = []
        # The channel as it was below the code that has created the pool.
        self.below: Any = None

    def run(self, function: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        """Calls the function, which is running meanwhile."""
        self.running.append(function)
        try:
            return function(*arguments, **more)
        finally:
            self.running.pop()


class _OfThisThread(threading.local):
    creation: _Creation | None = None


_this_thread = _OfThisThread()


def calling_code() -> types.CodeType | None:
    """The code that called the function that calls this."""
    frame = sys._getframe(1).f_back
    return None if frame is None else frame.f_code


class LookUp:
    """Finds the pool's functions by their names, when a module is asked for them."""

    def __init__(self, functions: Mapping[str, tuple[Constructor, Callable[..., Any]]]) -> None:
        """Finds these, each given with the constructor of gRPC's that it may replace."""
        self._functions = functions

    def __call__(self, name: str) -> Callable[..., Any] | None:
        """The function of this name, if there is one; it may be about to replace gRPC's."""
        if name not in self._functions:
            return None
        constructor, function = self._functions[name]
        constructor.note(function)
        return function


class Constructor:
    """One of gRPC's constructors of channels, and those that stood in its place."""

    def __init__(self, home: types.ModuleType, name: str) -> None:
        """Is `home.name`, of gRPC."""
        self.home = home
        self.name = name
        # The first is what stood there when this was loaded. The last is what the pool's function has replaced, if any.
        self._stood: list[Callable[..., Any]] = [getattr(home, name)]

    @property
    def known(self) -> list[Callable[..., Any]]:
        """What stands in gRPC's place now, what that wraps, and what stood there first."""
        import inspect  # noqa: PLC0415 -- few programs need it, and it takes long to import

        now = getattr(self.home, self.name)
        found = {id(each): each for each in (now, inspect.unwrap(now), self._stood[0])}
        return [*found.values()]

    def note(self, ours: Callable[..., Any]) -> None:
        """Remembers what stands in gRPC's place: the pool's function, `ours`, may be about to replace it."""
        now = getattr(self.home, self.name)
        if now is not ours and now is not self._stood[-1]:
            others = [one for one in self._stood[1:] if one is not now]
            self._stood = [self._stood[0], *others[-_MOST:], now]

    def create(self, pool_is_from: types.CodeType | None, *arguments: Any, by: Callable[..., Any] | None = None) -> Any:
        """Creates a channel for a pool that was created by the code `pool_is_from`.

        Args:
            pool_is_from: See above.
            arguments: Of the channel.
            by: What creates it, if not what stands in gRPC's place now.
        """
        before, creation = _this_thread.creation, _Creation(pool_is_from)
        _this_thread.creation = creation
        try:
            made = creation.run(by or getattr(self.home, self.name), *arguments)
        finally:
            _this_thread.creation = before
        return made if creation.below is None else creation.below

    @staticmethod
    def is_creating() -> bool:
        """Whether this thread is creating a channel for a pool, so that the pool's function must create no pool."""
        return _this_thread.creation is not None

    def create_below(self, caller: types.CodeType | None, *arguments: Any, **around: Any) -> Any:
        """Creates the channel with what the pool's function, which was called by `caller`, has replaced.

        Args:
            caller: The code that called it.
            arguments: Of the channel.
            around: Its interceptors. If `caller` created the pool, that has them.
        """
        creation = _this_thread.creation or _Creation(caller)
        # What is running called the pool's function, and so replaced it, not the other way round.
        stood = (one for one in reversed(self._stood) if not any(one is other for other in creation.running))
        # If nothing is left, something else stood there when this was loaded.
        below = next(stood, None) or own_constructor(self.home, self.name) or self._stood[0]
        if caller is creation.pool_is_from:
            made = creation.below = creation.run(below, *arguments)
        else:
            made = creation.run(below, *arguments, **{name: value for name, value in around.items() if value})
        return made


def run_factory(factory: Callable[[], Any]) -> Any:
    """Calls a factory of the user's: gRPC's constructors create no pools in it, whatever stands in their place."""
    before, _this_thread.creation = _this_thread.creation, _Creation(None)
    try:
        return factory()
    finally:
        _this_thread.creation = before


INSECURE, SECURE = (Constructor(grpc, name) for name in NAMES)
"""gRPC's constructors for threads."""
