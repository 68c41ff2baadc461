"""The calls of the sync fake channel: complete calls like gRPC's own, which end at their deadline.

A stream of responses ends when the last one has been read and its handler has returned, as in gRPC: the handler runs on
a thread of its own, at most `UNREAD_LIMIT` responses ahead of the reader. A call that the test ends with `finish` ends
at once.
"""

from __future__ import annotations

import contextvars
import dataclasses
import logging
import threading
import time
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, Self

import grpc

from ._shared import UNREAD_LIMIT, checked_code, checked_responses, failure_of

if TYPE_CHECKING:
    # gRPC's class takes no type parameters at run time; the messages are of the user's types.
    _Future = grpc.Future[Any]
else:
    _Future = grpc.Future

_log = logging.getLogger("grpcpool.testing")

_WAIT_LIMIT = 30.0


@dataclasses.dataclass(frozen=True, slots=True)
class Status:
    """How a call ended."""

    code: grpc.StatusCode
    details: str = ""
    trailing_metadata: tuple[Any, ...] = ()
    raised: BaseException | None = None
    """What interrupted the handler: it is raised where the call is read."""

    @classmethod
    def of(cls, raised: Exception) -> Self:
        """Returns the status of a call whose handler raised this."""
        if isinstance(raised, ClientError):
            return cls(raised.code, raised.details)
        return cls(*failure_of(raised, f"Exception calling application: {raised}"))


