"""The calls that a pool returns for `future()` and for streams: usable while they wait for a place, then gRPC's own.

What is asked of a call is passed on to its native call. A method that waits for that does so in a loop: by the time it
has ended, the call may have been sent again. How a call gets its native call is in `staged_call.py`.
"""

from __future__ import annotations

import time
import types
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc

from .._grpc.failed_streams import end_failed, reader_of, responses_of, take_note_of_metadata
from .._grpc.short_tracebacks import drop_frames_below
from .._shared.arguments import TIMEOUT
from .._shared.finalizers import interrupts
from .call_end import end_early, is_over
from .call_stages import Failed, Running, Waiting, asking
from .failed_call import locally_cancelled
from .staged_call import StagedCall
from .work_queue import run_logged


class PoolCall(StagedCall):
    """A call over a pool, other than a blocking one."""

    __slots__ = ()

    # --- grpc.RpcContext ----------------------------------------------------------------------------------------

    def cancel(self) -> bool:
        """As gRPC's; a waiting call leaves the queue."""
        if interrupts(self._driver):
            self._driver.defer_apart(self.cancel)
            return not self.done()
        while True:
            stage = self._stage
            if isinstance(stage, Failed):
                return False
            if isinstance(stage, Waiting):
                if self._fail(stage, Failed(locally_cancelled(), cancelled=True)):
                    self._driver.withdraw(stage)
                    return True
            elif end_early(stage.native):
                return True
            elif not self._has_been_sent_again(stage):
                return False

    def is_active(self) -> bool:
        """As gRPC's; a waiting call is active."""
        return not self.done()

    def time_remaining(self) -> float | None:
        """As gRPC's; the wait counts."""
        stage = self._stage
        if isinstance(stage, Running):
            left: float | None = stage.native.time_remaining()
            return left
        timeout = self._arguments[TIMEOUT]
        return None if timeout is None else max(0.0, self._began + timeout - self._driver.monotonic())

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """As gRPC's."""
        return self._callbacks.add(callback)

    # --- grpc.Call ----------------------------------------------------------------------------------------------

    initial_metadata = asking("initial_metadata")
    trailing_metadata = asking("trailing_metadata")
    code = asking("code")
    details = asking("details")
    debug_error_string = asking("debug_error_string")

    # --- grpc.Future --------------------------------------------------------------------------------------------

    def cancelled(self) -> bool:
        """As gRPC's."""
        stage = self._stage
        if isinstance(stage, Running):
            return bool(stage.native.cancelled())
        return isinstance(stage, Failed) and stage.cancelled

    running = is_active

    def done(self) -> bool:
        """As gRPC's."""
        stage = self._stage
        if isinstance(stage, Running):
            return is_over(stage.native) and not self._is_sent_again(stage, stage.native)
        return isinstance(stage, Failed)

    def _outcome(self, name: str, timeout: float | None) -> Any:
        """Waits for the end, and asks the native future for its result, exception or traceback."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            stage = self._begun(left)
            if isinstance(stage, Failed):
                return stage.outcome(name)
            left = None if until is None else max(0.0, until - time.monotonic())
            try:
                outcome = getattr(stage.native, name)(left)
            except grpc.RpcError as error:
                if not self._is_sent_again(stage, error):
                    raise
            except BaseException:
                self._driver.interrupted(stage.slot)
                raise
            else:
                if not isinstance(outcome, grpc.RpcError) or not self._is_sent_again(stage, outcome):
                    return outcome

    def result(self, timeout: float | None = None) -> Any:
        """As gRPC's."""
        try:
            return self._outcome("result", timeout)
        except grpc.RpcError as error:
            drop_frames_below(error)
            raise

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """As gRPC's."""
        return self._outcome("exception", timeout)  # type: ignore[no-any-return]

    def traceback(self, timeout: float | None = None) -> types.TracebackType | None:
        """As gRPC's."""
        self._outcome("exception", timeout)
        return self._outcome("traceback", timeout)  # type: ignore[no-any-return]

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """As gRPC's: the call is kept until `fn` has been called. What `fn` raises is logged, also if it is over."""
        # The bound `self` keeps the call: its waiter, and then its native call, keeps the callbacks.
        callback = partial(fn, self)
        # A call that was cancelled is over before gRPC has reported it.
        if self.done() or not self._callbacks.add(callback):
            run_logged(callback)

    # --- a stream of responses ----------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        """Iterates the responses."""
        return self

    def __next__(self) -> Any:
        """The next response; waits for the start."""
        read = self._read
        if read is None:
            return self._read_first()
        try:
            response = read()
        except grpc.RpcError:
            end_failed(self._native)
            raise
        except StopIteration:
            raise
        except BaseException:
            self._driver.interrupted(self._slot)
            raise
        self._slot.heard += 1
        return response

    def _read_first(self) -> Any:
        while True:
            stage = self._stage
            if not isinstance(stage, Running):
                stage = self._begun()
                if isinstance(stage, Failed):
                    raise stage.error
            try:
                responses = responses_of(stage.native)
                response = next(responses)
            except grpc.RpcError as error:
                take_note_of_metadata(stage.native)
                if not self._is_sent_again(stage, error):
                    end_failed(stage.native)
                    raise
            except BaseException:
                self._driver.interrupted(stage.slot)
                raise
            else:
                # What has answered is not sent again: the stage stays.
                self._may_resend = False
                stage.slot.heard += 1
                self._slot, self._native, self._read = stage.slot, stage.native, reader_of(responses)
                return response

    next = __next__

    def __repr__(self) -> str:
        """The call at a glance."""
        stage = self._stage
        if isinstance(stage, Waiting):
            return "<PoolCall waiting for a place>"
        return repr(stage.native if isinstance(stage, Running) else stage.as_call())

    __str__ = __repr__
