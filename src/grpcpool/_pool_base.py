"""What a pool is in both worlds: its settings, its figures, and the checks of what it is asked for."""

from __future__ import annotations

import abc
import itertools
import math
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Final

from ._config import PoolConfig, is_count, is_seconds
from ._forking import watch_for_fork
from ._listener import Listener
from ._maker import Maker
from ._stats import PoolStats


class Configured:
    """Stands for a timeout that is to be the configured one."""

    def __repr__(self) -> str:
        return "<as configured>"


CONFIGURED: Final = Configured()

_unnamed = itertools.count(1)


def _checked(listeners: tuple[Listener, ...]) -> tuple[Listener, ...]:
    if not all(isinstance(listener, Listener) for listener in listeners):
        raise TypeError(f"listeners must be grpcpool.Listener objects, not {listeners!r}")
    return listeners


class PoolBase(abc.ABC):
    """A pool, but for what leases and calls are made of."""

    # What it is called where it is shown, and what its factory makes.
    _shown_as: str
    _channel_type: str

    def __init__(
        self,
        factory: Callable[[], Any],
        config: PoolConfig | None = None,
        *,
        name: str | None = None,
        listeners: Iterable[Listener] = (),
    ) -> None:
        """Makes a pool; nothing is opened yet.

        Args:
            factory: Makes a new channel at each call. Pass `grpcpool.isolated()` among its options: gRPC has
                channels with equal arguments share one connection.
            config: The settings; the defaults of `PoolConfig` if not given.
            name: What logs, events, errors and metrics call the pool.
            listeners: Told of every event, see `Listener`.

        Raises:
            TypeError: `factory` is not callable, `config` is not a `PoolConfig`, `name` is not text, or a listener is
                not a `Listener`.
        """
        if not callable(factory):
            raise TypeError(f"factory must be callable and return a {self._channel_type}, not {factory!r}")
        if config is not None and not isinstance(config, PoolConfig):
            raise TypeError(f"config must be a PoolConfig, not {config!r}")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a str, not {name!r}")
        self._config = config if config is not None else PoolConfig()
        self._maker = Maker(factory, self._config.prime)
        self._name = name if name is not None else f"pool-{next(_unnamed)}"
        self._listeners = _checked(tuple(listeners))
        self._begin()
        watch_for_fork(self)

    @abc.abstractmethod
    def _new_core(self) -> Any:
        """Makes the driver of an empty pool."""

    @abc.abstractmethod
    def after_fork_in_child(self) -> object:
        """In a forked child: starts afresh or becomes void; returns what must be kept untouched."""

    def _begin(self) -> Any:
        """Starts afresh; returns the core."""
        self._core = core = self._new_core()
        # The background work does not hold the pool; when the pool is collected, it closes what it had.
        self._finalizer = weakref.finalize(self, core.dropped)
        self._finalizer.atexit = False
        return core

    # --- what is asked for --------------------------------------------------------------------------------------

    def _deadline(self, timeout: float | Configured | None, now: float) -> float:
        seconds = self._seconds(timeout)
        return math.inf if seconds is None else now + seconds

    def _seconds(self, timeout: float | Configured | None) -> float | None:
        seconds = self._config.acquire_timeout if isinstance(timeout, Configured) else timeout
        if seconds is not None and not is_seconds(seconds):
            raise ValueError(f"timeout = {seconds!r}: must be seconds, 0 or more, or None to wait without limit")
        return seconds

    def _check_streams(self, streams: int) -> None:
        most = self._config.max_streams
        if not is_count(streams, 1) or streams > most:
            raise ValueError(f"streams = {streams!r}: must be a whole number from 1 to max_streams ({most})")

    def _grace(self, grace: float | None) -> float:
        seconds = self._config.close_grace if grace is None else grace
        if not is_seconds(seconds):
            raise ValueError(f"grace = {seconds!r}: must be seconds, 0 or more")
        return seconds

    # --- the whole pool -----------------------------------------------------------------------------------------

    def resize(self, min_size: int | None = None, max_size: int | None = None) -> None:
        """Changes the bounds from now on. What is too many is drained, what is missing is opened.

        Args:
            min_size: The new `PoolConfig.min_size`; `None` leaves it.
            max_size: The new `PoolConfig.max_size`; `None` leaves it.

        Raises:
            ValueError: The bounds contradict each other.
        """
        core = self._core
        core.check_use()
        with core.lock:
            low = core.machine.fleet.min_size if min_size is None else min_size
            high = core.machine.fleet.max_size if max_size is None else max_size
            effects = core.machine.resize(low, high, core.monotonic())
            if not core.machine.closing:
                self._config = self._config.replace(min_size=low, max_size=high)
        core.commit(effects)

    def refresh(self) -> None:
        """Has every connection replaced, gracefully: a successor is ready before the old one takes no new calls.

        For new credentials, or a target whose addresses have changed. Returns at once; it goes on in the background.
        """
        core = self._core
        core.check_use()
        core.tell(core.machine.refresh)

    def add_listener(self, listener: Listener) -> None:
        """Tells `listener`, too, of every event from now on.

        Raises:
            TypeError: It is not a `Listener`.
        """
        self._listeners = (*self._listeners, *_checked((listener,)))
        self._core.announcer.hear(self._listeners)

    def stats(self) -> PoolStats:
        """A snapshot of one consistent moment."""
        core = self._core
        core.check_use(anywhere=True)
        core.do_deferred()
        with core.lock:
            stats: PoolStats = core.machine.stats(core.date_of, core.monotonic())
            return stats

    @property
    def closed(self) -> bool:
        """Whether `close()` has been called."""
        closing: bool = self._core.is_closing()
        return closing

    @property
    def name(self) -> str:
        """What logs, events, errors and metrics call the pool."""
        return self._name

    @property
    def config(self) -> PoolConfig:
        """The settings, with the bounds as they are now."""
        return self._config

    def __repr__(self) -> str:
        """The pool at a glance."""
        core = self._core
        with core.lock:
            figures = core.machine.figures()
        state = "closed, " if self.closed else ""
        return (
            f"<{self._shown_as} {self._name!r}: {state}{figures.connections()}, "
            f"{figures.in_flight} in flight, {figures.waiting} waiting>"
        )
