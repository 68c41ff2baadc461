"""The calls that a pool hands out for `future()` and for streams: whole while they wait for a place, then gRPC's own.

::

    waiting --granted--> (starter) --> started: everything is the native call's
       |  ^                               |
       |  `-- refused by the server ------'  (a call whose request is no iterator)
       | refused by the pool, cancelled
       v
    failed: over, with a code and details, without ever having been started

Whoever drops a waiting call has it leave the queue, as gRPC cancels a call that is dropped; one that a done-callback
waits for is kept, as gRPC keeps it. Where a method waits for the native call it goes on from there in a loop: by the
time the native call has ended, the call may have been begun again.
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

from .._announcer import logger
from .._interrupted import interrupts_package
from .._queue import Waiter
from .._status import is_refused_stream
from .arguments import failure_of, with_metadata_read
from .endings import Once, on_end, reference
from .failed_streams import end_failed
from .place import Place, place_on
from .rpc_errors import CallNotStartedError, call_error, not_started

if TYPE_CHECKING:
    from .._errors import PoolError
    from .._slot import Slot
    from .calls import Arguments
    from .core import Core
    from .pool import ChannelPool

    class _Base:
        """A stand-in: to the type checker, gRPC's bases contradict each other; at run time they do not."""
else:

    class _Base(grpc.RpcError, grpc.Call, grpc.Future):
        """An error, a call and a future, as gRPC's own are: interceptors that retry tell by that what they got."""


Start = Callable[["Slot", "Arguments"], Any]
"""Starts a native call on a slot."""


class CallWaiter(Waiter):
    """Waits for a place on behalf of a call, and does not keep it alive unless somebody waits for its end."""

    core: Core
    call: weakref.ref[PoolCall]
    kept: PoolCall | None = None

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
            call.begin_waiting(slot)

    def _fail(self, error: PoolError) -> None:
        call = self.call()
        self.kept = None
        if call is not None:
            call.refuse(error)


class Callbacks:
    """What is to be called when a call is over. They outlive the call's object, if that is dropped."""

    __slots__ = ("_lock", "_waiting")

    def __init__(self) -> None:
        """There are none yet."""
        self._lock = threading.Lock()
        self._waiting: list[Callable[[], None]] | None = []

    def add(self, callback: Callable[[], None]) -> bool:
        """Has `callback` called at the end; `False` if that has been."""
        with self._lock:
            if self._waiting is None:
                return False
            self._waiting.append(callback)
            return True

    def take(self) -> list[Callable[[], None]]:
        """Those to be called now; nobody is added from here on."""
        with self._lock:
            waiting, self._waiting = self._waiting, None
        return waiting or []

    def call(self) -> None:
        """Calls them, one like the other, whatever they raise."""
        for callback in self.take():
            _call(callback)


def _call(callback: Callable[[], None]) -> None:
    try:
        callback()
    except BaseException:  # noqa: BLE001 -- a user's callback may raise anything; gRPC's thread would die of it
        logger.exception("a callback of a call failed")


