"""The pool, for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Any, Self

import grpc

from .._shared.clock import current_clock
from .._shared.leaks import stack_of_caller
from .._shared.methods import Method
from .._shared.pool_base import CONFIGURED, Configured, PoolBase
from .caller import PoolCaller
from .channel import ChannelSurface
from .driver import AioDriver
from .lease import Acquire, Lease
from .waiter import AwaitedOpenWaiter, AwaitedWaiter, CallWaiter

# How often who waits for another state looks, besides being told of what the pool knows; and how often who waits for
# the pool to be ready asks it to connect.
_LOOKS_EVERY, _ASKS_EVERY = 0.05, 0.2


class ChannelPool(PoolBase, ChannelSurface):
    """A `grpc.aio.Channel` over several connections, and a pool from which they are leased.

    Same as `grpcpool.ChannelPool`, but for asyncio. A pool may be made anywhere; it is bound to the event loop of its
    first use, and is to be closed before that loop ends. In a forked child a pool that was used before the fork raises
    `PoolForkedError`, for asyncio gRPC does not survive a fork.
    """

    _shown_as = "grpcpool.aio.ChannelPool"
    _channel_type = "grpc.aio.Channel"
    _driver: AioDriver

    def _new_driver(self) -> AioDriver:
        return AioDriver(self._source, self._config, name=self._name, listeners=self._listeners, clock=current_clock())

    def after_fork_in_child(self) -> AioDriver:
        """In a forked child: a pool that was not used yet starts afresh, another is void. Returns what to keep."""
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

        Same as `grpcpool.ChannelPool.acquire`, but awaits. Who is cancelled while waiting leaves no trace.

        Args:
            timeout: Seconds to wait for a place at most; 0 tries once, `None` waits for ever. If not given,
                `PoolConfig.acquire_timeout`.
            streams: `None` leases a whole connection. A number leases so many streams of one connection that is
                shared; it is the promise of how many calls there will be on the lease at once.

        Returns:
            What gives a lease, which is a `grpc.aio.Channel`, when it is awaited or entered.

        Raises:
            PoolTimeoutError: No place came free in time; its cause is the last connect error, if there was one.
            PoolExhaustedError: `PoolConfig.max_waiters` wait already.
            PoolClosedError: The pool is closed, or was closed meanwhile.
            WrongEventLoopError: The pool is bound to another event loop.
            PoolForkedError: The pool was used before a fork.
            ValueError: `timeout` is negative, or `streams` is not a number from 1 to `PoolConfig.max_streams`.
        """
        if streams is not None:
            self._check_streams(streams)
        self._seconds(timeout)
        # Here, for a task that waits for the lease does not know who started it.
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
        lease._released = False
        lease._calls = 0
        lease._at_release = ()
        since = driver.monotonic()
        deadline = self._deadline(within, since)
        with driver.lock:
            slot = driver.places.acquire(streams, lease)
        while True:
            if slot is None:
                lease._slot = slot = await AwaitedWaiter(streams, since=since, deadline=deadline).get(driver)
                lease._released = False
            used_at = slot.used_at
            if driver.monotonic() <= slot.channel.trusted_until or driver.is_fit(slot, streams, lease):
                break
            lease._slot = slot = None
        lease._used_at = used_at
        if driver.leaks is not None:
            lease.watch_for_leak(driver.leaks, stack)
        if driver.announcer.emits_releases:
            lease.watch_release()
        return lease

    # --- being a channel ----------------------------------------------------------------------------------------

    def _caller(self, kind: str, *arguments: Any) -> tuple[PoolCaller, Method]:
        method = self._driver.methods.get(kind, arguments)
        return PoolCaller(self, method), method

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """As `grpc.aio.Channel.get_state`: the state of the pool, which is `READY` if any connection is."""
        driver = self._driver
        driver.check_use()
        if self.closed:
            return grpc.ChannelConnectivity.SHUTDOWN
        state = driver.connectivity()
        if try_to_connect and state is not grpc.ChannelConnectivity.READY:
            driver.enter()
            driver.tell(driver.machine.connect)
        return state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """As `grpc.aio.Channel.wait_for_state_change`, of the state of the pool."""
        driver = self._driver
        driver.enter()
        if self.closed:
            raise grpc.aio.UsageError("Channel is closed.")
        while self.get_state() is last_observed_state:
            await driver.wait_for_change(_LOOKS_EVERY)

    async def channel_ready(self) -> None:
        """As `grpc.aio.Channel.channel_ready`: waits until a connection is ready, for ever if need be."""
        while (state := self.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
            # A pool that keeps no connections open dials again only when it is asked again.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ASKS_EVERY):
                    await self.wait_for_state_change(state)

    # --- the whole pool -----------------------------------------------------------------------------------------

    async def open(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 -- as the sync twin
        """Opens `min_size` connections and waits until they are ready.

        Same as `grpcpool.ChannelPool.open`, but awaits.

        Args:
            timeout: Seconds it may take; `None` leaves it to `PoolConfig.connect_timeout`.

        Raises:
            PoolOpenError: A connection could not be made, which its cause explains, or not in time. What had been
                opened is closed again, and the pool is as before.
            PoolClosedError: The pool is closed.
        """
        driver = self._driver
        driver.enter()
        if driver.leaving:
            raise driver.closed_error()
        now = driver.monotonic()
        await AwaitedOpenWaiter(since=now, deadline=self._deadline(timeout, now)).open(driver)

    async def close(self, grace: float | None = None) -> None:
        """Closes the pool: nothing of it, neither task nor connection, is left.

        Same as `grpcpool.ChannelPool.close`, but awaits. Who is cancelled while waiting has the rest done in the
        background. A call that waits for the very first connection is in flight, as it is for gRPC.

        Args:
            grace: Seconds; `PoolConfig.close_grace` if not given.
        """
        seconds = self._grace(grace)
        driver = self._driver
        if driver.is_gone():
            return
        driver.enter()
        began = driver.monotonic()
        try:
            await driver.let_first_calls_begin(seconds, lambda waiter: isinstance(waiter, CallWaiter))
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
