"""Replaces gRPC's four constructors of channels for a while: `grpcpool.patched`.

Each function that stands for a constructor when the patch is applied, under whatever name and in whatever module, gets
a substitute, which calls that very function for plain channels and for the connections of pools. So a tracer that was
there before is around each connection, one that comes later is around the pool, and a call has one span in both cases.

When the patch is taken back, a name that still stands for its substitute gets its function back. Where a tracer has
put something else in front meanwhile, the name is left to it, and the substitute behind it only passes calls on.
"""

from __future__ import annotations

import functools
import os
import threading
import types
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, Self

from .._aio import factories as aio_factories
from .._aio import shared as aio_shared
from .._aio.interceptors import add_interceptors
from .._shared.constructors import Constructor
from .._shared.targets import check_credentials, named_after, recipe_of, targets_of
from .._sync import factories as sync_factories
from .._sync import shared as sync_shared
from .._values.config import PoolConfig
from .choice import NOT_POOLED, Choice, Targets
from .names import Name, hidden_in, names_of
from .report import Made, PatchReport

_MOST_TARGETS = 1000


class World(NamedTuple):
    """What makes the pools of a world, and the handles."""

    factories: Any
    shared: Any


_THREADS, _ASYNCIO = World(sync_factories, sync_shared), World(aio_factories, aio_shared)


# Names are of the whole process.
_lock = threading.RLock()


def _renew_lock() -> None:
    global _lock  # noqa: PLW0603 -- in a forked child, the thread that held it is gone
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)

# An attribute of each substitute: the patch that it belongs to, and what stands behind it.
_BEHIND: Final = "_grpcpool_behind"


class Patched:
    """A patch of gRPC's constructors, applied by `start()` or ``with``, and taken back by `stop()`.

    It may be applied again. Several may be applied at once, and taken back in any order. ``with`` blocks of one patch
    may contain one another, or run on several threads: the end of the last one takes it back.
    """

    def __init__(self, config: PoolConfig | None, targets: Targets, *, shared: bool) -> None:
        """Is not applied yet; see `patched`."""
        self._choice = Choice(targets, config)
        self._shared = shared
        self._active = False
        # The `with` blocks that have not ended.
        self._blocks = 0
        self._substitutes: list[tuple[Callable[..., Any], Callable[..., Any]]] = []
        self._made: Counter[tuple[str, bool]] = Counter()

    def start(self) -> Self:
        """Applies the patch; does nothing if it is applied."""
        with _lock:
            if not self._active:
                self._active = True
                try:
                    self._replace()
                except BaseException:
                    self._active = False
                    self._restore()
                    raise
        return self

    def stop(self) -> None:
        """Takes the patch back, even within ``with`` blocks. Pools that it has made stay as they are.

        Does nothing if it is not applied.
        """
        with _lock:
            if self._active:
                self._active = False
                self._restore()

    def __enter__(self) -> Self:
        """Applies the patch, if it is not applied."""
        with _lock:
            self.start()
            self._blocks += 1
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: types.TracebackType | None
    ) -> None:
        """Takes the patch back, at the end of the last block."""
        with _lock:
            self._blocks -= 1
            if not self._blocks:
                self.stop()

    def report(self) -> PatchReport:
        """What the patch has reached so far, and what it has not."""
        with _lock:
            counted = sorted(self._made.items())
        made = tuple(Made(target, pooled, count) for (target, pooled), count in counted)
        # These look through all modules, while other threads may create channels.
        replaced = sorted({str(name) for name in self._standing()})
        functions = [function for function, _ in self._substitutes]
        plain = [str(name) for name in names_of(functions)] + hidden_in(functions)
        return PatchReport(tuple(replaced), made, tuple(sorted(plain)))

    # --- names --------------------------------------------------------------------------------------------------

    def _replace(self) -> None:
        self._substitutes = []
        for world, constructor in _constructors():
            # Modules may have imported gRPC's function before a tracer has replaced it.
            for function in constructor.known:
                make = functools.partial(self._channel, function, world)
                substitute = _SUBSTITUTES[world, constructor.name](function, make)
                setattr(substitute, _BEHIND, (self, function))
                self._substitutes.append((function, substitute))
            self._set(_name_of(constructor))
        for found in names_of([function for function, _ in self._substitutes]):
            self._set(found)

    def _set(self, name: Name) -> None:
        substitute = next(ours for function, ours in self._substitutes if function is name.function)
        setattr(name.module, name.name, substitute)

    def _standing(self) -> list[Name]:
        """The names that stand for a substitute: those that were replaced, and those that were imported since."""
        ours = [substitute for _, substitute in self._substitutes]
        known = [_name_of(constructor) for _, constructor in _constructors()]
        return [name for name in known if any(name.function is one for one in ours)] + names_of(ours)

    def _restore(self) -> None:
        for name in self._standing():
            function = next(function for function, ours in self._substitutes if ours is name.function)
            while (behind := _behind(function)) is not None:
                # A patch that was applied before this one has been taken back before it.
                function = behind
            setattr(name.module, name.name, function)

    # --- channels -----------------------------------------------------------------------------------------------

    def _channel(
        self,
        before: Callable[..., Any],
        world: World,
        target: Any,
        credentials: tuple[Any, ...],
        options: Any,
        compression: Any,
        *interceptors: Any,
    ) -> Any:
        """Creates a pool if the patch is applied and covers the target, else what `before` creates."""
        if self._active and not Constructor.is_creating():
            targets = targets_of(target)
            text = named_after(targets)
            config = self._choice(text)
            self._count(text, pooled=config is not NOT_POOLED)
            if config is not NOT_POOLED:
                for each in credentials:
                    check_credentials(each)
                [given] = credentials or (None,)
                recipe = recipe_of(targets, given, options, compression, config=config, name=None, constructor=before)
                make = world.shared.handle_from if self._shared else world.factories.pool_of
                pool = make(recipe)
                for each in interceptors:
                    add_interceptors(pool, each or ())
                return pool
        # Tracers on asyncio take interceptors by their name only, and put their own before them.
        around = {"interceptors": interceptors[0]} if any(interceptors) else {}
        return before(target, *credentials, options, compression, **around)

    def _count(self, target: str, *, pooled: bool) -> None:
        with _lock:
            if len(self._made) < _MOST_TARGETS or (target, pooled) in self._made:
                self._made[target, pooled] += 1


