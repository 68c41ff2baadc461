"""How a call of a pool that need not run at once goes from stage to stage: the stages are in `call_stages.py`.

::

    Waiting --granted--> (starter) --> Running: everything is the native call's
       |  ^                               |
       |  `-- refused by the server ------'  (a call whose request is not an iterator)
       | refused by the pool, cancelled
       v
    Failed: over, with a code and details, without having been started

A waiting call that is dropped leaves the queue, as gRPC cancels a call that is dropped. One that a done-callback waits
for is kept, as gRPC keeps it. A change of the stage wakes the threads that wait for it.
"""

from __future__ import annotations

import math
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import grpc

from .._grpc.call_errors import has_answered
from .._grpc.failed_streams import reference
from .._grpc.status import is_refused_stream, status_of
from .._shared.arguments import TIMEOUT, WAIT_FOR_READY, Arguments
from .._shared.signal_handlers import may_be_of_handler
from .._shared.unpicklable import Unpicklable
from .arguments import failure_of, with_metadata_read
from .call_end import Callbacks, End, end_early, is_over, on_end
from .call_stages import Change, Failed, Running, Stage, Waiting, new_waiting
from .channel import ChannelSurface
from .driver import SyncDriver
from .failed_call import CallAndError, call_error, closed_before_start
from .place import Place

if TYPE_CHECKING:
    from .._values.errors import PoolError
    from .arguments import Start


