"""A lease: one connection, or some of its streams, for a while, as a `grpc.Channel`.

The place is released exactly once: by the first release or, if calls still run then, by the end of the last of them. A
lease that was never released is released by the garbage collector.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc

from .._grpc.failed_streams import reference
from .._grpc.short_tracebacks import drop_frames_below
from .._grpc.status import Status, code_of, details_of, is_refused_stream
from .._shared.arguments import Arguments
from .._shared.lease_base import LeaseBase
from .arguments import Caller
from .call_end import on_end
from .channel import ChannelSurface

if TYPE_CHECKING:
    from .._shared.methods import Method
    from .driver import SyncDriver
    from .slot_channel import SyncSlotChannel


class Lease(LeaseBase, ChannelSurface):
    """A place on one connection of a pool, as a channel.

    Leave the ``with`` block, or call `release()`, to release it. Calls that still run then continue, and the place is
    free when the last of them ends. A call that is begun after the release raises `LeaseReleasedError`.

    `ChannelPool.acquire` returns leases. A lease may be used from any thread. One that is dropped without a release is
    released by the garbage collector, with a `ResourceWarning`.
    """

    _shown_as = "grpcpool.Lease"
    if TYPE_CHECKING:
        # Here `typing.get_type_hints` does not meet it.
        _driver: SyncDriver

    def close(self) -> None:
        """Releases the lease: the same as `release`."""
        self.release()

    def __enter__(self) -> Self:
        """Returns the lease."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Releases the lease."""
        self.release()

    # --- being a channel ----------------------------------------------------------------------------------------

    def subscribe(
        self,
        callback: Callable[[grpc.ChannelConnectivity], None],
        try_to_connect: bool | None = False,
    ) -> None:
        """As `grpc.Channel.subscribe`, on the leased connection, until the release."""
        self._check_usable()
        self._channel.channel.subscribe(callback, bool(try_to_connect))
        self._at_release = (*self._at_release, _Unsubscribe(self._channel.channel, callback))

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """As `grpc.Channel.unsubscribe`."""
        for end in self._at_release:
            if isinstance(end, _Unsubscribe) and end.callback == callback:
                self._at_release = tuple(other for other in self._at_release if other is not end)
                if not self._driver.void:
                    end()
                return

    @property
    def _channel(self) -> SyncSlotChannel:
        channel: SyncSlotChannel = self._slot.channel
        return channel

    def _caller(self, kind: str, *arguments: Any) -> Caller:
        self._check_usable()
        method = self._driver.methods.get(kind, arguments)
        caller: Caller = self._pool._caller_of_lease(LeaseCaller(self, method))
        return caller


class _Unsubscribe:
    """Ends one subscription of a lease."""

    def __init__(self, channel: grpc.Channel, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        self.callback = callback
        self._channel = channel

    def __call__(self) -> None:
        self._channel.unsubscribe(self.callback)


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

    def block(
        self,
        how: str,
        request: Any,
        timeout: float | None,
        metadata: Any,
        credentials: grpc.CallCredentials | None,
        wait_for_ready: bool | None,
        compression: grpc.Compression | None,
    ) -> Any:
        """Runs a call until it is over."""
        lease = self._lease
        # Read here: what an iterator of the caller's raises must not look like an interruption of gRPC.
        metadata = metadata and tuple(metadata)
        calls = lease._begin_call()
        began, answered = lease._driver.monotonic(), False
        try:
            response = getattr(self._native, how)(request, timeout, metadata, credentials, wait_for_ready, compression)
        except grpc.RpcError as error:
            answered = self._failed(error, calls, began)
            drop_frames_below(error)
            raise
        except BaseException:
            lease._driver.interrupted(lease._slot)
            raise
        else:
            answered = True
            return response
        finally:
            lease._end_call(answered=answered)

    def begin(self, how: str, arguments: Arguments) -> Any:
        """Begins a call, which the lease counts until its end."""
        lease = self._lease
        calls = lease._begin_call()
        try:
            call = getattr(self._native, how)(*arguments)
        except BaseException:
            lease._driver.interrupted(lease._slot)
            lease._end_call()
            raise
        driver = lease._driver
        over = partial(self._over, reference(call, driver.defer_apart), calls, driver.monotonic())
        return on_end(call, over, driver, driver.when_interrupted(lease._slot))

    def _over(self, call: Callable[[], Any], calls: int, began: float) -> None:
        """A call that was returned is over. Never raises."""
        self._lease._end_call(answered=self._failed(call(), calls, began))

    def _failed(self, call: Any, calls: int, began: float) -> bool:
        """A call is over: reports to the driver what it says of its connection.

        Args:
            call: The call, or its error; `None` for a stream that was dropped.
            calls: How many ran on the lease when it began. Later ones may run by now: its caller has the error already.
            began: When it began.

        Returns:
            Whether the server answered.
        """
        code = code_of(call)
        if code is grpc.StatusCode.OK:
            return True
        driver, slot, status = self._lease._driver, self._lease._slot, Status(code, details_of(call))
        if is_refused_stream(call):
            driver.tell(driver.machine.note_refusal, slot, calls, began)
        else:
            driver.call_failed(slot, None, began, status)
        return not status.is_unanswered
