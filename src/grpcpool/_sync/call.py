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

from .._grpc.call_errors import has_answered, has_answered_in_the_end
from .._grpc.failed_streams import end_failed, reference, take_note_of_metadata
from .._grpc.status import is_refused_stream
from .._shared.announcer import logger
from .._shared.finalizers import interrupts_package
from .arguments import failure_of, with_metadata_read
from .call_end import Once, on_end
from .channel import ChannelSurface
from .driver import SyncDriver
from .failed_call import CallNotStartedError, call_error, not_started
from .place import Place
from .waiter import CallWaiter

if TYPE_CHECKING:
    from .._machine.slot import Slot
    from .._values.errors import PoolError
    from .arguments import Arguments

    class _Base:
        """A stand-in: to the type checker, gRPC's bases contradict each other; at run time they do not."""
else:

    class _Base(grpc.RpcError, grpc.Call, grpc.Future):
        """An error, a call and a future, as gRPC's own are: interceptors that retry tell by that what they got."""


Start = Callable[["Slot", "Arguments"], Any]
"""Starts a native call on a slot."""


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

    def __init__(self, pool: ChannelSurface, start: Start, arguments: Arguments, *, may_repeat: bool) -> None:
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
        self._driver: SyncDriver = pool._driver
        self._start = start
        self._arguments = arguments
        self._may_repeat = may_repeat
        self._began = self._driver.monotonic()
        self._lock = threading.Lock()
        # Those who wait for the next change of the above.
        self._told: list[threading.Event] = []
        self.callbacks = Callbacks()

    # --- its life -----------------------------------------------------------------------------------------------

    def begin(self, native: Any, place: Place) -> None:
        """The native call runs on its place."""
        driver = self._driver
        with self._lock:
            # Before anybody can be told that the native call is over.
            late = self._error is not None
            end = self._end = Once(
                partial(
                    _end,
                    place,
                    reference(native, driver.defer),
                    self._pool,
                    weakref.ref(self),
                    self.callbacks,
                )
            )
            if not late:
                self._native, self._waiter = native, None
            self._tell()
        watched = on_end(native, end, driver.defer, within=True)
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
            self._driver.request(self._new_waiter())
        else:
            self._error = failure
            self.callbacks.take()

    def _new_waiter(self) -> CallWaiter:
        _, timeout, _, _, wait_for_ready, _ = self._arguments
        driver = self._driver
        deadline = driver.call_deadline(timeout, self._began)
        waiter = CallWaiter(1, since=driver.monotonic(), deadline=deadline, fail_fast=not wait_for_ready)
        waiter.driver = driver
        waiter.call = weakref.ref(self)
        waiter.kept = self if self._kept else None
        self._waiter = waiter
        return waiter

    def begin_waiting(self, place: Place) -> None:
        """The place is there: starts the native call, with the time that is left."""
        driver = self._driver
        with self._lock:
            waiter, wanted = self._waiter, self._error is None
        slot = place._slot
        if not wanted or waiter is None or slot is None:
            place.release()
            return
        request, timeout, *rest = self._arguments
        left = timeout if timeout is None else max(0.0, waiter.deadline - driver.monotonic())
        try:
            native = self._start(slot, (request, left, *rest))
        except BaseException as error:  # noqa: BLE001 -- a serializer may raise anything; the caller is told
            place.release()
            closed = isinstance(error, ValueError) and driver.machine.closing
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
            self._driver.teller.do(callback)
        return True

    def is_begun_again(self, native: Any) -> bool:
        """The server refused `native`: has the call wait for another place, if it may; says whether it does, or may."""
        answered = has_answered(native)
        with self._lock:
            if answered or not self._may_repeat or (self._native is not None and self._native is not native):
                return False
            if answered is None:
                self._driver.starter.do(partial(self._begin_again_if_unanswered, native))
                return True
            self._native = self._end = None
            waiter = self._new_waiter()
            self._tell()
        self._driver.request(waiter)
        return True

    def _begin_again_if_unanswered(self, native: Any) -> None:
        """Has the call wait for another place if the server did not answer `native`; otherwise it is over."""
        if has_answered_in_the_end(native) is not False or not self.is_begun_again(native):
            self.end()
            self._driver.teller.do(self.callbacks.call)

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
            self._driver.defer(partial(self._driver.withdraw, self._waiter))
            self._driver.defer(partial(self._driver.teller.do, self.callbacks.call))

    # --- grpc.RpcContext ----------------------------------------------------------------------------------------

    def cancel(self) -> bool:
        """As gRPC's; a waiting call leaves the queue."""
        if self._driver.lock.locked() and interrupts_package():
            self._driver.defer(self.cancel)
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
                    self._driver.withdraw(waiter)
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
        return None if timeout is None else max(0.0, self._began + timeout - self._driver.monotonic())

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
                take_note_of_metadata(native)
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


def _end(
    place: Place, native: Callable[[], Any], _pool: object, call: Callable[[], PoolCall | None], callbacks: Callbacks
) -> None:
    """A native call is over: releases its place, and calls the callbacks unless the call is begun again. Never raises.

    Args:
        place: The place that it had.
        native: A weak reference to it; a strong one would keep a stream that was dropped running.
        _pool: Kept alive by its running calls, as gRPC's calls keep their channel.
        call: A weak reference to the pool's call.
        callbacks: Of the pool's call.
    """
    ended = native()
    refused = place.end(ended)
    handed = call()
    if handed is not None:
        if refused and handed.is_begun_again(ended):
            return
        handed.end()
    callbacks.call()


def _closed(cause: BaseException) -> CallNotStartedError:
    """What a call that had its place fails with when the pool is closed before it begins."""
    return not_started(grpc.StatusCode.CANCELLED, "Channel closed!", cause)
