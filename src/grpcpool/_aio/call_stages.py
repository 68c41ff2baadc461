"""The stages of a call: it waits for a place, it runs, or it has failed before it ran (`Failed`).

A call is in one stage at a time, and changes from one to the next in `staged_call.py`. What all three have in common:

Attributes:
    native: The call that serves: gRPC's own, or `Failed`; `None` for one that waits.
    over: Whether it is over for good.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._machine.queue import Waiter
from .._shared.arguments import TIMEOUT, Arguments
from .failed_call import Failed, failed_by

if TYPE_CHECKING:
    from .._machine.slot import Slot
    from .._shared.methods import Sent
    from .._values.errors import PoolError
    from .driver import AioDriver


class Waiting(Waiter):
    """The call waits for a place; this is its waiter. It holds a call that ends by itself.

    Attributes:
        start: Starts the call on the slot that has been granted.
        asking: Whether the machine is being asked, by the caller of the call.
        sent: What it sends, if it had to be serialized.
        awaiting_start: Wakes coroutines when the call is no longer in this stage.
    """

    __slots__ = (
        "arguments",
        "asking",
        "awaiting_start",
        "began",
        "call",
        "context",
        "driver",
        "sent",
        "start",
    )

    is_call = True
    native: Any = None
    over = False

    driver: AioDriver
    call: weakref.ref[Any]
    arguments: Arguments
    # `Callable[[Waiting, Any, Slot], None]` and `Context`; `None` once the call has left this stage.
    start: Any
    context: Any
    sent: Sent | None
    asking: bool
    began: float
    awaiting_start: list[asyncio.Future[None]]

    def keep(self, call: Any) -> None:
        """Holds the call, or no longer if it is `None`. Not by itself: its queue outlives the loop."""
        self.driver.keep(self, call)

    def granted(self, slot: Slot) -> None:
        """Starts the call, as if it were started where it was made."""
        call = self.call()
        self.keep(None)
        if self._released:
            # Cancelled while the grant was on its way.
            return
        if call is None or call._stage is not self:
            self.driver.release(slot, 1, self)
        else:
            self.start(self, call, slot)

    def refused(self, error: PoolError) -> None:
        """Fails the call; as with gRPC, a call is never over before its caller has it."""
        if self.asking:
            self.driver.loop.call_soon(self._fail, error)
        else:
            self._fail(error)

    def _fail(self, error: PoolError) -> None:
        call = self.call()
        self.keep(None)
        if call is not None and call._stage is self:
            call._fail(self, failed_by(error, own_deadline=self.arguments[TIMEOUT] is not None))

    def left(self) -> None:
        """The call is not in this stage any more: wakes those that wait for that, and drops what this holds.

        It stays in the queue's heap until its deadline, and would keep the pool: `start` is a method of its caller, and
        the arguments and the context are the user's.
        """
        awaiting, self.awaiting_start = self.awaiting_start, []
        for future in awaiting:
            if not future.done():
                future.set_result(None)
        self.keep(None)
        self.start = self.sent = self.context = None
        self.arguments = (None,) * 6

    def drop(self) -> None:
        """The call has been dropped, and its loop is closed: nothing is left to do."""

    @property
    def own_deadline(self) -> float | None:
        """The deadline that the call came with, if any."""
        return None if self.arguments[TIMEOUT] is None else self.deadline

    def time_remaining(self) -> float | None:
        """Seconds until the call's own deadline, if it has one."""
        deadline = self.own_deadline
        return None if deadline is None else max(0.0, deadline - self.driver.monotonic())


def nobody() -> None:
    """Stands for the reference to a call that has been dropped, and will not be asked for any more."""


class Running:
    """The native call runs, or is over for good. At its end it calls `ended`; this has all that the end needs.

    Made before the call has a place, as the holder of it: every call has one, and no other object.

    Attributes:
        arguments: Those of the call; like `context` and `began`, for sending it again.
        calls: On a lease, how many ran there when it began. Set only then.
        placed_at: When it began, or got its place if it waited for it.
        sent: What has been sent, for sending it again.
        refused: Whether the machine knows that the server refused the call.
        kept: Whether the call is held, because it ends by itself, and a done callback waits for its end or nothing else
            does.
    """

    __slots__ = (
        "_caller",
        "_released",
        "_slot",
        "arguments",
        "began",
        "call",
        "calls",
        "context",
        "kept",
        "native",
        "over",
        "placed_at",
        "refused",
        "sent",
    )

    # Set by `new_running`: calling an __init__ would cost more than all the rest.
    native: Any
    over: bool
    _caller: Any
    call: Callable[[], Any]
    # Not set until the place is taken. A call on a lease holds no place, but runs on a slot as well.
    _slot: Any
    _released: bool
    arguments: Any
    context: Any
    began: float
    placed_at: float
    sent: Sent | None
    refused: bool
    kept: bool
    calls: int

    def runs(self) -> bool:
        """Whether `ended` has not been called yet."""
        return self._caller is not None

    def ended(self) -> None:
        """The native call is over; only the first time counts. Never raises: gRPC would lose the status of the call."""
        caller, self._caller = self._caller, None
        if caller is not None:
            native = self.native
            channel = self._slot.channel
            if channel is not None:
                # Else the pool was dropped, and its loop has ended.
                channel.running.discard(native)
            caller.ended(native, self)
            if self.kept:
                self.keep_no_longer()

    def end_call(self) -> None:
        """The native call is over for good: ends the call."""
        call = self.call()
        if call is not None:
            call._end(self)
        else:
            self.leave_native()

    def leave_native(self) -> None:
        """The native call is over, and the call is gone: breaks the cycle, unless `drop` is still to come."""
        if self.call is nobody:
            self.native = None

    def keep(self, call: Any) -> None:
        """Holds the call until it is over. As in `Waiting`."""
        self.kept = True
        call._driver.keep(self, call)

    def keep_no_longer(self) -> None:
        """The call is over."""
        call, self.kept = self.call(), False
        if call is not None:
            call._driver.keep(self, None)

    def drop(self) -> None:
        """The call has been dropped: breaks the cycle of this and the native call, now or when that is over.

        Not before: the callbacks of a call that was dropped get the native one.
        """
        if self._caller is None:
            self.native = None
        else:
            self.call = nobody


def new_running(
    kind: type[Running], caller: Any, call: Any, arguments: Any = None, context: Any = None, began: float = 0.0
) -> Running:
    """The stage of `call` in which it runs, as an object of `kind`. At its end it calls `caller`.

    The slot is set when the place is taken, and the native call by `StagedCall._begin`.
    """
    running = kind()
    running.over = False
    running._caller = caller
    running.call = weakref.ref(call)
    running.arguments = arguments
    running.context = context
    running.began = running.placed_at = began
    running.sent = None
    running.refused = False
    running.kept = False
    return running


Stage = Waiting | Running | Failed
