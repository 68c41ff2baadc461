"""A call that waits for its place: whole while it waits, and gRPC's own call from then on.

::

    WAITING --granted--> (starter) --> STARTED: everything is the native call's
       |                       |
       | refused, cancelled    | could not be started, cancelled meanwhile
       v                       v
    FAILED: over, with a code and details, without ever having been started

Whoever drops a waiting call has it leave the queue, as gRPC cancels a call that is dropped; one that a done-callback
waits for is kept, as gRPC keeps it.
"""

from __future__ import annotations

import threading
import time
import types
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from .._queue import Waiter
from .arguments import failure_of, with_metadata_read
from .endings import tell_at_end
from .rpc_errors import CallNotStartedError, call_error

if TYPE_CHECKING:
    from .._errors import PoolError
    from .._slot import Slot
    from .calls import Arguments
    from .core import Core
    from .pool import ChannelPool

    class _Base:
        """A stand-in: to the type checker, gRPC's bases contradict each other; at run time they do not."""
else:

    class _Base(grpc.Call, grpc.Future):
        """A call and a future, as gRPC's own are."""


class CallWaiter(Waiter):
    """Waits for a place on behalf of a call, and does not keep it alive unless somebody waits for its end."""

    core: Core
    call: weakref.ref[QueuedCall]
    kept: QueuedCall | None = None

    def granted(self, slot: Slot | None) -> None:
        """Has the starter begin the call."""
        assert slot is not None  # noqa: S101 -- only open() is granted None
        self.core.starter.do(partial(self._begin, slot))

    def refused(self, error: PoolError) -> None:
        """Has the starter tell the call."""
        self.core.starter.do(partial(self._fail, error))

    def _begin(self, slot: Slot) -> None:
        call = self.call()
        self.kept = None
        if call is None:
            self.core.release(slot, 1)
        else:
            call.begin(slot)

    def _fail(self, error: PoolError) -> None:
        call = self.call()
        self.kept = None
        if call is not None:
            call.refuse(error)


