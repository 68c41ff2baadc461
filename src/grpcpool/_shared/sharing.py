"""One pool for equal arguments: the pools of a process that are shared, and the handles on each.

A handle is a whole channel of its own over a pool that others use as well. The pool is kept by its handles and, after
the last is closed or dropped, for `LINGERS_FOR` seconds: code that creates a channel for each request finds the
connections of the request before. Nothing else keeps it, so a pool whose loop has ended is collected with its handles.

In a forked child nothing is shared yet. A handle from before the fork goes on with a pool that is empty there.
"""

from __future__ import annotations

import abc
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

from .._values.errors import PoolClosedError
from .._values.listener import Listener
from .fork import watch_for_fork
from .recipe import Recipe

LINGERS_FOR: Final = 2.0
"""Seconds for which a pool is kept after the last of its handles is closed or dropped."""


class Shared:
    """A pool, and the handles on it.

    Only this holds the key. A part of that may be a method of the object that owns a handle, so what held it for the
    process would keep the object, the handle and the pool for ever.
    """

    __slots__ = ("__weakref__", "handles", "home", "key", "over", "pool", "refers_back", "releases")

    def __init__(self, pool: Any, home: Any, recipe: Recipe, key: tuple[Any, ...]) -> None:
        """There is no handle yet; `home` says where the pool may be used, see `SharedPools.fits`."""
        self.pool = pool
        self.home = home
        self.key = key
        self.refers_back = recipe.may_refer_back()
        # A token for each, which is removed in one step: to release a handle twice does nothing.
        self.handles: set[object] = set()
        # How often the last handle has gone.
        self.releases = 0
        # Whether it is closed, or about to be.
        self.over = False

    def reference(self) -> Callable[[], Shared | None]:
        """What the finalizer of a handle may hold: it must not keep the handle."""
        # Kept if possible, so that the pool lingers if it is collected together with its last handle.
        return weakref.ref(self) if self.refers_back else lambda: self


class SharedPools(abc.ABC):
    """The shared pools of one world."""

    def __init__(self) -> None:
        """There are none."""
        self._start_empty()
        watch_for_fork(self)

    def _start_empty(self) -> None:
        # A signal handler may close a handle while this thread holds it.
        self._lock = threading.RLock()
        # By the hashes of their keys.
        self._known: dict[int, list[weakref.ref[Shared]]] = {}

    def _after_fork_in_child(self) -> object:
        """In a forked child: nothing is shared yet. Returns what must be kept untouched."""
        old = (self._lock, self._known)
        self._start_empty()
        return old

    @abc.abstractmethod
    def create(self, recipe: Recipe) -> Any:
        """A new pool, which has not been used."""

    @abc.abstractmethod
    def home(self) -> Any:
        """Where a pool that is asked for here is to be used."""

    @abc.abstractmethod
    def fits(self, shared: Shared, home: Any) -> bool:
        """Whether the pool may be used there."""

    @abc.abstractmethod
    def linger(self, shared: Shared) -> None:
        """Calls `expire` later. Holds `shared` until then."""

    def handle_on(self, recipe: Recipe, token: object) -> Shared:
        """The pool for these arguments, with one handle more, which `token` stands for."""
        key, home = recipe.key(), self.home()
        with self._lock:
            shared = next((each for each in self._alive(key) if self.fits(each, home)), None)
            if shared is None:
                shared = Shared(self.create(recipe.of_new_pool()), home, recipe, key)
                for other in [*self._known]:
                    # A pool that was dropped leaves its place.
                    self._set(other, self._hashed_to(other))
                at = hash(key)
                self._set(at, [*self._hashed_to(at), shared])
            shared.handles.add(token)
            return shared

    def _alive(self, key: tuple[Any, ...]) -> list[Shared]:
        return [shared for shared in self._hashed_to(hash(key)) if shared.key == key]

    def _hashed_to(self, hashed: int) -> list[Shared]:
        found = (reference() for reference in self._known.get(hashed, ()))
        return [shared for shared in found if shared is not None and not shared.over]

    def _set(self, hashed: int, alive: list[Shared]) -> None:
        if alive:
            self._known[hashed] = [weakref.ref(shared) for shared in alive]
        else:
            self._known.pop(hashed, None)

    def released(self, shared: Shared, token: object) -> None:
        """A handle has been closed or dropped. To call it again for the same one does no harm."""
        with self._lock:
            shared.handles.discard(token)
            last = not shared.handles
            shared.releases += last
        if last:
            self.linger(shared)

    def released_if_alive(self, reference: weakref.ref[Shared], token: object) -> None:
        """The same, for work that must not keep the pool: it may never be done."""
        shared = reference()
        if shared is not None:
            self.released(shared, token)

    def expire(self, shared: Shared, releases: int) -> bool:
        """The pool has lingered since that release; returns whether it is to end: there was no handle since then."""
        with self._lock:
            shared.over = shared.over or (not shared.handles and shared.releases == releases)
            return shared.over


