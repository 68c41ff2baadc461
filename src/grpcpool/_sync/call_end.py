"""How a call reports its end, exactly once, whichever way it ends."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from .._grpc.call_errors import has_answered_in_the_end
from .._grpc.failed_streams import Defer, cancel_as_closed, end_when_it_fails, runs_only_while_iterated
from .._grpc.left_events import take_when_dropped
from .._grpc.logged_callbacks import blocks_others, log_callbacks
from .._grpc.unbroken_locks import secure_call_lock
from .work_queue import run_logged

if TYPE_CHECKING:
    from .driver import SyncDriver
    from .place import Place


class Once:
    """Calls `end` at its first call. `list.pop` ensures that, also if two threads call it at once."""

    __slots__ = ("__weakref__", "_end")

    def __init__(self, end: Callable[[], None]) -> None:
        """Prepares the call of `end`."""
        self._end = [end]

    @property
    def is_over(self) -> bool:
        """Whether `end` has been called."""
        return not self._end

    def __call__(self) -> None:
        """Calls `end`, the first time."""
        try:
            end = self._end.pop()
        except IndexError:
            return
        end()


class Callbacks:
    """What is called when a call is over. They outlive the call's object if that is dropped.

    Without a lock, which every stream would pay for: each change of the list is one step.
    """

    __slots__ = ("_callbacks", "_closed")

    def __init__(self) -> None:
        """Starts empty."""
        self._callbacks: list[Callable[[], None]] = []
        self._closed = False

    def add(self, callback: Callable[[], None]) -> bool:
        """Adds `callback`; returns `False` if the call is over."""
        self._callbacks.append(callback)
        if self._closed:
            # Either this removes it, or `call` has.
            with contextlib.suppress(ValueError):
                self._callbacks.remove(callback)
                return False
        return True

    def close(self) -> bool:
        """From here on none can be added; returns whether there are any to be called."""
        self._closed = True
        return bool(self._callbacks)

    def call(self) -> None:
        """Calls each of them, once, whatever they raise."""
        self._closed = True
        # Another thread may do the same.
        with contextlib.suppress(IndexError):
            while self._callbacks:
                run_logged(self._callbacks.pop(0))


class End:
    """What the native call of a `PoolCall` calls when it is over. Acts once, as `Once` does."""

    __slots__ = ("_callbacks", "_is_first", "_native", "_place", "_pool", "_pool_call", "_waits", "apart")

    def __init__(
        self,
        place: Place,
        native: Callable[[], Any],
        pool: object,
        call: Callable[[], Any],
        callbacks: Callbacks,
        waits: bool,
    ) -> None:
        """Prepares the end.

        Args:
            place: The place of the native call.
            native: A weak reference to it; a strong one would keep a dropped stream running.
            pool: Kept alive by its running calls, as gRPC's calls keep their channel.
            call: A weak reference to the `PoolCall`.
            callbacks: Those of the `PoolCall`.
            waits: Whether it waits for ready.
        """
        self._place = place
        # Taken by the first that calls it.
        self._is_first = [True]
        self._native = native
        self._pool = pool
        self._pool_call = call
        self._callbacks = callbacks
        self._waits = waits
        # Whether this thread may be a caller's that is within a method of the call, where gRPC calls no callbacks: it
        # may hold a lock that they need.
        self.apart = False

    def notice(self) -> None:
        """A method of the call has noticed the end. gRPC's thread may report it only later, for some streams never."""
        self.apart = True
        self()

    def __call__(self) -> None:
        """Releases the place, and calls the callbacks unless the call is sent again. Raises nothing of its own."""
        first = False
        try:
            first = self._is_first.pop()
            place, ended = self._place, self._native()
            refused = place.end(ended, self._may_resend, waits=self._waits, can_wait=True)
            if refused is None:
                place.driver.starter.do(partial(self._end_when_known, place, ended))
            elif not self._is_sent_again(place, refused=refused) and self._callbacks.close():
                self._call_back(ended)
        except IndexError:
            if first:
                raise
        except BaseException:
            # A signal handler may have raised, in the main thread: then what is left is done on another. It may have
            # run once `pop` had returned, and does not if that raises.
            if threading.current_thread() is threading.main_thread():
                self._is_first.append(True)
                self._place.driver.starter.do(self)
            else:
                self._place.release()
                if not self._is_sent_again(self._place, refused=False) and self._callbacks.close():
                    self._place.driver.callback_runner.do(self._callbacks.call)
            raise

    def _call_back(self, ended: Any) -> None:
        driver = self._place.driver
        # One that was dropped is ended on any thread, as the worker's, on which deadlines depend. One that is over as
        # soon as it is started comes after those that have ended before it.
        apart = self.apart and not runs_only_while_iterated(ended)
        if ended is None or apart or blocks_others(ended) or driver.starter.is_current():
            driver.callback_runner.do(self._callbacks.call)
        else:
            self._callbacks.call()

    def _end_when_known(self, place: Place, ended: Any) -> None:
        """Waits until gRPC knows whether the server answered. Not on gRPC's thread, which would wait for itself."""
        has_answered_in_the_end(ended)
        refused = bool(place.end(ended, self._may_resend, waits=self._waits))
        if not self._is_sent_again(place, refused=refused):
            place.driver.callback_runner.do(self._callbacks.call)

    def _may_resend(self) -> bool:
        call = self._pool_call()
        return call is not None and call._may_resend and self._place.driver.has_resends_left(call._resends)

    def _is_sent_again(self, place: Place, *, refused: bool) -> bool:
        call = self._pool_call()
        return call is not None and call._end(self, place, refused=refused)


