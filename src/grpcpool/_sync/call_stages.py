"""The stages of a call that need not run at once: it waits for a place, it runs, or it has failed before it ran.

A call is in one stage at a time. It changes from one to the next in `staged_call.py`, under its lock.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from .._machine.queue import Waiter
from .._shared.waiting_for_ready import call_deadline
from .failed_call import not_started, traceback_of
from .place import new_place
from .sleeping import acquire_within
from .waiter import patience

if TYPE_CHECKING:
    from .._machine.slot import Slot
    from .._values.errors import PoolError
    from .call_end import Callbacks, End
    from .driver import SyncDriver


class Waiting(Waiter):
    """The call waits for a place; this is its waiter.

    It does not hold the call, which leaves the queue when it is dropped. Done-callbacks hold the call, and this holds
    them: a call that a done-callback waits for stays in the queue.

    Attributes:
        callers_wait: Wakes the thread that made the call, while that waits for the start.
        handed_over: Whether that thread is to start it.
    """

    __slots__ = ("call", "callers_wait", "done_callbacks", "driver", "handed_over")

    is_call = True

    driver: SyncDriver
    call: weakref.ref[Any]
    done_callbacks: Callbacks
    callers_wait: Change | None
    handed_over: bool

    def granted(self, slot: Slot) -> None:  # noqa: ARG002 -- it is known from the decision
        """The caller starts the call if it is there, waiting for it; else the starter does."""
        call = self.call()
        if call is None or not call._hand_over(self):
            self.driver.starter.do(self.start)

    def refused(self, error: PoolError) -> None:
        """The starter fails the call."""
        self.driver.starter.do(partial(self._refuse, error))

    def start(self) -> None:
        """Starts the call, on this thread; does nothing if it has been started, or was cancelled on the way here.

        If a signal handler raises meanwhile, the call is over: nothing else would start it, or release its place.
        """
        place = new_place(self.driver)
        try:
            with self.driver.lock:
                if self._released:
                    return
                # The call's from here on. No call stands between the two: a signal handler could run there.
                self._released = True
                place._slot = self._slot
            call = self.call()
            if call is None:
                place.release()
                self.call_back()
            else:
                call._start_on(self, place)
        except BaseException as error:
            call = self.call()
            if call is not None:
                call._interrupted(self, error)
            place.interrupted()
            raise

    def wait_for(self, change: Change, left: float) -> bool:
        """Waits for the next change, for `left` seconds at most; returns whether it has come, or may have."""
        late = patience(self.driver.clock, self.deadline)
        has_come = change.wait(min(left, late))
        if not has_come and late < left:
            # As for a thread that blocks.
            self.driver.tick()
            return True
        return has_come

    def _refuse(self, error: PoolError) -> None:
        call = self.call()
        if call is None:
            self.call_back()
        else:
            call._refuse(self, error)

    def dropped(self) -> None:
        """The call has been dropped: leaves the queue."""
        self.driver.withdraw(self)
        self.call_back()

    def call_back(self) -> None:
        """Calls the callbacks, which are called once."""
        if self.done_callbacks.close():
            self.driver.callback_runner.do(self.done_callbacks.call)


def new_waiting(call: Any, not_before: float = -math.inf) -> Waiting:
    """The stage of a `PoolCall` that begins to wait for a place, and gets none before that moment."""
    _, timeout, _, _, wait_for_ready, _ = call._arguments
    driver = call._driver
    deadline = call_deadline(driver.config, timeout, call._began, wait_for_ready=bool(wait_for_ready))
    waiting = Waiting(
        1, since=driver.monotonic(), deadline=deadline, fail_fast=not wait_for_ready, not_before=not_before
    )
    waiting.driver, waiting.call = driver, weakref.ref(call)
    waiting.done_callbacks, waiting.callers_wait, waiting.handed_over = call._callbacks, None, False
    return waiting


class Change:
    """The next change of a call's stage, for one thread that waits for it.

    Not an `Event`: if a signal handler raises in its `wait`, its lock may stay locked, and `set` would wait forever.
    """

    __slots__ = ("_has_come", "_lock")

    def __init__(self) -> None:
        """It is still to come."""
        self._has_come = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Wakes the thread. Under the lock of the call."""
        if not self._has_come:
            self._has_come = True
            self._lock.release()

    def wait(self, timeout: float = math.inf) -> bool:
        """Waits; returns whether the change has come."""
        return acquire_within(self._lock, timeout)


class Running:
    """The native call runs, or is over for good."""

    __slots__ = ("end", "native", "over", "slot")

    def __init__(self, native: Any, end: End, slot: Any) -> None:
        """Runs on `slot` as `native`, which calls `end` when it is over."""
        self.native = native
        self.slot = slot
        self.end = end
        # Whether it is over, and the call is not sent again.
        self.over = False


class Failed:
    """The call is over, and was never started."""

    __slots__ = ("cancelled", "error")

    def __init__(self, error: BaseException, *, cancelled: bool = False) -> None:
        """Failed with `error`; `cancelled`: by its caller."""
        self.error = error
        self.cancelled = cancelled

    def as_call(self) -> Any:
        """The error as a call, as gRPC's errors are: with a code and details."""
        if isinstance(self.error, grpc.Call):
            return self.error
        return not_started(grpc.StatusCode.INTERNAL, str(self.error), self.error)

    def outcome(self, name: str) -> Any:
        """What the method `name` of a future returns: `result`, `exception` or `traceback`.

        Raises:
            grpc.FutureCancelledError: The call was cancelled.
            BaseException: The result is asked for, and the call failed.
        """
        if self.cancelled:
            raise grpc.FutureCancelledError
        if name == "result":
            raise self.error
        return self.error if name == "exception" else traceback_of(self.error)


Stage = Waiting | Running | Failed


def asking(name: str) -> Callable[[Any], Any]:
    """The method that waits for the start, and asks the native call, or the error in its place."""

    def ask(self: Any) -> Any:
        """As gRPC's; waits."""
        while True:
            stage = self._begun()
            if isinstance(stage, Failed):
                return getattr(stage.as_call(), name)()
            try:
                answer = getattr(stage.native, name)()
            except BaseException:
                self._driver.interrupted(stage.slot)
                raise
            if not self._has_been_sent_again(stage):
                return answer

    ask.__name__ = name
    return ask
