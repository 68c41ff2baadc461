"""A lease: one connection, or some of its streams, for a while, as a `grpc.aio.Channel`."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc

from .._grpc.status import answer_of_done, details_of_done, has_been_refused, has_succeeded
from .._shared.lease_base import LeaseBase
from .arguments import Arguments, start
from .call import SHELLS, End
from .channel import ChannelSurface

if TYPE_CHECKING:
    from .._shared.methods import Method
    from .driver import AioDriver
    from .slot_channel import AioSlotChannel


class Lease(LeaseBase, ChannelSurface):
    """A place on one connection of a pool, as a channel.

    Leave the ``async with`` block, or `release()` it, to give it back. Calls that still run then run on, and the place
    is free when the last of them ends. A call that is begun after the release raises `LeaseReleasedError`.

    Leases are made by `ChannelPool.acquire`. A lease is used in the event loop of its pool. One that is dropped
    without release is given back by the garbage collector, with a `ResourceWarning`.
    """

    _shown_as = "grpcpool.aio.Lease"
    _driver: AioDriver

    async def close(self, grace: float | None = None) -> None:  # noqa: ARG002 -- gRPC's
        """Gives the lease back: the same as `release`."""
        self.release()

    async def __aenter__(self) -> Self:
        """Returns the lease."""
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Gives the lease back."""
        self.release()

    # --- being a channel ----------------------------------------------------------------------------------------

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """As `grpc.aio.Channel.get_state`, of the leased connection."""
        self._check_usable()
        self._driver.enter()
        return self._channel.state(connect=try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """As `grpc.aio.Channel.wait_for_state_change`, of the leased connection."""
        self._check_usable()
        self._driver.enter()
        await self._channel.channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """As `grpc.aio.Channel.channel_ready`, of the leased connection."""
        self._check_usable()
        self._driver.enter()
        await self._channel.channel.channel_ready()

    def _inherited(self, attribute: str) -> list[Any]:
        """Those of the pool: a token is wanted on a lease as well."""
        return [*getattr(self._pool, attribute)]

    @property
    def _channel(self) -> AioSlotChannel:
        channel: AioSlotChannel = self._slot.channel
        return channel

    def _caller(self, kind: str, *arguments: Any) -> tuple[LeaseCaller, Method]:
        self._check_usable()
        method = self._driver.methods.get(kind, arguments)
        return LeaseCaller(self, method), method


class LeaseCaller:
    """Runs the calls of one method on the lease's connection, and has the lease count them."""

    def __init__(self, lease: Lease, method: Method) -> None:
        """For calls of `method`."""
        self._lease = lease
        self._method = method
        self._native = lease._channel.multicallable(method)

    @property
    def driver(self) -> AioDriver:
        """The driver of the lease's pool."""
        return self._lease._driver

    def of_other_method(self, name: str) -> LeaseCaller:
        """The caller for a method with another name."""
        return self._lease._caller(self._method.kind, name, *self._method.arguments[1:])[0]

    def call(self, arguments: Arguments) -> Any:
        """Begins a call; the lease is told when it is over.

        Raises:
            LeaseReleasedError: The lease has been given back.
            PoolForkedError: The lease was taken before a fork.
        """
        lease = self._lease
        lease.begin_call()
        try:
            self.driver.enter()
            native = start(self._native, arguments)
        except BaseException:
            lease.end_call()
            raise
        call = SHELLS[self._method.kind](self.driver, lease)
        call.begin(native, End(self.over, call, lease._slot))
        return call

    def over(self, native: Any, end: End) -> None:
        """A native call is over: the lease is told."""
        lease = self._lease
        if not has_succeeded(native):
            code = answer_of_done(native.code)
            if has_been_refused(native, code):
                end.refused = True
                self.driver.tell(self.driver.machine.crowded, end._slot)
            else:
                self.driver.call_failed(end._slot, code, details_of_done(native))
        lease.end_call()
        call = end.call()
        if call is not None:
            call.end()


class Acquire(Coroutine[Any, Any, Lease]):
    """What `ChannelPool.acquire` returns: await it for a lease to release, or use it with ``async with``.

    It is a coroutine, so that `asyncio.create_task` and its sisters take it.
    """

    def __init__(self, acquires: Coroutine[Any, Any, Lease]) -> None:
        """Waits for the place by `acquires`."""
        self._acquires = acquires
        self._lease: Lease | None = None

    def __await__(self) -> Generator[Any, None, Lease]:
        """Waits for the place."""
        return self._acquires.__await__()

    def send(self, value: Any) -> Any:
        """As any coroutine's."""
        return self._acquires.send(value)

    def throw(self, *error: Any) -> Any:
        """As any coroutine's."""
        return self._acquires.throw(*error)

    def close(self) -> None:
        """As any coroutine's."""
        self._acquires.close()

    async def __aenter__(self) -> Lease:
        """Waits for the place; returns the lease."""
        self._lease = await self._acquires
        return self._lease

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Gives the lease back."""
        if self._lease is not None:
            self._lease.release()