class StagedCall(Unpicklable, CallAndError):  # noqa: N818 -- like gRPC's, it is a call first
    """A call over a pool, other than a blocking one, without what its caller uses of it."""

    # An error has its attributes in a dictionary, which costs each read of a stream.
    __slots__ = (
        "_arguments",
        "_awaiting_change",
        "_began",
        "_callbacks",
        "_caller",
        "_driver",
        "_lock",
        "_may_resend",
        "_native",
        "_pool",
        "_read",
        "_slot",
        "_stage",
        "_start",
    )

    # After the first, it is changed by `_change`; and how often the call has been sent again.
    _stage: Stage
    _resends = 0

    def __init__(
        self, pool: ChannelSurface, start: Start, arguments: Arguments, began: float, *, may_resend: bool
    ) -> None:
        """Sets no stage: `_begin` or `_wait` does.

        Args:
            pool: A call keeps its pool, as gRPC's calls keep their channel.
            start: Starts the native call on a slot.
            arguments: Of the call; the timeout among them includes the wait.
            began: When it began.
            may_resend: Whether it is sent again if a server refuses it for its limit of streams.
        """
        # An error would show the arguments. To call `super().__init__` without them costs more.
        self.args = ()
        self._pool = pool
        self._driver: SyncDriver = pool._driver
        self._start = start
        self._arguments = arguments
        self._may_resend = may_resend
        self._began = began
        self._lock = threading.Lock()
        # Set at the next change of the stage, or when it is over.
        self._awaiting_change: list[Change] = []
        # The thread that made the call.
        self._caller = threading.get_ident()
        self._callbacks = Callbacks()
        # Reads the next response, once there was one: looked up once, because each stream reads often.
        self._read: Any = None

    # --- its stages ---------------------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Waits for a place."""
        self._arguments = with_metadata_read(self._arguments)
        failure = failure_of(self._arguments)
        if failure is None:
            waiting = self._stage = new_waiting(self)
            self._driver.request(waiting)
        else:
            self._stage = Failed(failure)
            self._callbacks.close()

    def _start_on(self, waiting: Waiting, place: Place) -> None:
        """The place is there: starts the native call, with the time that is left."""
        driver, slot = self._driver, place._slot
        if self._stage is not waiting or slot is None:
            place.release()
            return
        request, timeout, *rest = self._arguments
        left = timeout if timeout is None else max(0.0, waiting.deadline - driver.monotonic())
        try:
            native = self._start(driver, slot, (request, left, *rest), self._resends)
        except BaseException as error:
            place.interrupted()
            closed = isinstance(error, ValueError) and driver.machine.closing
            self._fail(waiting, Failed(closed_before_start(error) if closed else error))
            if may_be_of_handler(error):
                raise
            return
        try:
            self._begin(native, place, waiting)
        except BaseException:
            end_early(native)
            raise

    def _begin(self, native: Any, place: Place, waiting: Waiting | None = None) -> None:
        """The native call runs on its place; `waiting`: the stage before, if the call waited."""
        driver = self._driver
        known, waits = reference(native, driver.defer_apart), bool(self._arguments[WAIT_FOR_READY])
        end = End(place, known, self._pool, weakref.ref(self), self._callbacks, waits)
        running = Running(native, end, place._slot)
        # Before the native call can report its end.
        if waiting is None:
            self._stage = running
        elif not self._change(waiting, running):
            # Cancelled while it was being started.
            end_early(on_end(native, end, driver))
            return
        end.apart = True  # If it is over already.
        running.native, end.apart = on_end(native, end, driver), False

    def _end(self, end: End, place: Place, *, refused: bool) -> bool:
        """The native call of this `end`, on `place`, is over; returns whether it is sent again: it was refused."""
        running = self._stage
        if not isinstance(running, Running) or running.end is not end:
            return True  # It has been, or was cancelled.
        if refused and self._may_resend and has_answered(running.native) is False:
            at = place.resend_at(self._resends)
            if at is not None:
                self._send_again(running, at)
                return True
        self._finish(running)
        return False

    def _send_again(self, running: Running, not_before: float) -> None:
        self._resends += 1
        waiting = new_waiting(self, not_before)
        try:
            self._change(running, waiting)
            self._driver.request(waiting)
        except BaseException:
            # A signal handler has raised: the call is over, as it was.
            self._driver.withdraw(waiting)
            self._change(waiting, running)
            raise

    def _finish(self, running: Running) -> None:
        """The call is over for good."""
        running.over = True
        # Without the lock, for which every call would pay. This writes and then looks for threads that wait, these note
        # that they wait and then look whether it is over: one of the two notices the other.
        if self._awaiting_change:
            with self._lock:
                self._wake()

    def _refuse(self, waiting: Waiting, error: PoolError) -> None:
        """There will be no place."""
        self._fail(waiting, Failed(call_error(error, own_deadline=self._arguments[TIMEOUT] is not None)))

    def _interrupted(self, waiting: Waiting, error: BaseException) -> None:
        """A signal handler has raised `error` while the call was being started: it is over."""
        if not self._fail(waiting, Failed(error)):
            stage = self._stage
            if isinstance(stage, Running):
                stage.end.notice()

    def _fail(self, waiting: Waiting, failed: Failed) -> bool:
        """The call is over before it was started; returns `False` if its stage is not `waiting` any more."""
        try:
            if not self._change(waiting, failed):
                return False
            if self._callbacks.close():
                self._driver.callback_runner.do(self._callbacks.call)
        except BaseException:
            # A signal handler has raised. If the call is cancelled again, it is over already.
            if self._stage is failed:
                self._driver.defer(waiting.call_back)
            raise
        return True

    def _change(self, before: Stage, after: Stage) -> bool:
        """Goes from one stage to the next; returns `False` if the call is not in the stage `before`."""
        try:
            with self._lock:
                if self._stage is not before:
                    return False
                self._stage = after
                if self._awaiting_change:
                    self._wake()
        except BaseException:
            # A signal handler has raised; that may have been before the threads were woken.
            with self._lock:
                self._wake()
            raise
        return True

    def _wake(self) -> None:
        """Wakes the threads that wait for a change. Under the lock."""
        for change in self._awaiting_change:
            change.set()
        self._awaiting_change.clear()

    def _next_change(self) -> Change:
        """Is set at the next change. Under the lock."""
        change = Change()
        self._awaiting_change.append(change)
        return change

    def _begun(self, timeout: float | None = None) -> Running | Failed:
        """Waits until the call runs or has failed.

        Raises:
            grpc.FutureTimeoutError: Neither happened in time.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while isinstance(stage := self._stage, Waiting):
            if not self._wait_until_left(stage, until):
                raise grpc.FutureTimeoutError
        return stage

    def _wait_until_left(self, waiting: Waiting, until: float | None) -> bool:
        """Waits until the call leaves the stage `waiting`; returns whether it did so in time."""
        try:
            with self._lock:
                if self._stage is not waiting:
                    return True
                change = self._next_change()
                if threading.get_ident() == self._caller:
                    waiting.callers_wait = change
            changed = waiting.wait_for(change, math.inf if until is None else max(0.0, until - time.monotonic()))
            if self._take_over(waiting):
                waiting.start()
                waiting.handed_over = False
        except BaseException:
            # A signal handler may have raised.
            if self._take_over(waiting):
                # Again, if it has been begun here: a call is started once.
                self._driver.starter.do(waiting.start)
                waiting.handed_over = False
            raise
        if not changed:
            with self._lock:
                self._awaiting_change = [each for each in self._awaiting_change if each is not change]
        return changed

    def _hand_over(self, waiting: Waiting) -> bool:
        """The place is there: the thread that made the call starts it, if it waits for that; returns whether it does.

        So interceptors in the factory's channels find their thread-locals, and block no other call.
        """
        with self._lock:
            if waiting.callers_wait is None or self._stage is not waiting:
                return False
            waiting.handed_over = True
            waiting.callers_wait.set()
            waiting.callers_wait = None
        return True

    def _take_over(self, waiting: Waiting) -> bool:
        """This thread waits no longer; returns whether it has to start the call: that was handed over to it."""
        if threading.get_ident() != self._caller:
            return False
        with self._lock:
            waiting.callers_wait = None
        return waiting.handed_over

    def _is_sent_again(self, running: Running, error: grpc.RpcError) -> bool:
        """Whether the call is sent again after its native call has failed with `error`."""
        if not (self._may_resend and (is_refused_stream(error) or status_of(error).unreached is not None)):
            return False
        running.end.notice()
        while True:
            with self._lock:
                change = self._next_change()
            if self._stage is not running or running.over:
                return self._stage is not running
            change.wait()

    def _has_been_sent_again(self, running: Running) -> bool:
        """Whether the server has refused the native call, so that the call is sent again."""
        return self._may_resend and is_over(running.native) and self._is_sent_again(running, running.native)

    def __del__(self) -> None:
        """Leaves the queue; as with gRPC, a call that is dropped is cancelled, and its callbacks are called."""
        try:
            self._leave()
        except BaseException:
            # A signal handler has raised: nothing else would do it.
            self._leave()
            raise

    def _leave(self) -> None:
        stage = getattr(self, "_stage", None)
        if isinstance(stage, Waiting):
            self._driver.defer(stage.dropped)