class QueuedCall(_Base):
    """What `future()` and the stream calls return when every place is taken."""

    def __init__(
        self, pool: ChannelPool, core: Core, start: Callable[[Slot, Arguments], Any], arguments: Arguments
    ) -> None:
        """Prepares the call and has it wait.

        Args:
            pool: A call keeps its pool.
            core: The pool's.
            start: Starts the native call on a slot.
            arguments: Of the call; the timeout among them includes the wait.
        """
        arguments = with_metadata_read(arguments)
        failure = failure_of(arguments)
        _, timeout, _, _, wait_for_ready, _ = arguments
        now = core.monotonic()
        self._pool = pool
        self._core = core
        self._start = start
        self._arguments = arguments
        self._own_deadline = timeout is not None
        self._deadline = core.call_deadline(timeout, now)
        self._changed = threading.Condition()
        # Of these at most one is set, once and for all; then the wait is over.
        self._native: Any = None
        self._error: BaseException | None = failure
        self._cancelled = False
        # What to tell when the call is over: functions without arguments. Handed over to the native call.
        self._callbacks: list[Callable[[], None]] = []
        self._waiter = CallWaiter(1, since=now, deadline=self._deadline, fail_fast=not wait_for_ready)
        self._waiter.core = core
        self._waiter.call = weakref.ref(self)
        if failure is None:
            core.request(self._waiter)

    # --- the end of the wait ------------------------------------------------------------------------------------

    def begin(self, slot: Slot) -> None:
        """The place is there: starts the native call, with the time that is left."""
        core = self._core
        with self._changed:
            wanted = self._error is None
        if not wanted:
            core.release(slot, 1)
            return
        request, timeout, *rest = self._arguments
        left = timeout if timeout is None else max(0.0, self._deadline - core.monotonic())
        try:
            native = self._start(slot, (request, left, *rest))
        except BaseException as error:  # noqa: BLE001 -- a serializer may raise anything; the caller is told
            core.release(slot, 1)
            closed = isinstance(error, ValueError) and core.machine.closing
            self._settle(error=_closed(error) if closed else error)
            return
        self._settle(native=core.watch_call(native, slot, self._pool))

    def refuse(self, error: PoolError) -> None:
        """There will be no place."""
        self._settle(error=call_error(error, own_deadline=self._own_deadline))

    def _settle(self, *, native: Any = None, error: BaseException | None = None) -> None:
        with self._changed:
            late = self._error is not None
            if not late:
                self._native, self._error = native, error
            callbacks, self._callbacks = self._callbacks, []
            self._changed.notify_all()
        if late and native is not None:
            # Cancelled while it was being started.
            native.cancel()
        for callback in callbacks:
            if native is None or late or not tell_at_end(native, callback):
                # One by one, so that one that raises does not keep the others from being called.
                self._core.teller.do(callback)

    def _wait(self, timeout: float | None = None) -> float | None:
        """Waits until the call has been started or has failed; returns what is left of `timeout`.

        Raises:
            grpc.FutureTimeoutError: Neither happened in time.
        """
        until = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            if not self._changed.wait_for(lambda: self._native is not None or self._error is not None, timeout):
                raise grpc.FutureTimeoutError
        return None if until is None else max(0.0, until - time.monotonic())

    def _failure(self) -> Any:
        """What the call failed with before it was started, as gRPC would tell it."""
        error = self._error
        if error is None or isinstance(error, grpc.Call):
            return error
        return CallNotStartedError(grpc.StatusCode.INTERNAL, str(error), error)

    def __del__(self) -> None:
        """Leaves the queue."""
        if getattr(self, "_waiter", None) is not None and self._native is None and self._error is None:
            self._core.defer(partial(self._core.cancel, self._waiter))

    # --- grpc.RpcContext ----------------------------------------------------------------------------------------

    def cancel(self) -> bool:
        """As gRPC's; a waiting call leaves the queue."""
        with self._changed:
            native = self._native
            if native is None and self._error is None:
                self._cancelled = True
                text = "Locally cancelled by application!"
                self._error = CallNotStartedError(grpc.StatusCode.CANCELLED, text, None)
                callbacks, self._callbacks = self._callbacks, []
                self._changed.notify_all()
            elif native is not None:
                return bool(native.cancel())
            else:
                return False
        self._core.cancel(self._waiter)
        for callback in callbacks:
            self._core.teller.do(callback)
        return True

    def is_active(self) -> bool:
        """As gRPC's; a waiting call is active."""
        return self._error is None and (self._native is None or bool(self._native.is_active()))

    def time_remaining(self) -> float | None:
        """As gRPC's; the wait counts."""
        if self._native is not None:
            left: float | None = self._native.time_remaining()
            return left
        return max(0.0, self._deadline - self._core.monotonic()) if self._own_deadline else None

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """As gRPC's."""
        with self._changed:
            if self._error is not None:
                return False
            if self._native is None:
                self._callbacks.append(callback)
                return True
        return tell_at_end(self._native, callback)

    # --- grpc.Call ----------------------------------------------------------------------------------------------

    def _ask(self, name: str) -> Any:
        """Waits for the start, and asks the native call, or the error that stands for it."""
        self._wait()
        return getattr(self._native if self._native is not None else self._failure(), name)()

    def initial_metadata(self) -> Any:
        """As gRPC's; waits."""
        return self._ask("initial_metadata")

    def trailing_metadata(self) -> Any:
        """As gRPC's; waits."""
        return self._ask("trailing_metadata")

    def code(self) -> Any:
        """As gRPC's; waits."""
        return self._ask("code")

    def details(self) -> Any:
        """As gRPC's; waits."""
        return self._ask("details")

    def debug_error_string(self) -> Any:
        """As gRPC's; waits."""
        return self._ask("debug_error_string")

    # --- grpc.Future --------------------------------------------------------------------------------------------

    def cancelled(self) -> bool:
        """As gRPC's."""
        return self._cancelled or (self._native is not None and bool(self._native.cancelled()))

    def running(self) -> bool:
        """As gRPC's; a waiting call is running."""
        return not self.done()

    def done(self) -> bool:
        """As gRPC's."""
        return self._error is not None or (self._native is not None and bool(self._native.done()))

    def result(self, timeout: float | None = None) -> Any:
        """As gRPC's."""
        left = self._wait(timeout)
        if self._native is not None:
            return self._native.result(left)
        if self._cancelled:
            raise grpc.FutureCancelledError
        assert self._error is not None  # noqa: S101 -- the wait is over
        raise self._error

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As gRPC's."""
        left = self._wait(timeout)
        if self._native is not None:
            raised: BaseException | None = self._native.exception(left)
            return raised
        if self._cancelled:
            raise grpc.FutureCancelledError
        return self._error

    def traceback(self, timeout: float | None = None) -> types.TracebackType | None:
        """As gRPC's."""
        left = self._wait(timeout)
        if self._native is not None:
            trace: types.TracebackType | None = self._native.traceback(left)
            return trace
        if self._cancelled:
            raise grpc.FutureCancelledError
        return self._error.__traceback__ if self._error is not None else None

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """As gRPC's: the call is kept until `fn` has been called."""
        # The bound `self` is what keeps it; the waiter keeps the bound `self`.
        tell = partial(fn, self)
        with self._changed:
            if self._native is None and self._error is None:
                self._waiter.kept = self
                self._callbacks.append(tell)
                return
        if self._native is None or not tell_at_end(self._native, tell):
            tell()

    # --- a stream of responses ----------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        """Iterates the responses."""
        return self

    def __next__(self) -> Any:
        """The next response; waits for the start."""
        self._wait()
        if self._native is not None:
            return next(self._native)
        assert self._error is not None  # noqa: S101 -- the wait is over
        raise self._error

    def next(self) -> Any:
        """The next response."""
        return self.__next__()

    def __repr__(self) -> str:
        """The call at a glance."""
        if self._native is not None:
            return repr(self._native)
        return "<QueuedCall that waits for a place>" if self._error is None else repr(self._failure())


def _closed(cause: BaseException) -> CallNotStartedError:
    """What a call that had its place fails with when the pool is closed before it begins."""
    return CallNotStartedError(grpc.StatusCode.CANCELLED, "Channel closed!", cause)