class ClientError(Exception):
    """What ends the work for a call that the client ended, or that its own code made fail."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        """Contains what the call ends with, if it has not ended."""
        super().__init__(details)
        self.code = code
        self.details = details


OK = Status(grpc.StatusCode.OK)
_CANCELLED = Status(grpc.StatusCode.CANCELLED, "Locally cancelled by application!")
_COLLECTED = Status(grpc.StatusCode.CANCELLED, "Cancelled upon garbage collection!")
_DEADLINE_EXCEEDED = Status(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


class FakeCall(grpc.RpcError, grpc.Call, _Future):
    """A call, which is also its own future, its own iterator of responses, and the error that it fails with."""

    method = ""
    """The full name of the method that was called."""

    request: Any = None
    """The request as bytes, or an iterator of the requests, as a handler gets it."""

    def __init__(self) -> None:
        """Starts the call; it runs until `finish` or `fail`."""
        super().__init__()
        self._changed = threading.Condition()
        self._status: Status | None = None
        self._cancelled = False
        # What the call ends with when its responses have been read.
        self._last: Status | None = None
        self._responses: deque[Any] = deque()
        self._streams = False
        self._callbacks: list[Callable[[], None]] = []
        self._deadline: float | None = None
        # Ends the thread that watches the deadline, and may be called again.
        self._stop_watching: Callable[[], object] = _nothing
        self._handler: threading.Thread | None = None
        # Gives what gRPC's own calls have there: a pool looks whether the server has sent initial metadata.
        self._state = types.SimpleNamespace(initial_metadata=())

    # --- for tests ----------------------------------------------------------------------------------------------

    def send(self, response: Any) -> None:
        """Delivers one response of a stream, a message as the stub returns it; the call continues."""
        with self._changed:
            if self._status is None:
                self._responses.append(response)
                self._changed.notify_all()

    def finish(self, responses: Iterable[Any] = ()) -> None:
        """Ends the call with OK and these responses, as the stub returns them; they can still be read.

        One, if the call has one response. They are messages, not bytes: the stub does not deserialize them.
        """
        self._end(OK, checked_responses(responses, streams=self._streams))

    def fail(self, code: grpc.StatusCode, details: str = "") -> None:
        """Ends the call with an error, at once; unread responses are lost."""
        self._end(Status(checked_code(code), details))

    def _end(self, status: Status, responses: Iterable[Any] = (), *, cancelled: bool = False) -> bool:
        with self._changed:
            if self._status is not None:
                return False
            if status.code is not grpc.StatusCode.OK:
                self._responses.clear()
            self._responses.extend(responses)
            self._status, self._cancelled = status, cancelled
            callbacks, self._callbacks = self._callbacks, []
            self._stop_watching()
            self._changed.notify_all()
        for callback in callbacks:
            try:
                callback()
            except Exception:  # noqa: BLE001 -- whatever the client's code raises
                # As in gRPC, where it must not end the thread that calls all callbacks.
                _log.exception("A done callback of a call raised")
        return True

    # --- for handlers -------------------------------------------------------------------------------------------

    def _begin(self, timeout: float | None, streams: bool) -> None:
        """Sets the deadline, and whether the call has a stream of responses; ends the call if it is late."""
        self._streams = streams
        if timeout is not None:
            self._deadline = time.monotonic() + timeout
            self._end_if_late()

    def _watch_deadline(self) -> None:
        """Ends the call at its deadline also if no thread waits for it."""
        with self._changed:
            left = self.time_remaining()
            if left is not None and self._status is None:
                # The thread ends as well when the call is dropped. To release a lock is safe in finalizers.
                watched = threading.Lock()
                watched.acquire()
                self._stop_watching = stop = weakref.finalize(self, watched.release)
                stop.atexit = False
                watch = (watched, min(left, threading.TIMEOUT_MAX), weakref.ref(self))
                threading.Thread(target=_expire, args=watch, name="fake-deadline", daemon=True).start()

    def _of_caller(self) -> FakeCall:
        """Returns another object for this call, whose collection cancels the call, as in gRPC.

        The channel and the handler keep this one, through which tests see the same call.
        """
        call = FakeCall.__new__(FakeCall)
        call.__dict__ = self.__dict__
        weakref.finalize(call, self._end, _COLLECTED, cancelled=True).atexit = False
        return call

    def _end_if_late(self) -> None:
        if self.time_remaining() == 0:
            self._expire()

    def _expire(self) -> None:
        self._end(_DEADLINE_EXCEEDED)

    def _run(self, handle: Callable[[], None]) -> None:
        """Runs the handler on a thread, which ends soon after the call unless the handler waits for something else.

        It has the caller's context variables, as a handler on the caller's thread has.
        """

        def run() -> None:
            try:
                handle()
            except BaseException as raised:
                # The reader gets what a test raises, as `pytest.fail` does; if there is none any more, the thread does.
                if not self._end(Status(grpc.StatusCode.UNKNOWN, "The handler was interrupted", raised=raised)):
                    raise

        within = contextvars.copy_context()
        self._handler = threading.Thread(target=within.run, args=(run,), name="fake-handler", daemon=True)
        self._handler.start()

    def _deliver(self, response: Any) -> None:
        """Delivers a response when there are few unread ones; raises if the call has ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._status is not None or len(self._responses) < UNREAD_LIMIT)
            self._check_active()
            self.send(response)

    def _check_active(self) -> None:
        if self._status is not None:
            raise ClientError(self._status.code, self._status.details)

    def _conclude(self, status: Status) -> None:
        """Ends the call, as its handler does; a stream of responses after they have been read."""
        self._end_if_late()
        with self._changed:
            self._last = status
            self._changed.notify_all()
            if self._streams:
                self._changed.wait_for(lambda: self._status is not None or not self._responses)
        self._end(status)

    # --- grpc.Call ----------------------------------------------------------------------------------------------

    def is_active(self) -> bool:
        """Whether the call is still running."""
        return self._status is None

    def time_remaining(self) -> Any:
        """Returns the seconds to the deadline, if there is one."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def cancel(self) -> bool:
        """Cancels the call; returns whether it was still running."""
        return self._end(_CANCELLED, cancelled=True)

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Calls `callback` when the call ends; returns `False` if it has already ended."""
        with self._changed:
            if self._status is not None:
                return False
            self._callbacks.append(callback)
            return True

    def initial_metadata(self) -> Any:
        """Returns no metadata."""
        return ()

    def trailing_metadata(self) -> Any:
        """Waits for the end; returns the metadata of the error that a handler raised."""
        return self._final().trailing_metadata

    def code(self) -> grpc.StatusCode:
        """Waits for the end; returns the status code."""
        return self._final().code

    def details(self) -> str:
        """Waits for the end; returns the details."""
        return self._final().details

    def debug_error_string(self) -> str:
        """Waits for the end; returns code and details in one text."""
        code, details = self.code(), self.details()
        return "" if code is grpc.StatusCode.OK else f"{code.name}:{details}"

    # --- grpc.Future --------------------------------------------------------------------------------------------

    def cancelled(self) -> bool:
        """Whether the client cancelled the call."""
        return self._cancelled

    def done(self) -> bool:
        """Whether the call has ended."""
        return self._status is not None

    def running(self) -> bool:
        """Whether the call is still running."""
        return self._status is None

    def result(self, timeout: float | None = None) -> Any:
        """Waits for the end; returns the response, or raises the error."""
        error = self.exception(timeout)
        if error is not None:
            raise error
        return self._responses[0] if self._responses else None

    def exception(self, timeout: float | None = None) -> Exception | None:
        """Waits for the end; returns the error, or `None`."""
        code = self._outcome(timeout).code
        if self._cancelled:
            raise grpc.FutureCancelledError
        return None if code is grpc.StatusCode.OK else self

    def traceback(self, timeout: float | None = None) -> Any:
        """Waits for the end; returns `None`."""
        self._final(timeout)

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """Calls `fn` with the call when it ends, or now if it has ended."""
        if not self.add_callback(lambda: fn(self)):
            fn(self)

    # --- the stream of responses --------------------------------------------------------------------------------

    def __iter__(self) -> Self:
        """Returns itself: the call is its own iterator."""
        return self

    def __next__(self) -> Any:
        """Returns the next response; at the end, stops or raises the error."""
        with self._changed:
            self._wait_for(lambda: self._responses or self._last is not None or self._status is not None)
            read = [self._responses.popleft()] if self._responses else []
            self._changed.notify_all()
            concludes = self._last is not None and not self._responses
        if concludes and self._handler is not None and self._handler is not threading.current_thread():
            # Then its callbacks have been called.
            self._handler.join(_WAIT_LIMIT)
        if read:
            return read[0]
        if self._outcome().code is grpc.StatusCode.OK:
            raise StopIteration
        raise self

    def _wait_for(self, happened: Callable[[], object], timeout: float | None = None) -> None:
        with self._changed:
            bound = _WAIT_LIMIT if timeout is None else min(timeout, threading.TIMEOUT_MAX)
            if self._changed.wait_for(happened, bound):
                return
        if timeout is None:
            raise AssertionError(f"the fake call did not end within {_WAIT_LIMIT} s")
        raise grpc.FutureTimeoutError

    def _final(self, timeout: float | None = None) -> Status:
        self._wait_for(lambda: self._status is not None, timeout)
        assert self._status is not None  # noqa: S101 -- for the type checker
        return self._status

    def _outcome(self, timeout: float | None = None) -> Status:
        status = self._final(timeout)
        if status.raised is not None:
            raise status.raised
        return status

    def __repr__(self) -> str:
        """Returns how the call ended."""
        how = "running" if self._status is None else f"{self._status.code.name} {self._status.details!r}"
        return f"<{type(self).__name__}: {how}>"

    # Otherwise the text would be that of the arguments of the error, which has none.
    __str__ = __repr__