def _behind(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """What stands behind a substitute whose patch has been taken back; `None` for all other functions."""
    patch, before = getattr(function, _BEHIND, (None, None))
    if patch is None or patch._active or all(function is not ours for _, ours in patch._substitutes):
        # The last: `functools.wraps` has copied the attribute.
        return None
    return before


def _insecure(before: Callable[..., Any], make: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(before)
    def insecure_channel(target: Any, options: Any = None, compression: Any = None) -> Any:
        return make(target, (), options, compression)

    return insecure_channel


def _secure(before: Callable[..., Any], make: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(before)
    def secure_channel(target: Any, credentials: Any, options: Any = None, compression: Any = None) -> Any:
        return make(target, (credentials,), options, compression)

    return secure_channel


def _insecure_aio(before: Callable[..., Any], make: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(before)
    def insecure_channel(target: Any, options: Any = None, compression: Any = None, interceptors: Any = None) -> Any:
        return make(target, (), options, compression, interceptors)

    return insecure_channel


def _secure_aio(before: Callable[..., Any], make: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(before)
    def secure_channel(
        target: Any, credentials: Any, options: Any = None, compression: Any = None, interceptors: Any = None
    ) -> Any:
        return make(target, (credentials,), options, compression, interceptors)

    return secure_channel


# With the parameters of gRPC's.
_SUBSTITUTES = {
    (_THREADS, "insecure_channel"): _insecure,
    (_THREADS, "secure_channel"): _secure,
    (_ASYNCIO, "insecure_channel"): _insecure_aio,
    (_ASYNCIO, "secure_channel"): _secure_aio,
}


def _constructors() -> Iterator[tuple[World, Constructor]]:
    for world in (_THREADS, _ASYNCIO):
        for constructor in world.factories.CONSTRUCTORS:
            yield world, constructor


def _name_of(constructor: Constructor) -> Name:
    return Name(constructor.home, constructor.name, getattr(constructor.home, constructor.name))


def patched(config: PoolConfig | None = None, *, targets: Targets = None, shared: bool = True) -> Patched:
    """Makes gRPC's four constructors of channels create pools, for libraries that build their channels themselves.

    Use it with ``with``, or `start()` and `stop()`. Names that modules have imported from gRPC are replaced as well.
    Channels that exist already, and constructors that a class or a default value holds, are not reached:
    `Patched.report` says where there are such.

    Args:
        config: The settings of the pools.
        targets: Which targets get a pool: globs such as ``["*.internal:*"]``; or a mapping from globs to settings; or
            a callable that gets the target and returns `True`, `False` or settings. The first glob that fits counts.
            In a glob, ``*`` stands for any text and ``?`` for one character; brackets stand for themselves, as in
            ``"[::1]:*"``. `None`: all.
        shared: Whether channels with equal arguments are handles on one pool, see `shared_channel`. `False`: each is a
            pool of its own.

    Returns:
        The patch.

    Raises:
        TypeError: An argument is something else.
    """
    return Patched(config, targets, shared=shared)
