"""Calls over a pool: each takes one stream of the best connection when it begins, and gives it back when it is over."""

from __future__ import annotations

import contextvars
import weakref
from asyncio import _get_running_loop
from typing import TYPE_CHECKING, Any

import grpc

from .._grpc.status import answer_of_done, details_of_done, has_been_refused, has_succeeded
from .._shared.methods import SENDING
from .arguments import Arguments, start
from .call import SHELLS, End, Shell
from .channel import ChannelSurface
from .failed_call import FailedCall
from .waiter import CallWaiter

if TYPE_CHECKING:
    from .._machine.slot import Slot
    from .._shared.methods import Method
    from .driver import AioDriver


class PoolCaller:
    """Runs the calls of one method, each on the connection that is best when it begins."""

    def __init__(self, pool: ChannelSurface, method: Method) -> None:
        """For calls of `method`."""
        self._pool = pool
        self._method = method
        # What is sent is noted, for the call may be begun again.
        self._noting = method.noting
        self._shell = SHELLS[method.kind]

    @property
    def driver(self) -> AioDriver:
        """The pool's; in a forked child it is another."""
        return self._pool._driver

    def of_other_method(self, name: str) -> PoolCaller:
        """The caller for a method with another name."""
        return PoolCaller(self._pool, self.driver.methods.get(self._method.kind, (name, *self._method.arguments[1:])))

    def call(self, arguments: Arguments) -> Any:
        """Begins a call; if there is no place for it, one that begins by itself when there is.

        Raises:
            grpc.aio.UsageError: The pool is closed.
        """
        driver = self._pool._driver
        running = _get_running_loop()
        if running is None or running is not driver.loop or driver.leaving:
            driver.enter()
            if driver.leaving:
                raise grpc.aio.UsageError("Channel is closed.")
        if arguments[3] is not None and not self._pool._takes_call_credentials:
            raise grpc.aio.UsageError("Call credentials are only valid on secure channels")
        metadata = arguments[2]
        if metadata is not None and type(metadata) is not tuple:
            # It may be an iterator, and is read again if the call is begun again.
            request, timeout, metadata, *rest = arguments
            arguments = (request, timeout, tuple(metadata), *rest)
        began = driver.monotonic()
        call = self._shell(driver, self._pool)
        context = contextvars.copy_context()
        end = End(self.over, call, None, arguments, context, began)
        with driver.lock:
            slot = driver.places.acquire(1, end)
        if slot is None:
            if driver.machine.closing:
                raise grpc.aio.UsageError("Channel is closed.")
            self._wait(call, self._with_request_serialized(arguments[0]), arguments, context, began)
            return call
        noted = SENDING.set(end)
        try:
            native = start(slot.channel.multicallable(self._noting), arguments)
        except BaseException:
            driver.release(slot, 1, end)
            raise
        finally:
            SENDING.reset(noted)
        call.begin(native, end)
        return call

    def _with_request_serialized(self, request: Any) -> Method:
        try:
            return self._method.with_request_serialized(request)
        except Exception:  # noqa: BLE001 -- gRPC has its own way with it, when the call begins
            return self._method

    def _wait(
        self, call: Shell, method: Method, arguments: Arguments, context: contextvars.Context, began: float
    ) -> None:
        """Has the call wait for a place; a deadline of its own counts from when it `began`."""
        _, timeout, _, _, wait_for_ready, _ = arguments
        driver = self.driver
        deadline = driver.call_deadline(timeout, began)
        waiter = CallWaiter(1, since=driver.monotonic(), deadline=deadline, fail_fast=not wait_for_ready)
        waiter.driver = driver
        waiter.begin = self.begin_waiting
        waiter.call = weakref.ref(call)
        waiter.kept = None
        waiter.arguments = arguments
        waiter.context = context
        waiter.began = began
        waiter.method = method
        call.wait(waiter)
        waiter.asking = True
        driver.request(waiter)
        waiter.asking = False

    def begin_waiting(self, waiter: CallWaiter, call: Shell, slot: Slot) -> None:
        """The place is there: starts the native call, with the time that is left."""
        driver = self.driver
        arguments = waiter.arguments
        request, timeout, *rest = arguments
        left = timeout if timeout is None else max(0.0, waiter.deadline - driver.monotonic())
        channel = slot.channel
        make = channel.multicallable if waiter.method is self._method else channel.make
        try:
            native = waiter.context.copy().run(start, make(waiter.method), (request, left, *rest))
        except Exception as error:  # noqa: BLE001 -- foreign code may raise anything; the caller is told
            driver.release(slot, 1, waiter)
            call.fail(FailedCall(grpc.StatusCode.INTERNAL, str(error), error, raises=error))
            return
        end = End(self.over, call, slot, arguments, waiter.context, waiter.began)
        end.method = waiter.method
        waiter._released = True
        call.begin(native, end)

    def over(self, native: Any, end: End) -> None:
        """A native call is over: gives its place back. One that the server refused is begun again, if it may be."""
        driver = self._pool._driver
        call = end.call()
        if has_succeeded(native):
            driver.release(end._slot, 1, end)
        else:
            code = answer_of_done(native.code)
            if has_been_refused(native, code):
                end.refused = True
                driver.tell(driver.machine.refused_stream, end._slot, end)
                if call is not None and self._method.may_repeat and not call.heard:
                    method = end.method or (self._method.with_sent(*end.sent) if end.sent else self._method)
                    self._wait(call, method, end.arguments, end.context, end.began)
                    return
            else:
                # In this order, for a slot that carries less by a failed call is the more attractive.
                driver.call_failed(end._slot, code, details_of_done(native))
                driver.release(end._slot, 1, end)
        if call is not None:
            call.end()
