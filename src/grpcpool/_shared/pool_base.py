"""What pools of both worlds share: settings, figures, and the checks of arguments."""

from __future__ import annotations

import abc
import dataclasses
import importlib
import itertools
import math
import weakref
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from .._values.config import PoolConfig, is_count, is_seconds
from .._values.listener import Listener, checked_listeners
from .._values.stats import PoolStats
from .channel_source import ChannelSource
from .finalizers import interrupts_package
from .fork import watch_for_fork
from .recipe import Recipe, instance_named


class Configured:
    """Stands for the configured timeout."""

    def __repr__(self) -> str:
        return "<as configured>"


CONFIGURED: Final = Configured()

_unnamed = itertools.count(1)


class PoolBase(abc.ABC):
    """A pool without what leases and calls need."""

    # Its name in its `repr`, and the type that its factory returns.
    _shown_as: str
    _channel_type: str
    # The module whose `handle_from` makes a handle on the shared pool of a recipe.
    _shared_by: str

    def __init__(
        self,
        factory: Callable[[], Any],
        config: PoolConfig | None = None,
        *,
        name: str | None = None,
        listeners: Iterable[Listener] = (),
    ) -> None:
        """See `ChannelPool`, which says what its factory returns."""
        if not callable(factory):
            raise TypeError(f"factory must be callable and return a {self._channel_type}, not {factory!r}")
        if config is not None and not isinstance(config, PoolConfig):
            raise TypeError(f"config must be a PoolConfig, not {config!r}")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a str, not {name!r}")
        self._config = config if config is not None else PoolConfig()
        self._source = ChannelSource(factory, self._config.prime)
        if self._source.target is None and self._config.health_service is not None:
            rule = "has no effect on a factory: needs a pool made by insecure_channel or secure_channel"
            raise ValueError(f"PoolConfig.health_service = {self._config.health_service!r}: {rule}")
        self._name = name if name is not None else f"pool-{next(_unnamed)}"
        self._listeners = checked_listeners(listeners)
        self._recipe = Recipe(factory=factory, config=config, name=name, listeners=self._listeners)
        self._begin()
        watch_for_fork(self)

    @abc.abstractmethod
    def _new_driver(self) -> Any:
        """Creates the driver of an empty pool."""

    @abc.abstractmethod
    def _after_fork_in_child(self) -> object:
        """In a forked child: starts empty or becomes void; returns what must be kept untouched."""

    def _begin(self) -> Any:
        """Starts with a new driver; returns it."""
        self._driver = driver = self._new_driver()
        # The background work does not hold the pool; when the pool is collected, it closes what it had.
        self._finalizer = weakref.finalize(self, driver.dropped)
        self._finalizer.atexit = False
        return driver

    # --- copies -------------------------------------------------------------------------------------------------

    def _interceptors(self) -> tuple[tuple[str, tuple[Any, ...]], ...]:
        """The interceptors of its own, with the names of the lists that they are in."""
        return ()

    def _present(self) -> Recipe:
        """Its arguments, and its bounds as they are now."""
        return dataclasses.replace(self._recipe, bounds=(self._config.min_size, self._config.max_size))

    def __copy__(self) -> Any:
        """A handle on this process's shared pool for the same arguments, see `shared_channel`."""
        return _home_of(self._shared_by).handle_from(self._present(), self._interceptors())

    def __deepcopy__(self, _memo: dict[int, Any]) -> Any:
        """The same as `copy`."""
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles its arguments. In the process that receives them, they are a handle on its shared pool.

        Raises:
            TypeError: An argument cannot be sent; the message names it, and says what can.
        """
        interceptors = tuple(
            (attribute, tuple(instance_named(each, "interceptors") for each in group))
            for attribute, group in self._interceptors()
        )
        return _received, (self._shared_by, self._present().sent(), interceptors)

    # --- what is asked for --------------------------------------------------------------------------------------

    def _deadline(self, timeout: float | Configured | None, now: float) -> float:
        seconds = self._config.acquire_timeout if timeout is CONFIGURED else self._seconds(timeout)
        return math.inf if seconds is None else now + seconds

    def _seconds(self, timeout: float | Configured | None) -> float | None:
        if isinstance(timeout, Configured):
            return self._config.acquire_timeout
        if timeout is not None and not is_seconds(timeout):
            raise ValueError(f"timeout = {timeout!r}: must be seconds, 0 or more, or None to wait without limit")
        return timeout

    def _check_streams(self, streams: int) -> None:
        most = self._config.max_streams
        if not is_count(streams, 1) or streams > most:
            raise ValueError(f"streams = {streams!r}: must be a whole number from 1 to max_streams ({most})")

    def _grace(self, grace: float | None) -> float:
        seconds = self._config.close_grace if grace is None else grace
        if seconds != math.inf and not is_seconds(seconds):
            raise ValueError(f"grace = {seconds!r}: must be seconds, 0 or more")
        return seconds

    # --- the whole pool -----------------------------------------------------------------------------------------

    def resize(self, min_size: int | None = None, max_size: int | None = None) -> None:
        """Changes the bounds from now on. Surplus connections are drained, missing ones opened.

        Does nothing once the pool is closed.

        Args:
            min_size: The new `PoolConfig.min_size`; `None` leaves it.
            max_size: The new `PoolConfig.max_size`; `None` leaves it.

        Raises:
            ValueError: The bounds contradict each other.
        """
        driver = self._driver
        driver.check_use()
        driver.tell(self._resize, min_size, max_size)

    def _resize(self, min_size: int | None, max_size: int | None, now: float) -> None:
        machine = self._driver.machine
        low = machine.fleet.min_size if min_size is None else min_size
        high = machine.fleet.max_size if max_size is None else max_size
        machine.resize(low, high, now)
        if not machine.closing:
            self._config = self._config.replace(min_size=low, max_size=high)

    def refresh(self) -> None:
        """Replaces every connection gracefully: a successor is ready before the old one takes no new calls.

        Use it for new credentials, or for a target whose addresses have changed. Returns at once, and goes on in the
        background. Does nothing once the pool is closed.
        """
        driver = self._driver
        driver.check_use()
        driver.tell(driver.machine.refresh)

    def add_listener(self, listener: Listener) -> None:
        """Notifies `listener` as well of every event from now on. Does nothing if it is notified already.

        Raises:
            TypeError: It is not a `Listener`.
        """
        if not isinstance(listener, Listener):
            raise TypeError(f"listener must be a grpcpool.Listener, not {listener!r}")
        if all(other is not listener for other in self._listeners):
            self._listeners = (*self._listeners, listener)
            self._driver.set_listeners(self._listeners)

    @property
    def _observed(self) -> PoolBase:
        """What integrations observe: this pool, or the one that it is a handle on."""
        return self

    @property
    def _counted(self) -> PoolBase:
        """Whose snapshot `stats()` returns: the same, but also if a handle may still find another pool."""
        return self

    def stats(self) -> PoolStats:
        """Returns a snapshot of one consistent moment.

        In a finalizer that interrupts a change of the pool, it may contain half of that change.
        """
        driver = self._driver
        driver.check_use(anywhere=True)
        with self._stands_still():
            stats: PoolStats = driver.machine.stats(driver.date_of, driver.monotonic(), target=self.target)
            return stats

    def _stands_still(self) -> AbstractContextManager[object]:
        """Holds the lock during the ``with`` block, unless this thread may hold it, interrupted by a finalizer."""
        lock = self._driver.lock
        if lock.locked() and interrupts_package():
            return nullcontext()
        self._driver.do_deferred()
        held: AbstractContextManager[object] = lock
        return held

    @property
    def closed(self) -> bool:
        """Whether `close()` has been called."""
        closing: bool = self._driver.is_closing()
        return closing

    @property
    def name(self) -> str:
        """The pool's name in logs, events, errors and metrics."""
        return self._name

    @property
    def target(self) -> str | None:
        """What the pool connects to; `None` for a pool with a factory of its own."""
        return self._source.target

    @property
    def config(self) -> PoolConfig:
        """The settings, with the bounds as they are now."""
        return self._config

    def __repr__(self) -> str:
        """The pool at a glance."""
        with self._stands_still():
            figures = self._driver.machine.figures()
        state = "closed, " if self.closed else ""
        return (
            f"<{self._shown_as} {self._name!r}: {state}{figures.connections()}, "
            f"{figures.in_flight} in flight, {figures.waiting} waiting>"
        )


def _home_of(shared_by: str) -> Any:
    # What makes handles is above the pools.
    return importlib.import_module(shared_by)


def _received(shared_by: str, sent: dict[str, Any], interceptors: tuple[tuple[str, tuple[Any, ...]], ...]) -> Any:
    """The handle for a pool that another process has sent."""
    found = tuple((attribute, tuple(each.find() for each in group)) for attribute, group in interceptors)
    return _home_of(shared_by).handle_from(Recipe.received(sent), found)
