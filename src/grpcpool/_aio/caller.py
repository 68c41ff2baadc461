"""Calls over a pool: each takes one stream of the best connection when it begins, and releases it at its end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import math
import weakref
from asyncio import _get_running_loop
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from .._grpc.status import Status, has_succeeded, is_done_refused, is_done_without_metadata, status_of_done
from .._shared.arguments import COMPRESSION, METADATA, REQUEST, WAIT_FOR_READY, Arguments
from .._shared.methods import SENDING, failed_to_serialize
from .._shared.waiting_for_ready import as_sent, call_deadline, if_up, waits_within
from .arguments import as_metadata, check_compression, read_again
from .call import PROXIES, CallProxy
from .call_stages import Running, Waiting, new_running
from .channel import ChannelSurface
from .failed_call import Failed

if TYPE_CHECKING:
    from .._machine.slot import Slot
    from .._shared.methods import Method, Sent
    from .driver import AioDriver
    from .slot_channel import AioSlotChannel


class RunningInPool(Running):
    """A call of a pool: it holds a place."""

    __slots__ = ()

    def ended(self) -> None:
        # As in any `Running`. What follows if it ended well, as nearly every call does, is done here, without calls.
        caller, self._caller = self._caller, None
        if caller is None:
            return
        slot, native = self._slot, self.native
        channel = slot.channel
        if channel is not None:
            # Else the pool was dropped, and its loop has ended.
            channel.running.discard(native)
        if has_succeeded(native):
            # As `driver.release`.
            driver = caller._pool._driver
            monotonic = driver.monotonic
            try:
                with driver.lock:
                    settles = driver.places.release(slot, 1, monotonic(), self)
                    if settles:
                        driver.machine.settle(slot, monotonic())
                if settles:
                    driver.commit()
            except BaseException:
                driver.recover()
                raise
            # As `StagedCall._end`.
            self.over = True
            call = self.call()
            if call is None:
                self.leave_native()
            elif call._callbacks is not None:
                call._run_callbacks()
        else:
            caller.failed(native, self)
        if self.kept:
            self.keep_no_longer()


class PoolCaller:
    """Runs the calls of one method, each on the connection that is best when it begins."""

    def __init__(self, pool: ChannelSurface, method: Method) -> None:
        """For calls of `method`."""
        self._pool = pool
        self._method = method
        self._serializer, self._of_bytes = method.serializer, method.of_bytes
        self._proxy = PROXIES[method.kind]

    def origin(self) -> tuple[ChannelSurface, Method]:
        """The pool, and the method."""
        return self._pool, self._method

    @property
    def driver(self) -> AioDriver:
        """The driver of the pool. In a forked child it is another one."""
        return self._pool._driver

    def of_other_method(self, name: str) -> PoolCaller:
        """The caller for a method with another name."""
        return PoolCaller(self._pool, self.driver.methods.get(self._method.kind, (name, *self._method.arguments[1:])))

    def begin_chain(self) -> bool:
        """An intercepted call begins. If the pool is closed meanwhile, the call may still go on within the grace."""
        return not self.driver.is_closing()

    def watch_chain(self, chain: asyncio.Task[Any]) -> None:
        """The task runs the interceptors of a call."""
        self.driver.watch_chain(chain)

    def end_chain(self) -> None:
        """The interceptors of a call are done: nothing to do."""

    def begin(self, arguments: Arguments, chain: object = None) -> Any:
        """Begins a call. If there is no place for it, returns a call that begins when there is.

        Raises:
            grpc.aio.UsageError: The pool is closed.
        """
        driver, method, serializer = self._pool._driver, self._method, self._serializer
        loop = _get_running_loop()
        if loop is None or loop is not driver.loop or driver.leaving:
            self._enter(driver, chain)
        request, timeout, metadata, credentials, wait_for_ready, compression = arguments
        if metadata or credentials is not None:
            arguments = self._checked(*arguments)
            metadata = arguments[METADATA]
        # Of an attribute that is a function, a local name is faster to call.
        monotonic, proxy = driver.monotonic, self._proxy
        began = monotonic()
        call = proxy()
        call._driver, call._owner = driver, self._pool
        running = new_running(RunningInPool, self, call, arguments, contextvars.copy_context(), began)
        with driver.lock:
            slot = driver.places.take(running)
        if wait_for_ready:
            slot = if_up(driver, slot, running)
        if slot is None:
            self._wait_for_place(driver, call, running)
            return call
        try:
            channel = slot.channel
            if serializer is None or not channel.is_plain:
                made = self._made(running, channel)
            else:
                made = channel.made[self._of_bytes]
                try:
                    serialized = serializer(request)
                except Exception as error:  # noqa: BLE001 -- gRPC reports it
                    made = channel.make(method.with_sent(failed_to_serialize(request, error)))
                else:
                    running.sent, request = (request, serialized), serialized
            wait_for_ready = wait_for_ready and waits_within(driver, slot, method)
            native = made(request, timeout, metadata, credentials, wait_for_ready, compression)
        except BaseException:
            driver.release(slot, 1, running)
            raise
        call._begin(native, running)
        return call

    def _enter(self, driver: AioDriver, chain: object) -> None:
        driver.enter()
        if driver.leaving and chain is None:
            raise grpc.aio.UsageError("Channel is closed.")

    def _checked(
        self, request: Any, timeout: Any, metadata: Any, credentials: Any, wait_for_ready: Any, compression: Any
    ) -> Arguments:
        """The arguments of a call with metadata or credentials."""
        if credentials is not None and not self._pool._takes_call_credentials:
            raise grpc.aio.UsageError("Call credentials are only valid on secure channels")
        # It is read again if the call is sent again.
        read = metadata if not metadata or type(metadata) is tuple else read_again(metadata)
        return request, timeout, read, credentials, wait_for_ready, compression

    def _made(self, running: Running, channel: AioSlotChannel) -> Callable[..., Any]:
        """What starts a native call whose request is not serialized before it."""
        if self._serializer is None:
            made: Callable[..., Any] = channel.made[self._method]
            return made
        return partial(self._start_noting, running, channel)

    def _start_noting(self, running: Running, channel: AioSlotChannel, *arguments: Any) -> Any:
        """Starts a native call whose request interceptors see: what they send is serialized, and kept, after them."""
        noted = SENDING.set(running)
        try:
            return channel.made[self._method.noting](*arguments)
        finally:
            SENDING.reset(noted)

    def _serialized(self, request: Any) -> Sent | None:
        try:
            return self._method.serialized(request)
        except Exception as error:  # noqa: BLE001 -- gRPC reports it in its own way, when the call begins
            return failed_to_serialize(request, error)

    def _wait_for_place(self, driver: AioDriver, call: CallProxy, running: Running) -> None:
        if driver.machine.closing:
            raise grpc.aio.UsageError("Channel is closed.")
        arguments = running.arguments
        # As gRPC, which reports it when the call is made.
        as_metadata(arguments[METADATA])
        check_compression(arguments[COMPRESSION])
        # No local name for what is sent: the traceback of an error in it holds this frame.
        self._wait(call, arguments, self._serialized(arguments[REQUEST]), running.context, running.began)

    def _wait(
        self,
        call: CallProxy,
        arguments: Arguments,
        sent: Sent | None,
        context: contextvars.Context,
        began: float,
        not_before: float = -math.inf,
    ) -> None:
        """Makes the call wait for a place, pausing until `not_before`. Its deadline counts from when it `began`."""
        _, timeout, _, _, wait_for_ready, _ = arguments
        driver = self.driver
        deadline = call_deadline(driver.config, timeout, began, wait_for_ready=bool(wait_for_ready))
        waiting = Waiting(
            1, since=driver.monotonic(), deadline=deadline, fail_fast=not wait_for_ready, not_before=not_before
        )
        waiting.driver = driver
        waiting.start = self.start
        waiting.call = weakref.ref(call)
        waiting.awaiting_start = []
        waiting.arguments = arguments
        waiting.context = context
        waiting.began = began
        waiting.sent = sent
        call._wait(waiting)
        waiting.asking = True
        driver.request(waiting)
        waiting.asking = False

    def start(self, waiting: Waiting, call: CallProxy, slot: Slot) -> None:
        """The place is there: starts the native call, with the time that is left."""
        driver = self.driver
        arguments = waiting.arguments
        _, timeout, *rest = as_sent(driver, arguments, slot, self._method, call._resends)
        left = timeout if timeout is None else max(0.0, waiting.deadline - driver.monotonic())
        try:
            start, request = slot.channel.sending(self._method, arguments[REQUEST], waiting.sent)
            native = waiting.context.copy().run(start, request, left, *rest)
        except Exception as error:  # noqa: BLE001 -- foreign code may raise anything; the call fails with it
            driver.release(slot, 1, waiting)
            call._fail(waiting, Failed(grpc.StatusCode.INTERNAL, str(error), error, raises=error))
            return
        if (task := asyncio.current_task(driver.loop)) is not None and task.cancelling():
            with contextlib.suppress(TypeError):
                # What an interceptor returned may not be referred to weakly.
                driver.begun_late.add(native)
        running = new_running(RunningInPool, self, call, arguments, waiting.context, waiting.began)
        running._slot, running._released = slot, False
        running.placed_at = driver.monotonic()
        if waiting.sent is not None and not isinstance(waiting.sent[1], Exception):
            # What the serializer raised holds the native call, by its traceback, and that holds this.
            running.sent = waiting.sent
        # The place is held by `running` from here on.
        waiting._released = True
        call._begin(native, running, waiting)

    def failed(self, native: Any, running: Running) -> None:
        """A native call failed: releases its place. A call that the server refused is sent again, if it may be."""
        driver, slot, call = self._pool._driver, running._slot, running.call()
        status = status_of_done(native)
        if is_done_refused(native, status):
            running.refused = True
            at_once = driver.tell(driver.machine.refused_stream, slot, running, running.placed_at)
            if call is not None and self._method.may_resend and not call._has_responded:
                at = driver.resend_at(call._resends, at_once=at_once)
                if at is not None:
                    self._send_again(call, running, at)
                    return
        elif self._is_sent_elsewhere(call, native, running, status):
            return
        else:
            driver.call_failed(slot, running, running.placed_at, status)
        running.end_call()

    def _is_sent_elsewhere(self, call: CallProxy | None, native: Any, running: Running, status: Status) -> bool:
        """Sends a call again that was never sent, because its connection is down, if another is up."""
        if call is None or not self._method.may_resend or call._has_responded or status.unreached is None:
            return False
        driver, slot, waits = self._pool._driver, running._slot, bool(running.arguments[WAIT_FOR_READY])
        at = driver.resend_at(call._resends, at_once=True, waits=waits)
        if at is None or not is_done_without_metadata(native):
            return False
        if not driver.release_unsent(slot, running, running.placed_at, status, waits=waits):
            return False
        running.refused = True
        self._send_again(call, running, at)
        return True

    def _send_again(self, call: CallProxy, running: Running, not_before: float) -> None:
        call._resends += 1
        # gRPC's call, which is over, holds `running`.
        running.native = None
        self._wait(call, running.arguments, running.sent, running.context, running.began, not_before)