def on_end(
    call: Any, end: Callable[[], None], driver: SyncDriver, interrupted: Callable[[], object] | None = None
) -> Any:
    """Calls `end` when `call` is over; at once if it is over already.

    Args:
        call: What gRPC, or an interceptor, returned for a call that runs.
        end: Must be short, call no gRPC, and never raise: gRPC's thread would die of it.
        driver: Of its pool.
        interrupted: Called if anything but an end is raised while its responses are read. `None` for a call that is
            within a `PoolCall`, which ends a stream that fails, and has callbacks of its own.

    Returns:
        What the caller gets: the call itself, or a proxy of an iterator that does not report its end.
    """
    secure_call_lock(call)
    if interrupted is not None:
        end_when_it_fails(call, interrupted)
    if runs_only_while_iterated(call):
        # Its callbacks run on the thread that iterates, so they never run if it is dropped unfinished.
        end = Once(end)
        _end_when_dropped(call, end, driver.defer, alone=interrupted is not None)
        take_when_dropped(call)
    # Rather than add_done_callback, which would keep a dropped stream alive, and running, forever.
    add = getattr(call, "add_callback", None)
    if add is not None:
        if not add(end):
            end()
    elif hasattr(call, "add_done_callback"):
        # What interceptors return may be a future only.
        call.add_done_callback(lambda _: end())
    elif hasattr(call, "__next__"):
        return WatchedIterator(call, end, driver.defer, interrupted)
    else:
        # It does not report its end. A place that is released early is better than one that is never released.
        end()
    if interrupted is not None:
        log_callbacks(call, driver.callback_runner.do)
    return call


def is_over(call: Any) -> bool:
    """Whether a call that gRPC or an interceptor returned is over, as far as it says that."""
    if isinstance(call, WatchedIterator):
        return call._is_over()
    if hasattr(call, "is_active"):
        return not call.is_active()
    return not hasattr(call, "done") or bool(call.done())


def end_early(call: Any) -> bool:
    """Cancels a call that gRPC or an interceptor returned, if that is possible; returns whether it did."""
    if isinstance(call, WatchedIterator):
        call._end_now()
        return call._is_over()
    return hasattr(call, "cancel") and bool(call.cancel())


def close_early(call: Any) -> None:
    """Ends a call that gRPC or an interceptor returned as the close of its channel would."""
    if not cancel_as_closed(call):
        end_early(call)


def _end_when_dropped(call: object, end: Once, defer: Defer, *, alone: bool) -> None:
    """Calls `end` once `call` is dropped.

    The end of a call that is not `alone`, but within a `PoolCall`, has the callbacks of that, which may hold it: then
    the two and the end are garbage together, and the place, which goes with them, releases itself.
    """
    if alone:
        weakref.finalize(call, defer, end).atexit = False
    else:
        weakref.finalize(call, _end_if_left, defer, weakref.ref(end)).atexit = False


def _end_if_left(defer: Defer, end: Callable[[], Once | None]) -> None:
    left = end()
    if left is not None:
        defer(left)


class WatchedIterator:
    """A proxy of an interceptor's iterator or generator, which is over when it is exhausted, fails, or is dropped."""

    def __init__(
        self, iterator: Any, end: Callable[[], None], defer: Defer, interrupted: Callable[[], object] | None
    ) -> None:
        """Reads `iterator`; see `on_end`."""
        self._iterator = iterator
        self._interrupted = interrupted
        self._end = Once(end)
        _end_when_dropped(self, self._end, defer, alone=interrupted is not None)

    def _is_over(self) -> bool:
        return self._end.is_over

    def _end_now(self) -> None:
        """Ends it before it is exhausted, if that is possible: a generator in which a thread is just now stays."""
        with contextlib.suppress(ValueError):
            end = getattr(self._iterator, "cancel", None) or getattr(self._iterator, "close", None)
            if end is not None:
                end()
                self._end()

    def __iter__(self) -> Self:
        """Is its own iterator."""
        return self

    def __next__(self) -> Any:
        """The next response."""
        try:
            return next(self._iterator)
        except BaseException:
            if self._interrupted is not None:
                self._interrupted()
            self._end()
            raise

    def __getattr__(self, name: str) -> Any:
        """Whatever else the iterator has."""
        return getattr(self._iterator, name)
