"""The pool, for threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Any, Self

import grpc

from .._shared.clock import current_clock
from .._shared.finalizers import MAY_BE_OTHERS, interrupts
from .._shared.leaks import stack_of_caller
from .._shared.pool_base import CONFIGURED, Configured, PoolBase
from .._values.config import PoolConfig
from .._values.listener import Listener
from .arguments import Caller
from .caller import PoolCaller, PoolUnaryUnary
from .channel import ChannelSurface
from .driver import SyncDriver
from .lease import Lease
from .multicallables import UnaryUnary
from .waiter import BlockedOpenWaiter, BlockedWaiter


class ChannelPool(PoolBase, ChannelSurface):
    """A `grpc.Channel` over several connections, and a pool from which they are leased.

    As a channel, each call runs on one stream of the best connection. As a pool, `acquire` leases a whole connection
    or some of its streams. A pool opens by itself at first use; `open()` it to wait for `min_size` connections
    first. Every method may be called from any thread. In a forked child the pool starts empty.
    """

    _shown_as = "grpcpool.ChannelPool"
    _channel_type = "grpc.Channel"
    _shared_by = "grpcpool._sync.shared"
    _driver: SyncDriver

    def __init__(
        self,
        factory: Callable[[], grpc.Channel],
        config: PoolConfig | None = None,
        *,
        name: str | None = None,
        listeners: Iterable[Listener] = (),
    ) -> None:
        """Creates a pool; nothing is opened yet.

        Args:
            factory: Returns a new channel at each call. Pass `grpcpool.isolated()` among its options: in gRPC,
                channels with equal arguments share one connection.
            config: The settings; the defaults of `PoolConfig` if not given.
            name: The pool's name in logs, events, errors and metrics.
            listeners: Notified of every event, see `Listener`.

        Raises:
            TypeError: `factory` is not callable, `config` is not a `PoolConfig`, `name` is not text, or a listener is
                not a `Listener`.
        """
        super().__init__(factory, config, name=name, listeners=listeners)

    # Python's own errors about arguments name what the caller wrote.
    __init__.__qualname__ = "ChannelPool"

    def _new_driver(self) -> SyncDriver:
        return SyncDriver(self._source, self._config, name=self._name, listeners=self._listeners, clock=current_clock())

    def _after_fork_in_child(self) -> SyncDriver:
        """In a forked child: starts with a new driver, and returns the parent's, which must be kept untouched."""
        old = self._driver
        old.void = True
        self._finalizer.detach()
        closed = old.machine.closing
        driver = self._begin()
        driver.subscriptions.adopt(old.subscriptions)
        if closed:
            driver.close(0.0)
        return old

    # --- leasing ------------------------------------------------------------------------------------------------

    def acquire(self, timeout: float | Configured | None = CONFIGURED, *, streams: int | None = None) -> Lease:
        """Leases a connection, or streams of one. Use the lease with ``with``, or `release()` it.

        Args:
            timeout: Seconds to wait for a place at most; 0 tries once, `None` waits without limit. If not given,
                `PoolConfig.acquire_timeout`.
            streams: `None` leases a whole connection. A number leases this many streams of a connection that is
                shared: the most calls that the lease will carry at once.

        Returns:
            A lease, which is a `grpc.Channel`.

        Raises:
            PoolTimeoutError: No place became free in time; its cause is the last connect error, if there was one.
            PoolExhaustedError: There are `PoolConfig.max_waiters` waiters already.
            PoolClosedError: The pool is closed, or was closed meanwhile.
            ValueError: `timeout` is negative, or `streams` is not a number from 1 to `PoolConfig.max_streams`.
        """
        if streams is not None and (streams != 1 or type(streams) is not int):
            self._check_streams(streams)
        if timeout is not CONFIGURED:
            self._seconds(timeout)
        driver = self._driver
        # The lease comes first: if this thread is interrupted once the place is taken, the lease releases it.
        lease = Lease()
        lease._driver = driver
        lease._pool = self
        lease._streams = streams
        lease._calls, lease._at_release = 0, ()
        places = driver.places
        with driver.lock:
            if streams is None:
                slot = places.take_whole(lease)
            elif streams == 1:
                slot = places.take(lease)
            else:
                slot = places.acquire(streams, lease)
        if slot is None:
            self._wait_for_place(lease, timeout)
        else:
            lease._used_at = slot.used_at
            monotonic = driver.monotonic  # A function: as a local name it is faster to call.
            if monotonic() > slot.channel.trusted_until and not driver.is_fit(slot, streams, lease, None):
                self._wait_for_place(lease, timeout)
        if driver.follows_leases:
            lease._follow("" if driver.leaks is None else stack_of_caller())
        return lease

    def _wait_for_place(self, lease: Lease, timeout: float | Configured | None) -> None:
        """Asks for a place, waits for it, and checks that its connection is up."""
        driver = lease._driver
        monotonic = driver.monotonic  # As above.
        now = monotonic()
        deadline = self._deadline(timeout, now)
        while True:
            lease._slot, lease._released = None, False
            waiter = BlockedWaiter(lease._streams, since=now, deadline=deadline).prepare()
            lease._slot = slot = waiter.get(driver)
            lease._used_at = slot.used_at
            if monotonic() <= slot.channel.trusted_until or driver.is_fit(slot, lease._streams, lease, waiter):
                return

    # --- being a channel ----------------------------------------------------------------------------------------

    _unary_unary: type[UnaryUnary] = PoolUnaryUnary

    def _caller(self, kind: str, *arguments: Any) -> Caller:
        return PoolCaller(self, self._driver.methods.get(kind, arguments))

    def _caller_of_lease(self, caller: Caller) -> Caller:
        """What runs the calls of a lease. A handle follows them."""
        return caller

    def subscribe(
        self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool | None = False
    ) -> None:
        """As `grpc.Channel.subscribe`, for the state of the pool, which is `READY` if any connection is."""
        if not self.closed:
            self._driver.subscriptions.subscribe(callback, connect=bool(try_to_connect))

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """As `grpc.Channel.unsubscribe`."""
        self._driver.subscriptions.unsubscribe(callback)

    # --- the whole pool -----------------------------------------------------------------------------------------

    def open(self, timeout: float | None = None) -> None:
        """Opens `min_size` connections and waits until they are ready.

        This is optional: a pool opens at first use. It shows early whether the server can be reached, and does not
        wait for one that is down: it fails as soon as an attempt to connect has failed at each address. With several
        targets, or while a connection is lost, it goes on until its timeout. A call with `wait_for_ready` waits for
        the server.

        Args:
            timeout: Seconds that this may take; `None`: only `PoolConfig.connect_timeout` limits it.

        Raises:
            PoolOpenError: A connection could not be opened in time, or at all, which its cause explains. What had
                been opened is closed again, and the pool is as before.
            PoolClosedError: The pool is closed.
            ValueError: `timeout` is negative.
        """
        driver = self._driver
        now = driver.monotonic()
        BlockedOpenWaiter(since=now, deadline=self._deadline(timeout, now)).prepare().open(driver)

    def close(self, grace: float | None = None) -> None:
        """Closes the pool: nothing of it, neither thread nor connection, is left.

        It grants no new leases, and refuses waiters. Leases and calls in flight have `grace` seconds to end, and are
        cancelled then. Idempotent; a later call may shorten the grace. On a thread of gRPC's (in a call's callback)
        or of the pool's (in a listener) it does not wait, and the rest is done in the background.

        Args:
            grace: Seconds; `math.inf` waits without limit; `PoolConfig.close_grace` if not given.

        Raises:
            ValueError: `grace` is negative.
        """
        driver, seconds = self._driver, self._grace(grace)
        if interrupts(driver, MAY_BE_OTHERS):
            driver.defer(partial(driver.close, seconds))
            return
        driver.close(seconds)
        driver.wait_closed()

    def __enter__(self) -> Self:
        """Returns the pool; it opens at first use."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Closes the pool."""
        self.close()
