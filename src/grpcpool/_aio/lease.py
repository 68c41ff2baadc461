"""A lease: one connection, or some of its streams, for a while, as a `grpc.aio.Channel`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc

from .._grpc.status import has_succeeded, is_done_refused, status_of_done
from .._shared.arguments import Arguments
from .._shared.lease_base import LeaseBase
from .arguments import Caller
from .call import PROXIES
from .call_stages import Running, new_running
from .channel import ChannelSurface

if TYPE_CHECKING:
    from .._shared.methods import Method
    from .driver import AioDriver
    from .slot_channel import AioSlotChannel


class Lease(LeaseBase, ChannelSurface):
    """A place on one connection of a pool, as a channel.

    Leave the ``async with`` block, or call `release()`, to release it. Calls that still run then continue, and the
    place is free when the last of them ends. A call that is begun after the release raises `LeaseReleasedError`.

    `ChannelPool.acquire` returns leases. A lease is used in the event loop of its pool. One that is dropped without a
    release is released by the garbage collector, with a `ResourceWarning`.
    """

    _shown_as = "grpcpool.aio.Lease"
    if TYPE_CHECKING:
        # Here `typing.get_type_hints` does not meet it.
        _driver: AioDriver

    async def close(self, grace: float | None = None) -> None:  # noqa: ARG002 -- gRPC's
        """Releases the lease: the same as `release`."""
        self.release()

    async def __aenter__(self) -> Self:
        """Returns the lease."""
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Releases the lease."""
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
        """Those of the pool, because a lease needs what they add (a token, say) as well."""
        return [*getattr(self._pool, attribute)]

    def _go_on_with_call(self) -> int:
        """A call whose interceptors are counted already goes on, also after the release; else as `_begin_call`."""
        with self._driver.lock:
            if self._calls > 0:
                self._calls += 1
                # Its interceptors do not count.
                return self._calls - 1
        return self._begin_call()

    @property
    def _channel(self) -> AioSlotChannel:
        channel: AioSlotChannel = self._slot.channel
        return channel

    def _caller(self, kind: str, *arguments: Any) -> tuple[Caller, Method]:
        self._check_usable()
        method = self._driver.methods.get(kind, arguments)
        return self._pool._caller_of_lease(LeaseCaller(self, method)), method


class LeaseCaller:
    """Runs the calls of one method on the lease's connection; the lease counts them."""

    def __init__(self, lease: Lease, method: Method) -> None:
        """For calls of `method`."""
        self._lease = lease
        self._method = method
        self._native = lease._channel.made[method]

    def origin(self) -> tuple[Lease, Method]:
        """The lease, and the method."""
        return self._lease, self._method

    @property
    def driver(self) -> AioDriver:
        """The driver of the lease's pool."""
        return self._lease._driver

    def of_other_method(self, name: str) -> LeaseCaller:
        """The caller for a method with another name."""
        methods = self.driver.methods
        return LeaseCaller(self._lease, methods.get(self._method.kind, (name, *self._method.arguments[1:])))

    def begin_chain(self) -> bool:
        """An intercepted call begins, which the lease counts until its end.

        Raises:
            LeaseReleasedError: The lease has been released.
            PoolForkedError: The lease was taken before a fork.
        """
        self._lease._begin_call()
        return True

    def watch_chain(self, chain: asyncio.Task[Any]) -> None:
        """The task runs the interceptors of a call."""
        self.driver.watch_chain(chain)

    def end_chain(self) -> None:
        """The interceptors of a call are done; what they began is counted by itself."""
        self._lease._end_call()

    def begin(self, arguments: Arguments, chain: object = None) -> Any:
        """Begins a call, which the lease counts until its end.

        Raises:
            LeaseReleasedError: The lease has been released.
            PoolForkedError: The lease was taken before a fork.
        """
        lease = self._lease
        calls = lease._begin_call() if chain is None else lease._go_on_with_call()
        try:
            self.driver.enter()
            native = self._native(*arguments)
        except BaseException:
            lease._end_call()
            raise
        call = PROXIES[self._method.kind]()
        call._driver, call._owner = self.driver, lease
        running = new_running(Running, self, call, began=self.driver.monotonic())
        running._slot = lease._slot
        # Later ones may run when it ends: its caller may have the error already.
        running.calls = calls
        call._begin(native, running)
        return call

    def ended(self, native: Any, running: Running) -> None:
        """A native call is over: the lease counts it no longer."""
        driver, lease = self.driver, self._lease
        answered = has_succeeded(native)
        if not answered:
            status = status_of_done(native)
            answered = not status.is_unanswered
            if is_done_refused(native, status):
                running.refused = True
                driver.tell(driver.machine.note_refusal, running._slot, running.calls, running.placed_at)
            else:
                driver.call_failed(running._slot, None, running.placed_at, status)
        lease._end_call(answered=answered)
        running.end_call()


class Acquire(Coroutine[Any, Any, Lease]):
    """What `ChannelPool.acquire` returns: await it for a lease to release, or use it with ``async with``.

    It is a coroutine, so that `asyncio.create_task` and similar functions accept it.
    """

    def __init__(self, acquires: Coroutine[Any, Any, Lease]) -> None:
        """Waits for the place by `acquires`."""
        self._acquires = acquires
        self._lease: Lease | None = None

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """What `asyncio` and `inspect` read of a coroutine, to name it and to show where it waits."""
            if name in ("__name__", "__qualname__") or name.startswith("cr_"):
                return getattr(self._acquires, name)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        """As any coroutine's."""
        return repr(self._acquires)

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
        """Releases the lease."""
        if self._lease is not None:
            self._lease.release()
