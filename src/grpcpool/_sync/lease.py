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

from .._clock import date_of
from .._errors import LeaseReleasedError, PoolForkedError
from .._machine import NOTHING
from .._slot import Slot
from .calls import Arguments, Caller
from .channel import ChannelSurface
from .endings import on_end

if TYPE_CHECKING:
    from .core import Core
    from .pool import ChannelPool
    from .slot_channel import SlotChannel


class Lease(ChannelSurface):
    """A place on one connection of a pool, as a channel.

    Leave the ``with`` block, or `release()` it, to give it back. Calls that still run then run on, and the place is
    free when the last of them ends. A call that is begun after the release raises `LeaseReleasedError`.

    A lease may be used from any thread. One that is dropped without release is given back by the garbage collector,
    with a `ResourceWarning`.
    """

    # What __del__ finds if __init__ never ran to its end.
    _held = False

    def __init__(self, pool: ChannelPool, core: Core, streams: int | None) -> None:
        """Leases are made by `ChannelPool.acquire`."""
        self._core = core
        # The pool must live as long as its leases do.
        self._pool = pool
        self._streams = streams
        # Calls that run on this lease: the last one gives the place back if the lease is released by then.
        self._calls = 0
        self._slot: Slot
        self._used_at: float
        self._leak_ticket = 0
        self._subscriptions: list[Callable[[grpc.ChannelConnectivity], None]] = []

    def bind(self, slot: Slot) -> None:
        """The place on `slot` has been taken and is this lease's from here on."""
        self._slot = slot
        self._used_at = slot.used_at
        self._held = True

    def watch_for_leak(self) -> None:
        """Has the lease reported if it is held for too long."""
        core = self._core
        if core.leaks is not None:
            stack = "".join(traceback.format_stack()[:-2])
            with core.lock:
                self._leak_ticket = core.leaks.taken(self._slot.id, core.monotonic(), stack)
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
            if not self._held:
                return
            self._held = False
            effects = NOTHING
            if not self._calls:
                effects = core.machine.release(self._slot, self._streams, core.monotonic())
            if self._leak_ticket and core.leaks is not None:
                core.leaks.returned(self._leak_ticket)
        if effects:
            core.commit(effects)
        if self._subscriptions:
            self._unsubscribe_all()

    def discard(self) -> None:
        """Gives the lease back and closes its connection, which is not used again.

        A whole connection is closed at once, and calls on it are cancelled. A shared one takes no new calls, and
        closes when those of the others have ended. After a release, does nothing.
        """
        core = self._core
        if core.void:
            return
        with core.lock:
            if not self._held:
                return
            self._held = False
            # Its calls end without giving anything back: the place is given back here.
            self._calls = -1
            effects = core.machine.discard(self._slot, self._streams, core.monotonic())
            if self._leak_ticket and core.leaks is not None:
                core.leaks.returned(self._leak_ticket)
        core.commit(effects)

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
        if not self._held or self._core.void:
            return
        self._held = False
        core = self._core
        core.defer(partial(core.release_leaked, self._slot, self._streams, self._leak_ticket))
        text = f"a lease of channel {self._slot.id} of pool {core.name!r} was dropped without release()"
        warnings.warn(text, ResourceWarning, stacklevel=2, source=self)

    # --- what it is ---------------------------------------------------------------------------------------------

    @property
    def created_at(self) -> dt.datetime:
        """When the connection was opened; an aware `datetime`."""
        return date_of(self._slot.opened_at, self._core.clock)

    @property
    def used_at(self) -> dt.datetime:
        """When the connection was last returned before this lease, or opened; an aware `datetime`."""
        return date_of(self._used_at, self._core.clock)

    def __repr__(self) -> str:
        """The lease at a glance."""
        what = "all" if self._streams is None else f"{self._streams} streams"
        state = "held" if self._held else "released"
        slot = getattr(self, "_slot", None)
        return f"<grpcpool.Lease of {what} of channel {slot.id if slot else '?'} of pool {self._core.name!r}: {state}>"

    # --- being a channel ----------------------------------------------------------------------------------------

    def subscribe(
        self,
        callback: Callable[[grpc.ChannelConnectivity], None],
        try_to_connect: bool | None = False,
    ) -> None:
        """As `grpc.Channel.subscribe`, on the leased connection, until the release."""
        self._check_usable()
        self._subscriptions.append(callback)
        self._channel.channel.subscribe(callback, bool(try_to_connect))

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """As `grpc.Channel.unsubscribe`."""
        if callback in self._subscriptions:
            self._subscriptions.remove(callback)
            self._channel.channel.unsubscribe(callback)

    def _unsubscribe_all(self) -> None:
        while self._subscriptions:
            self._channel.channel.unsubscribe(self._subscriptions.pop())

    @property
    def _channel(self) -> SlotChannel:
        channel: SlotChannel = self._slot.channel
        return channel

    def _caller(self, kind: str, method: str, *how: Any) -> Caller:
        self._check_usable()
        return LeaseCaller(self, self._channel.multicallable(kind, method, *how))

    # --- its calls ----------------------------------------------------------------------------------------------

    def _check_usable(self) -> None:
        if self._core.void:
            text = f"pool {self._core.name!r}: this lease was taken before the fork; acquire a new one in the child"
            raise PoolForkedError(text)
        if not self._held:
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
        if self._held and not core.void:
            with core.lock:
                if self._held:
                    self._calls += 1
                    return
        self._check_usable()

    def end_call(self) -> None:
        """A call is over; the last after the release gives the place back. Never raises."""
        core = self._core
        if core.void:
            return
        with core.lock:
            if self._calls < 0:
                return
            self._calls -= 1
            if self._calls or self._held:
                return
            effects = core.machine.release(self._slot, self._streams, core.monotonic())
        if effects:
            core.commit(effects)


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
        on_end(call, lease.end_call, lease._core.defer)
        return call