class PoolCall(_Base):
    """A call over a pool that is no blocking one."""

    # Of the first two at most one is set at a time; an error is for good.
    _native: Any = None
    _error: BaseException | None = None
    _cancelled = False
    _over = False
    # What the native call is told to call at its end.
    _end: Callable[[], None] | None = None
    _waiter: CallWaiter | None = None
    # Whether a done-callback waits for the end.
    _kept = False

    def __init__(self, pool: ChannelPool, start: Start, arguments: Arguments, *, may_repeat: bool) -> None:
        """Neither waits nor runs yet.

        Args:
            pool: A call keeps its pool, as gRPC's calls keep their channel.
            start: Starts the native call on a slot.
            arguments: Of the call; the timeout among them includes the wait.
            may_repeat: Whether it is begun again if a server refuses it for its limit of streams.
        """
        # An error shows the arguments that it was made with, unless told that there are none.
        super().__init__()
        self._pool = pool
        self._core: Core = pool._core
        self._start = start
        self._arguments = arguments
        self._may_repeat = may_repeat
        self._began = self._core.monotonic()
        self._lock = threading.Lock()
        # Those who wait for the next change of the above.
        self._told: list[threading.Event] = []
        self.callbacks = Callbacks()

    # --- its life -----------------------------------------------------------------------------------------------

    def begin(self, native: Any, place: Place) -> None:
        """The native call runs on its place."""
        core = self._core
        with self._lock:
            # Before anybody can be told that the native call is over.
            late = self._error is not None
            end = self._end = Once(
                partial(
                    core.end_call, place, reference(native, core.defer), self._pool, weakref.ref(self), self.callbacks
                )
            )
            if not late:
                self._native, self._waiter = native, None
            self._tell()
        watched = on_end(native, end, core.defer, within=True)
        if late:
            # Cancelled while it was being started.
            native.cancel()
        elif watched is not native:
            self._native = watched

    def wait(self) -> None:
        """Waits for a place."""
        self._arguments = with_metadata_read(self._arguments)
        failure = failure_of(self._arguments)
        if failure is None:
            self._core.request(self._new_waiter())
        else:
            self._error = failure
            self.callbacks.take()

    def _new_waiter(self) -> CallWaiter:
        _, timeout, _, _, wait_for_ready, _ = self._arguments
        core = self._core
        deadline = core.call_deadline(timeout, self._began)
        waiter = CallWaiter(1, since=core.monotonic(), deadline=deadline, fail_fast=not wait_for_ready)
        waiter.core = core
        waiter.call = weakref.ref(self)
        waiter.kept = self if self._kept else None
        self._waiter = waiter
        return waiter

    def begin_waiting(self, slot: Slot) -> None:
        """The place is there: starts the native call, with the time that is left."""
        core = self._core
        with self._lock:
            waiter, wanted = self._waiter, self._error is None
        place = place_on(slot, core)
        if not wanted or waiter is None:
            place.give_back()
            return
        request, timeout, *rest = self._arguments
        left = timeout if timeout is None else max(0.0, waiter.deadline - core.monotonic())
        try:
            native = self._start(slot, (request, left, *rest))
        except BaseException as error:  # noqa: BLE001 -- a serializer may raise anything; the caller is told
            place.give_back()
            closed = isinstance(error, ValueError) and core.machine.closing
            self._fail(_closed(error) if closed else error)
            return
        self.begin(native, place)

    def refuse(self, error: PoolError) -> None:
        """There will be no place."""
        self._fail(call_error(error, own_deadline=self._arguments[1] is not None))

    def _fail(self, error: BaseException, *, cancelled: bool = False) -> bool:
        """The call is over before it was started; says whether it was not over already."""
        with self._lock:
            if self._error is not None or self._native is not None:
                return False
            self._error, self._cancelled, self._waiter = error, cancelled, None
            self._tell()
        for callback in self.callbacks.take():
            # One by one, so that one that raises does not keep the others from being called.
            self._core.teller.do(callback)
        return True

    def is_begun_again(self, native: Any) -> bool:
        """The server refused `native`: has the call wait for another place, if it may; says whether it does."""
        with self._lock:
            if not self._may_repeat or (self._native is not None and self._native is not native):
                return False
            self._native = self._end = None
            waiter = self._new_waiter()
            self._tell()
        self._core.request(waiter)
        return True

    def end(self) -> None:
        """The native call is over, for good."""
        with self._lock:
            self._over = True
            self._tell()

    def _tell(self) -> None:
        """Wakes those who wait for a change. Under the lock."""
        told, self._told = self._told, []
        for event in told:
            event.set()

    def _settled(self, timeout: float | None = None) -> Any:
        """Waits until the call has been started or has failed; returns the native call, or `None`.

        Raises:
            grpc.FutureTimeoutError: Neither happened in time.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            with self._lock:
                if self._native is not None or self._error is not None:
                    return self._native
                event = threading.Event()
                self._told.append(event)
            if not event.wait(None if until is None else max(0.0, until - time.monotonic())):
                raise grpc.FutureTimeoutError

    def _goes_on(self, native: Any, error: grpc.RpcError) -> bool:
        """Whether, after `native` failed with `error`, the call is begun again."""
        if not self._may_repeat or not is_refused_stream(error):
            return False
        with self._lock:
            # If another stands for it by now, the end is that one's.
            end = self._end if self._native is native else None
        if end is not None:
            # gRPC's thread may come to it only later, and for some streams does not at all.
            end()
        while True:
            with self._lock:
                if self._native is not native or self._over:
                    return self._native is not native
                event = threading.Event()
                self._told.append(event)
            event.wait()

    def _failure(self) -> Any:
        """What the call failed with before it was started, as gRPC would tell it."""
        error = self._error
        if error is None or isinstance(error, grpc.Call):
            return error
        return not_started(grpc.StatusCode.INTERNAL, str(error), error)

    def __del__(self) -> None:
        """Leaves the queue; as with gRPC, a call that is dropped is cancelled, and its callbacks are called."""
        if self._waiter is not None:
            self._core.defer(partial(self._core.cancel, self._waiter))
            self._core.defer(partial(self._core.teller.do, self.callbacks.call))

    # --- grpc.RpcContext ----------------------------------------------------------------------------------------

    def cancel(self) -> bool:
        """As gRPC's; a waiting call leaves the queue."""
        if self._core.lock.locked() and interrupts_package():
            self._core.defer(self.cancel)
            return not self.done()
        while True:
            native, waiter = self._native, self._waiter
            if native is not None:
                # If the server has just refused it, it is over for gRPC, and begins again.
                if native.cancel():
                    return True
                if not self._may_repeat or not native.done() or not self._goes_on(native, native):
                    return False
                continue
            cancelled = not_started(grpc.StatusCode.CANCELLED, "Locally cancelled by application!", None)
            if self._fail(cancelled, cancelled=True):
                if waiter is not None:
                    self._core.cancel(waiter)
                return True
            if self._error is not None:
                return False

    def is_active(self) -> bool:
        """As gRPC's; a waiting call is active."""
        return not self.done()

    def time_remaining(self) -> float | None:
        """As gRPC's; the wait counts."""
        native = self._native
        if native is not None:
            left: float | None = native.time_remaining()
            return left
        timeout = self._arguments[1]
        return None if timeout is None else max(0.0, self._began + timeout - self._core.monotonic())

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """As gRPC's."""
        return self.callbacks.add(callback)

    # --- grpc.Call ----------------------------------------------------------------------------------------------

    def _ask(self, name: str) -> Any:
        """Waits for the start, and asks the native call, or the error that stands for it."""
        while True:
            native = self._settled()
            if native is None:
                return getattr(self._failure(), name)()
            answer = getattr(native, name)()
            if not self._may_repeat or not native.done() or not self._goes_on(native, native):
                return answer

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
        native = self._native
        return self._cancelled or (native is not None and bool(native.cancelled()))

    def running(self) -> bool:
        """As gRPC's; a waiting call is running."""
        return not self.done()

    def done(self) -> bool:
        """As gRPC's."""
        native = self._native
        if native is None:
            return self._error is not None
        return bool(native.done()) and (not self._may_repeat or not self._goes_on(native, native))

    def _outcome(self, name: str, timeout: float | None) -> Any:
        """Waits for the end, and asks the native future for its result, exception or traceback."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            native = self._settled(left)
            if native is None:
                return self._outcome_of_failure(name)
            left = None if until is None else max(0.0, until - time.monotonic())
            try:
                outcome = getattr(native, name)(left)
            except grpc.RpcError as error:
                if not self._goes_on(native, error):
                    raise
            else:
                if not isinstance(outcome, grpc.RpcError) or not self._goes_on(native, outcome):
                    return outcome

    def _outcome_of_failure(self, name: str) -> Any:
        if self._cancelled:
            raise grpc.FutureCancelledError
        assert self._error is not None  # noqa: S101 -- the wait is over
        if name == "result":
            raise self._error
        return self._error if name == "exception" else self._error.__traceback__

    def result(self, timeout: float | None = None) -> Any:
        """As gRPC's."""
        return self._outcome("result", timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As gRPC's."""
        raised: BaseException | None = self._outcome("exception", timeout)
        return raised

    def traceback(self, timeout: float | None = None) -> types.TracebackType | None:
        """As gRPC's."""
        self._outcome("exception", timeout)
        trace: types.TracebackType | None = self._outcome("traceback", timeout)
        return trace

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """As gRPC's: the call is kept until `fn` has been called.

        What `fn` raises is logged, as always: it is not for the caller to find out whether the call is over yet.
        """
        # The bound `self` is what keeps it: the native call keeps the callbacks, and while there is none, the waiter.
        tell = partial(fn, self)
        with self._lock:
            self._kept = True
            if self._waiter is not None:
                self._waiter.kept = self
        # A call that was cancelled is over before gRPC has said so.
        if self.done() or not self.callbacks.add(tell):
            _call(tell)

    # --- a stream of responses ----------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        """Iterates the responses."""
        return self

    def __next__(self) -> Any:
        """The next response; waits for the start."""
        while True:
            native = self._native
            if native is None:
                native = self._settled()
                if native is None:
                    assert self._error is not None  # noqa: S101 -- the wait is over
                    raise self._error
            try:
                response = next(native)
            except grpc.RpcError as error:
                if not self._goes_on(native, error):
                    end_failed(native)
                    raise
            else:
                # What has answered is not begun again.
                self._may_repeat = False
                return response

    def next(self) -> Any:
        """The next response."""
        return self.__next__()

    def __repr__(self) -> str:
        """The call at a glance."""
        if self._native is not None:
            return repr(self._native)
        return "<PoolCall waiting for a place>" if self._error is None else repr(self._failure())

    __str__ = __repr__


def _closed(cause: BaseException) -> CallNotStartedError:
    """What a call that had its place fails with when the pool is closed before it begins."""
    return not_started(grpc.StatusCode.CANCELLED, "Channel closed!", cause)
