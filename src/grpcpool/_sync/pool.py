"""The pool, for threads."""

from __future__ import annotations

import dataclasses
import itertools
import math
import weakref
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final, Self

import grpc

from .._clock import current_clock
from .._config import PoolConfig, is_count, is_seconds
from .._listener import Listener
from .._stats import PoolStats
from .calls import Caller
from .channel import ChannelSurface
from .core import Core
from .forking import watch_for_fork
from .lease import Lease
from .opening import ChannelFactory
from .pool_calls import PoolCaller
from .waiting import BlockedOpenWaiter, BlockedWaiter


class _Configured:
    """Stands for a timeout that is to be the configured one."""

    def __repr__(self) -> str:
        return "<as configured>"


CONFIGURED: Final = _Configured()

_unnamed = itertools.count(1)


class ChannelPool(ChannelSurface):
    """A `grpc.Channel` over several connections, and a pool from which they are leased.

    As a channel, each call runs on one stream of the best connection. As a pool, `acquire` leases a whole connection
    or some of its streams. A pool opens by itself at first use; `open()` it to wait for `min_size` connections
    beforehand. Every method may be called from any thread. In a forked child the pool starts empty.
    """

    def __init__(
        self,
        factory: ChannelFactory,
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
            TypeError: `factory` is not callable, `config` is not a `PoolConfig`, or a listener is not a `Listener`.
        """
        if not callable(factory):
            raise TypeError(f"factory must be callable and return a grpc.Channel, not {factory!r}")
        if config is not None and not isinstance(config, PoolConfig):
            raise TypeError(f"config must be a PoolConfig, not {config!r}")
        self._factory = factory
        self._config = config if config is not None else PoolConfig()
        self._name = name if name is not None else f"pool-{next(_unnamed)}"
        self._listeners = tuple(listeners)
        if not all(isinstance(listener, Listener) for listener in self._listeners):
            raise TypeError(f"listeners must be grpcpool.Listener objects, not {self._listeners!r}")
        self._core = self._new_core()
        watch_for_fork(self)

    def _new_core(self) -> Core:
        core = Core(self._factory, self._config, name=self._name, listeners=self._listeners, clock=current_clock())
        # The worker does not hold the pool; when the pool is collected, the worker closes what it had.
        self._finalizer = weakref.finalize(self, core.dropped)
        self._finalizer.atexit = False
        return core

    def after_fork_in_child(self) -> Core:
        """In a forked child: starts afresh, and returns the parent's core, which must be kept untouched."""
        old = self._core
        old.void = True
        self._finalizer.detach()
        closed = old.machine.closing
        self._core = self._new_core()
        self._core.subscriptions.adopt(old.subscriptions)
        if closed:
            self._core.close(0.0)
        return old

    # --- leasing ------------------------------------------------------------------------------------------------

    def acquire(self, timeout: float | _Configured | None = CONFIGURED, *, streams: int | None = None) -> Lease:
        """Leases a connection, or streams of one. Use the lease with ``with``, or `release()` it.

        Args:
            timeout: Seconds to wait for a place at most; 0 tries once, `None` waits for ever. If not given,
                `PoolConfig.acquire_timeout`.
            streams: `None` leases a whole connection. A number leases so many streams of one connection that is
                shared; it is the promise of how many calls there will be on the lease at once.

        Returns:
            A lease, which is a `grpc.Channel`.

        Raises:
            PoolTimeoutError: No place came free in time; its cause is the last connect error, if there was one.
            PoolExhaustedError: `PoolConfig.max_waiters` wait already.
            PoolClosedError: The pool is closed, or was closed meanwhile.
            ValueError: `timeout` is negative, or `streams` is not a number from 1 to `PoolConfig.max_streams`.
        """
        if streams is not None and (streams != 1 or type(streams) is not int):
            self._check_streams(streams)
        if timeout is not CONFIGURED:
            self._seconds(timeout)
        core = self._core
        # The lease comes first: should this thread be interrupted once the place is taken, the lease gives it back.
        lease = Lease()
        lease._core = core
        lease._pool = self
        lease._streams = streams
        with core.lock:
            lease._slot = slot = core.machine.acquire(streams)
        if slot is None:
            self._wait_for_place(lease, timeout)
        else:
            lease._used_at = slot.used_at
            if core.monotonic() > slot.channel.trusted_until and not core.is_fit(slot, streams):
                lease._slot = None
                self._wait_for_place(lease, timeout)
        if core.leaks is not None:
            lease.watch_for_leak(core.leaks)
        return lease

    def _wait_for_place(self, lease: Lease, timeout: float | _Configured | None) -> None:
        """The long way to a place: asks, waits if need be, and looks whether what it got is up."""
        core = lease._core
        now = core.monotonic()
        deadline = self._deadline(timeout, now)
        while True:
            waiter = BlockedWaiter(lease._streams, since=now, deadline=deadline).prepare()
            lease._slot = slot = waiter.get(core)
            assert slot is not None  # noqa: S101 -- only open() is granted None
            lease._used_at = slot.used_at
            if core.monotonic() <= slot.channel.trusted_until or core.is_fit(slot, lease._streams):
                return
            lease._slot = None

    def _deadline(self, timeout: float | _Configured | None, now: float) -> float:
        seconds = self._seconds(timeout)
        return math.inf if seconds is None else now + seconds

    def _seconds(self, timeout: float | _Configured | None) -> float | None:
        seconds = self._config.acquire_timeout if isinstance(timeout, _Configured) else timeout
        if seconds is not None and not is_seconds(seconds):
            raise ValueError(f"timeout = {seconds!r}: must be seconds, 0 or more, or None to wait for ever")
        return seconds

    def _check_streams(self, streams: int) -> None:
        most = self._config.max_streams
        if not is_count(streams, 1) or streams > most:
            raise ValueError(f"streams = {streams!r}: must be a whole number from 1 to max_streams, which is {most}")

    # --- being a channel ----------------------------------------------------------------------------------------

    def _caller(self, kind: str, *arguments: Any) -> Caller:
        return PoolCaller(self, self._core.methods.get(kind, arguments))

    def subscribe(
        self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool | None = False
    ) -> None:
        """As `grpc.Channel.subscribe`: tells the state of the pool, which is `READY` if any connection is."""
        if not self.closed:
            self._core.subscriptions.subscribe(callback, connect=bool(try_to_connect))

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """As `grpc.Channel.unsubscribe`."""
        self._core.subscriptions.unsubscribe(callback)

    # --- the whole pool -----------------------------------------------------------------------------------------

    def open(self, timeout: float | None = None) -> None:
        """Opens `min_size` connections and waits until they are ready.

        A pool need not be opened: it opens by itself at first use. To open it tells early whether it can.

        Args:
            timeout: Seconds it may take; `None` leaves it to `PoolConfig.connect_timeout`.

        Raises:
            PoolOpenError: A connection could not be made, which its cause explains, or not in time. What had been
                opened is closed again, and the pool is as before.
            PoolClosedError: The pool is closed.
        """
        core = self._core
        now = core.monotonic()
        waiter = BlockedOpenWaiter(since=now, deadline=self._deadline(timeout, now)).prepare()
        waiter.get(core)

    def close(self, grace: float | None = None) -> None:
        """Closes the pool: nothing of it, neither thread nor connection, is left.

        There are no new leases, and who waits for one is refused. Leases and calls in flight have `grace` seconds
        to end; then they are cancelled. Idempotent; a later call may shorten the grace. On a thread of gRPC's (in a
        call's callback) or of the pool's (in a listener) it does not wait, and the rest is done in the background.

        Args:
            grace: Seconds; `PoolConfig.close_grace` if not given.
        """
        seconds = self._config.close_grace if grace is None else grace
        if not is_seconds(seconds):
            raise ValueError(f"grace = {seconds!r}: must be seconds, 0 or more")
        self._core.close(seconds)
        self._core.wait_closed()

    def resize(self, min_size: int | None = None, max_size: int | None = None) -> None:
        """Changes the bounds from now on. What is too many is drained, what is missing is opened.

        Args:
            min_size: The new `PoolConfig.min_size`; `None` leaves it.
            max_size: The new `PoolConfig.max_size`; `None` leaves it.

        Raises:
            ValueError: The bounds contradict each other.
        """
        core = self._core
        with core.lock:
            low = core.machine.fleet.min_size if min_size is None else min_size
            high = core.machine.fleet.max_size if max_size is None else max_size
            effects = core.machine.resize(low, high, core.monotonic())
            if not core.machine.closing:
                self._config = dataclasses.replace(self._config, min_size=low, max_size=high)
        core.commit(effects)

    def refresh(self) -> None:
        """Has every connection replaced, gracefully: a successor is ready before the old one takes no new calls.

        For new credentials, or a target whose addresses have changed. Returns at once; it goes on in the background.
        """
        core = self._core
        with core.lock:
            effects = core.machine.refresh(core.monotonic())
        core.commit(effects)

    def stats(self) -> PoolStats:
        """A snapshot of one consistent moment."""
        core = self._core
        core.do_deferred()
        with core.lock:
            return core.machine.stats(core.date_of)

    @property
    def closed(self) -> bool:
        """Whether `close()` has been called."""
        return self._core.machine.closing

    @property
    def name(self) -> str:
        """What logs, events, errors and metrics call the pool."""
        return self._name

    @property
    def config(self) -> PoolConfig:
        """The settings, with the bounds as they are now."""
        return self._config

    def __enter__(self) -> Self:
        """Returns the pool; it opens at first use."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Closes the pool."""
        self.close()

    def __repr__(self) -> str:
        """The pool at a glance."""
        core = self._core
        with core.lock:
            figures = core.machine.figures()
        state = "closed, " if self.closed else ""
        return (
            f"<grpcpool.ChannelPool {self._name!r}: {state}{figures.connections()}, "
            f"{figures.in_flight} in flight, {figures.waiting} waiting>"
        )