def is_in_use(pool: Any) -> bool:
    """Whether there are calls or leases on the pool, or ones that wait: of handles that were dropped."""
    stats = pool.stats()
    return bool(stats.in_flight or stats.waiting)


class HandleBase:
    """What the handles of both worlds have of the pool that they share."""

    def __init__(self, recipe: Recipe, pools: SharedPools) -> None:
        """Is a handle on the one of `pools` for these arguments."""
        self._recipe = recipe
        # What the pool counts, instead of the handle.
        self._token = object()
        # Where the pool is; that of a handle on asyncio may change at its first use.
        self._shared = pools.handle_on(recipe, self._token)
        # Each call reads it: as an attribute of the class it would cost more.
        self._closed = False

    @property
    def _pool(self) -> Any:
        return self._shared.pool

    # All handles on a pool are one pool for integrations.
    _observed = property(lambda self: self._shared.pool)
    _counted = property(lambda self: self._shared.pool)
    # In a forked child the pool has another one.
    _driver = property(lambda self: self._shared.pool._driver)
    _source = property(lambda self: self._shared.pool._source)
    _config = property(lambda self: self._shared.pool._config)
    _name = property(lambda self: self._shared.pool._name)

    @property
    def closed(self) -> bool:
        """Whether `close()` has been called on this handle."""
        return self._closed

    def resize(self, min_size: int | None = None, max_size: int | None = None) -> None:
        """Same as `ChannelPool.resize`, for all handles."""
        self._pool.resize(min_size, max_size)

    def add_listener(self, listener: Listener) -> None:
        """Same as `ChannelPool.add_listener`, for all handles."""
        self._pool.add_listener(listener)

    def _check_open(self) -> None:
        if self._closed:
            raise self._closed_error()

    def _closed_error(self) -> PoolClosedError:
        figures = self._driver.machine.figures()
        return PoolClosedError(f"pool {self._name!r}: this handle is closed ({figures}); ask for another one")


class _Reference(weakref.ref[Any]):
    """Compared by identity: what an interceptor returned may not be hashable, or may be equal to another call."""

    __slots__ = ()
    __hash__ = object.__hash__
    __eq__ = object.__eq__


class Calls:
    """The calls of one handle that are in flight, so that closing it can cancel them."""

    __slots__ = ("begun",)

    def __init__(self) -> None:
        """There are none."""
        self.begun: set[weakref.ref[Any]] = set()

    def add(self, call: Any) -> None:
        """A call has begun. It is forgotten when it is dropped."""
        begun = self.begun
        try:
            begun.add(_Reference(call, begun.discard))
        except TypeError:
            # An interceptor's object that cannot be referred to weakly. To hold it would keep a call that was dropped,
            # so closing the handle leaves it to its own end.
            return

    def in_flight(self, is_over: Callable[[Any], bool]) -> list[Any]:
        """Those that are not over."""
        # `copy` is one step for the garbage collector, which may remove some.
        found = (reference() for reference in self.begun.copy())
        return [call for call in found if call is not None and not is_over(call)]
