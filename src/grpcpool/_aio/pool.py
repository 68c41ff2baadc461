"""The pool, for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

import grpc

from .._shared.clock import current_clock
from .._shared.leaks import stack_of_caller
from .._shared.methods import Method
from .._shared.pool_base import CONFIGURED, Configured, PoolBase
from .._values.config import PoolConfig
from .._values.listener import Listener
from .arguments import Caller
from .call_stages import Waiting
from .caller import PoolCaller
from .channel import ChannelSurface
from .driver import AioDriver
from .interceptors import interceptors_of
from .lease import Acquire, Lease
from .waiter import AwaitedOpenWaiter, AwaitedWaiter

# How often a wait for another state checks it, besides the changes that the pool notices; and how often a wait for the
# pool to be ready asks it to connect.
_CHECKS_EVERY, _ASKS_EVERY = 0.05, 0.2


class ChannelPool(PoolBase, ChannelSurface):
    """A `grpc.aio.Channel` over several connections, and a pool from which they are leased.

    Same as `grpcpool.ChannelPool`, on asyncio. A pool may be created anywhere. It is bound to the event loop of its
    first use, and must be closed before that loop ends. In a forked child a pool that was used before the fork raises
    `PoolForkedError`, because asyncio gRPC does not survive a fork.
    """

    _shown_as = "grpcpool.aio.ChannelPool"
    _channel_type = "grpc.aio.Channel"
    _shared_by = "grpcpool._aio.shared"
    _driver: AioDriver

    def __init__(
        self,
        factory: Callable[[], grpc.aio.Channel],
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

    def _new_driver(self) -> AioDriver:
        return AioDriver(self._source, self._config, name=self._name, listeners=self._listeners, clock=current_clock())

    def _after_fork_in_child(self) -> AioDriver:
        """In a forked child: an unused pool starts with a new driver, a used one is void. Returns what must be kept."""
        old = self._driver
        if old.loop is not None:
            old.become_void()
            return old
        self._finalizer.detach()
        closed = old.machine.closing
        driver = self._begin()
        if closed:
            driver.close(0.0)
        return old

    # --- leasing ------------------------------------------------------------------------------------------------

    def acquire(self, timeout: float | Configured | None = CONFIGURED, *, streams: int | None = None) -> Acquire:
        """Leases a connection, or streams of one. Use it with ``async with``, or await it and `release()` the lease.

        Same as `grpcpool.ChannelPool.acquire`, but awaits. A task that is cancelled while it waits holds no place.

        Args:
            timeout: Seconds to wait for a place at most; 0 tries once, `None` waits without limit. If not given,
                `PoolConfig.acquire_timeout`.
            streams: `None` leases a whole connection. A number leases this many streams of a connection that is
                shared: the most calls that the lease will carry at once.

        Returns:
            An object that gives a lease, which is a `grpc.aio.Channel`, when it is awaited or entered.

        Raises:
            PoolTimeoutError: No place became free in time; its cause is the last connect error, if there was one.
            PoolExhaustedError: There are `PoolConfig.max_waiters` waiters already.
            PoolClosedError: The pool is closed, or was closed meanwhile.
            WrongEventLoopError: The pool is bound to another event loop.
            PoolForkedError: The pool was used before a fork.
            ValueError: `timeout` is negative, or `streams` is not a number from 1 to `PoolConfig.max_streams`.
        """
        if streams is not None:
            self._check_streams(streams)
        self._seconds(timeout)
        # Here, because a task that waits for the lease does not know what started it.
        stack = stack_of_caller() if self._driver.leaks is not None else ""
        return Acquire(self._acquire(timeout, streams, stack))

    async def _acquire(self, within: float | Configured | None, streams: int | None, stack: str) -> Lease:
        driver = self._driver
        driver.enter()
        if driver.leaving:
            raise driver.closed_error()
        lease = Lease()
        lease._driver = driver
        lease._pool = self
        lease._streams = streams
        lease._calls = 0
        lease._at_release = ()
        since = driver.monotonic()
        deadline = self._deadline(within, since)
        places = driver.places
        with driver.lock:
            if streams is None:
                slot = places.take_whole(lease)
            elif streams == 1:
                slot = places.take(lease)
            else:
                slot = places.acquire(streams, lease)
        waiter = None
        while True:
            if slot is None:
                lease._released = False
                waiter = AwaitedWaiter(streams, since=since, deadline=deadline)
                lease._slot = slot = await waiter.get(driver)
            used_at = slot.used_at
            if driver.monotonic() <= slot.channel.trusted_until or driver.is_fit(slot, streams, lease, waiter):
                break
            lease._slot = slot = None
        lease._used_at = used_at
        if driver.follows_leases:
            lease._follow(stack)
        return lease

    # In the messages of asyncio the coroutine has the name that its caller knows.
    _acquire.__name__, _acquire.__qualname__ = acquire.__name__, acquire.__qualname__

    # --- being a channel ----------------------------------------------------------------------------------------

    def _caller(self, kind: str, *arguments: Any) -> tuple[Caller, Method]:
        method = self._driver.methods.get(kind, arguments)
        return PoolCaller(self, method), method

    def _caller_of_lease(self, caller: Caller) -> Caller:
        """What runs the calls of a lease. A handle follows them."""
        return caller

    def _interceptors(self) -> tuple[tuple[str, tuple[Any, ...]], ...]:
        return interceptors_of(self)

    def _has_ended(self) -> bool:
        """Whether the pool is closed, and its grace is over: as a channel, it is shut down only then."""
        return self._driver.finished.is_set()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """As `grpc.aio.Channel.get_state`: the state of the pool, which is `READY` if any connection is."""
        driver = self._driver
        driver.check_use()
        if self._has_ended():
            return grpc.ChannelConnectivity.SHUTDOWN
        state = driver.connectivity()
        if try_to_connect and state is not grpc.ChannelConnectivity.READY and not self.closed:
            driver.enter()
            driver.tell(driver.machine.connect)
        return state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """As `grpc.aio.Channel.wait_for_state_change`, of the state of the pool."""
        driver = self._driver
        driver.enter()
        if self._has_ended():
            raise grpc.aio.UsageError("Channel is closed.")
        # Raises what gRPC raises if it is not a state.
        last = grpc.ChannelConnectivity(last_observed_state.value)
        while self.get_state() is last:
            await driver.wait_for_change(_CHECKS_EVERY)

    async def channel_ready(self) -> None:
        """As `grpc.aio.Channel.channel_ready`: waits until a connection is ready, without limit."""
        while (state := self.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
            # A pool that keeps no connections open dials again only if it is asked again.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ASKS_EVERY):
                    await self.wait_for_state_change(state)

    # --- the whole pool -----------------------------------------------------------------------------------------

    async def open(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 -- as the sync twin
        """Opens `min_size` connections and waits until they are ready.

        Same as `grpcpool.ChannelPool.open`, but awaits.

        Args:
            timeout: Seconds that this may take; `None`: only `PoolConfig.connect_timeout` limits it.

        Raises:
            PoolOpenError: A connection could not be opened in time, or at all, which its cause explains. What had
                been opened is closed again, and the pool is as before.
            PoolClosedError: The pool is closed.
            WrongEventLoopError: The pool is bound to another event loop.
            PoolForkedError: The pool was used before a fork.
            ValueError: `timeout` is negative.
        """
        driver = self._driver
        driver.enter()
        if driver.leaving:
            raise driver.closed_error()
        now = driver.monotonic()
        await AwaitedOpenWaiter(since=now, deadline=self._deadline(timeout, now)).open(driver)

    async def close(self, grace: float | None = None) -> None:
        """Closes the pool: nothing of it, neither task nor connection, is left.

        Same as `grpcpool.ChannelPool.close`, but awaits. If the task is cancelled while it waits, the rest is done in
        the background. Calls that are in their interceptors, or wait for the very first connection, are in flight, as
        they are for gRPC.

        Args:
            grace: Seconds; `math.inf` waits without limit; `PoolConfig.close_grace` if not given.

        Raises:
            WrongEventLoopError: The pool is bound to another event loop.
            PoolForkedError: The pool was used before a fork.
            ValueError: `grace` is negative.
        """
        driver = self._driver
        if driver.is_gone():
            return
        seconds = self._grace(grace)
        driver.enter()
        began = driver.monotonic()
        try:
            await driver.let_calls_begin(seconds, lambda waiter: isinstance(waiter, Waiting))
        finally:
            driver.close(max(0.0, seconds - (driver.monotonic() - began)))
        await driver.wait_closed()

    async def __aenter__(self) -> Self:
        """Returns the pool; it opens at first use."""
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Closes the pool."""
        await self.close()