def _nothing() -> None:
    """There is no thread that watches the deadline."""


def _expire(watched: threading.Lock, seconds: float, reference: weakref.ref[FakeCall]) -> None:
    if watched.acquire(timeout=seconds):
        # The call has ended, or was dropped.
        return
    call = reference()
    if call is not None:
        call._expire()


class Requests:
    """The requests that a handler reads. An error of the client's own code ends the call, as in gRPC."""

    def __init__(self, call: FakeCall, requests: Iterator[Any], serialize: Callable[[Any], Any]) -> None:
        """Reads `requests` for `call`."""
        self._call = call
        self._requests = requests
        self._serialize = serialize

    def __iter__(self) -> Self:
        """Returns itself."""
        return self

    def __next__(self) -> Any:
        """Returns the next request; raises if the call has ended."""
        self._call._end_if_late()
        self._call._check_active()
        try:
            request = next(self._requests)
        except StopIteration:
            raise
        except Exception:  # noqa: BLE001 -- whatever the client's code raises
            self._fail(grpc.StatusCode.UNKNOWN, "Exception iterating requests!")
        try:
            return self._serialize(request)
        except Exception:  # noqa: BLE001 -- whatever the client's code raises
            self._fail(grpc.StatusCode.INTERNAL, "Exception serializing request!")

    def _fail(self, code: grpc.StatusCode, details: str) -> NoReturn:
        _log.exception(details)
        self._call.fail(code, details)
        raise ClientError(code, details)
