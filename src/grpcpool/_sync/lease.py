"""A lease: one connection, or some of its streams, for a while, as a `grpc.Channel`.

The place is given back exactly once: by the first release, or, if calls still run then, by the last of them; by
the garbage collector for a lease that nobody released.
"""

from __future__ import annotations

import datetime as dt
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc

from .._errors import LeaseReleasedError, PoolForkedError
from .._machine import NOTHING
from .._status import code_of
from .calls import Arguments, Caller
from .channel import ChannelSurface
from .endings import on_end

if TYPE_CHECKING:
    from .._leaks import LeakWatch
    from .core import Core
    from .pool import ChannelPool
    from .slot_channel import SlotChannel


class Lease(ChannelSurface):
    """A place on one connection of a pool, as a channel.

    Leave the ``with`` block, or `release()` it, to give it back. Calls that still run then run on, and the place is
    free when the last of them ends. A call that is begun after the release raises `LeaseReleasedError`.

    Leases are made by `ChannelPool.acquire`. A lease may be used from any thread. One that is dropped without release
    is given back by the garbage collector, with a `ResourceWarning`.
    """

    # Most leases never change these, and what is not set per lease costs nothing per acquire.
    _released = False
    # Calls that run on this lease: the last one gives the place back if the lease is released by then.
    _calls = 0
    # What else ends with the lease: the watch for a leak, subscriptions.
    _at_release: tuple[Callable[[], None], ...] = ()

    # Set by `ChannelPool.acquire`: to call an __init__ would cost as much again as all else that makes a lease.
    _core: Core
    # The pool must live as long as its leases do.
    _pool: ChannelPool
    _streams: int | None
    # A Slot; None until the place has been taken, when only the finalizer may see the lease.
    _slot: Any = None
    _used_at: float

    def watch_for_leak(self, leaks: LeakWatch) -> None:
        """Has the lease reported if it is held for too long."""
        core = self._core
        stack = "".join(traceback.format_stack()[:-2])
        with core.lock:
            ticket = leaks.taken(self._slot.id, core.monotonic(), stack)
        self._at_release = (partial(core.forget_leak, ticket),)
        core.worker.see_to(core.alarm)

    # --- giving back --------------------------------------------------------------------------------------------

    def release(self) -> None:
        """Gives the lease back; its place is free at once, or when the last of its calls ends.

        Later releases do nothing; so does a release in a forked child.
        """
        core = self._core
        if core.void:
            return
        with core.lock:
            if self._released:
                return
            self._released = True
            effects = NOTHING
            if not self._calls:
                effects = core.machine.release(self._slot, self._streams, core.monotonic())
        if effects:
            core.commit(effects)
        if self._at_release:
            self._end_the_rest()

    def discard(self) -> None:
        """Gives the lease back and closes its connection, which is not used again.

        A whole connection is closed at once, and calls on it are cancelled. A shared one takes no new calls, and
        closes when those of the others have ended. After a release, does nothing.
        """
        core = self._core
        if core.void:
            return
        with core.lock:
            if self._released:
                return
            self._released = True
            # Its calls end without giving anything back: the place is given back here.
            self._calls = -1
            effects = core.machine.discard(self._slot, self._streams, core.monotonic())
        core.commit(effects)
        self._end_the_rest()

    def _end_the_rest(self) -> None:
        for end in self._at_release:
            end()
        self._at_release = ()

    def close(self) -> None:
        """Gives the lease back: the same as `release`."""
        self.release()

    def __enter__(self) -> Self:
        """Returns the lease."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Gives the lease back."""
        self.release()

    def __del__(self) -> None:
        """Gives back a lease that nobody released. No call runs on it: calls hold their lease."""
        slot = self._slot
        if slot is None or self._released or self._core.void:
            return
        self._released = True
        core = self._core
        core.defer(partial(core.release, slot, self._streams))
        for end in self._at_release:
            core.defer(end)
        text = f"a lease of channel {slot.id} of pool {core.name!r} was dropped without release()"
        warnings.warn(text, ResourceWarning, stacklevel=2, source=self)

    # --- what it is ---------------------------------------------------------------------------------------------

    @property
    def created_at(self) -> dt.datetime:
        """When the connection was opened; an aware `datetime`."""
        return self._core.date_of(self._slot.opened_at)

    @property
    def used_at(self) -> dt.datetime:
        """When the connection was last returned before this lease, or opened; an aware `datetime`."""
        return self._core.date_of(self._used_at)

    def __repr__(self) -> str:
        """The lease at a glance."""
        what = "all" if self._streams is None else f"{self._streams} streams"
        state = "released" if self._released else "held"
        return f"<grpcpool.Lease of {what} of channel {self._slot.id} of pool {self._core.name!r}: {state}>"

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
                if not self._core.void:
                    end()
                return

    @property
    def _channel(self) -> SlotChannel:
        channel: SlotChannel = self._slot.channel
        return channel

    def _caller(self, kind: str, *arguments: Any) -> Caller:
        self._check_usable()
        return LeaseCaller(self, self._channel.multicallable(self._core.methods.get(kind, arguments)))

    # --- its calls ----------------------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self._core.void:
            text = f"pool {self._core.name!r}: this lease was taken before the fork; acquire a new one in the child"
            raise PoolForkedError(text)
        if self._released:
            figures = self._core.machine.figures()
            text = f"pool {self._core.name!r}: the lease has been released ({figures}); acquire a new one"
            raise LeaseReleasedError(text)

    def begin_call(self) -> None:
        """A call begins.

        Raises:
            LeaseReleasedError: The lease has been given back.
            PoolForkedError: The lease was taken before a fork.
        """
        core = self._core
        if not core.void:
            with core.lock:
                if not self._released:
                    self._calls += 1
                    return
        self._check_usable()

    def call_failed(self, error: grpc.RpcError) -> None:
        """A call failed, maybe because the connection is down."""
        self._core.call_failed(self._slot, code_of(error))

    def end_call(self) -> None:
        """A call is over; the last after the release gives the place back. Never raises."""
        core = self._core
        if core.void:
            return
        with core.lock:
            if self._calls < 0:
                return
            self._calls -= 1
            if self._calls or not self._released:
                return
            effects = core.machine.release(self._slot, self._streams, core.monotonic())
        if effects:
            core.commit(effects)


class _Unsubscribe:
    """Ends one subscription of a lease."""

    def __init__(self, channel: grpc.Channel, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        self.callback = callback
        self._channel = channel

    def __call__(self) -> None:
        self._channel.unsubscribe(self.callback)


class LeaseCaller:
    """Runs the calls of one method on the lease's connection, and has the lease count them."""

    def __init__(self, lease: Lease, native: Any) -> None:
        """For the channel's own multicallable `native`."""
        self._lease = lease
        self._native = native

    def block(self, how: str, arguments: Arguments) -> Any:
        """Runs a call that is over when this returns."""
        lease = self._lease
        lease.begin_call()
        try:
            return getattr(self._native, how)(*arguments)
        except grpc.RpcError as error:
            lease.call_failed(error)
            raise
        finally:
            lease.end_call()

    def run(self, how: str, arguments: Arguments) -> Any:
        """Begins a call; the lease is told when it is over."""
        lease = self._lease
        lease.begin_call()
        try:
            call = getattr(self._native, how)(*arguments)
        except BaseException:
            lease.end_call()
            raise
        return on_end(call, lease.end_call, lease._core.defer)
