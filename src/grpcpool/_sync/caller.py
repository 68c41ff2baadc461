"""Calls over a pool: each takes one stream of the best connection when it begins, and releases it at its end."""

from __future__ import annotations

import contextvars
import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from .._grpc.failed_streams import reference
from .._grpc.short_tracebacks import drop_frames_below
from .._shared.arguments import METADATA, REQUEST, WAIT_FOR_READY, Arguments
from .._shared.methods import SENDING, failed_to_serialize
from .._shared.waiting_for_ready import as_sent, call_deadline, if_up, waits_within
from .._values.errors import PoolError
from .arguments import failure_of, with_metadata_read
from .call import PoolCall
from .call_end import on_end
from .channel import ChannelSurface
from .failed_call import call_error, not_started
from .multicallables import UnaryUnary
from .place import Place, new_place
from .waiter import BlockedCall

if TYPE_CHECKING:
    from .._machine.slot import Slot
    from .._shared.methods import Method, Sent
    from .arguments import Start
    from .driver import SyncDriver
    from .slot_channel import SyncSlotChannel


def _blocking(how: str) -> Callable[..., Any]:
    """The method that runs a call until it is over, by the method of gRPC's multicallable that has this name."""

    def block(
        self: PoolUnaryUnary | PoolCaller,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Runs a call until it is over. One that a server refuses is sent again, elsewhere or after a wait."""
        caller = self._caller
        driver = caller._pool._driver
        # It may be an iterator, and is read again if the call is sent again.
        metadata = metadata and tuple(metadata)
        spare, now = driver.spare_places, driver.monotonic
        began = now()
        with driver.lock:
            place = spare.pop() if spare else new_place(driver)
            slot = driver.places.take(place)
        slot = if_up(driver, slot, place) if wait_for_ready else slot
        if slot is not None:
            try:
                ready = wait_for_ready and waits_within(driver, slot, caller._method)
                made = slot.channel.made[caller._method]
                # By name: to call the object, or with a tuple of arguments, costs as much as taking the place.
                if how == "__call__":
                    response = made.__call__(request, timeout, metadata, credentials, ready, compression)
                else:
                    response = made.with_call(request, timeout, metadata, credentials, ready, compression)
            except grpc.RpcError as error:
                place.began = began
                at = caller._resend_at(place, error, 0, waits=bool(wait_for_ready))
                if at == math.inf:
                    drop_frames_below(error)
                    raise
            except BaseException:
                place.interrupted()
                raise
            else:
                # As `place.release` does, which nearly every call saves calling.
                try:
                    with driver.lock:
                        if not driver.places.release(slot, 1, now(), place):
                            place._slot = None
                            spare.append(place)
                            return response
                        driver.machine.settle(slot, now())
                    driver.commit()
                except BaseException:
                    driver.recover()
                    raise
                return response
        else:
            place.began, at = began, -math.inf
        arguments = (request, timeout, metadata, credentials, wait_for_ready, compression)
        return caller._block_later(how, arguments, place, at, resends=slot is not None)

    # As errors and profiles show it.
    block.__name__, block.__qualname__ = how, f"UnaryUnary.{how}"
    return block


class PoolCaller:
    """Runs the calls of one method, each on the connection that is best when it begins."""

    def __init__(self, pool: ChannelSurface, method: Method) -> None:
        """For calls of `method`."""
        self._pool = pool
        self._method = method
        self._may_resend = method.may_resend

    def origin(self) -> tuple[ChannelSurface, Method]:
        """The pool, and the method."""
        return self._pool, self._method

    __call__ = _blocking("__call__")
    with_call = _blocking("with_call")

    @property
    def _caller(self) -> PoolCaller:
        return self

    def block(self, how: str, *arguments: Any) -> Any:
        """Runs a call until it is over."""
        return getattr(self, how)(*arguments)

    def _block_later(self, how: str, arguments: Arguments, place: Place, not_before: float, resends: int) -> Any:
        """Waits for a place, not before that moment, and runs the call as `block` does."""
        began = place.began
        if not resends:
            place.driver.check_open(blocking=True)
        while True:
            slot, given = _wait_for_place(place, arguments, began, not_before)
            try:
                given = as_sent(place.driver, given, slot, self._method, resends)
                response = getattr(slot.channel.made[self._method], how)(*given)
            except grpc.RpcError as error:
                not_before = self._resend_at(place, error, resends, waits=bool(arguments[WAIT_FOR_READY]))
                if not_before == math.inf:
                    drop_frames_below(error)
                    raise
                resends += 1
            except BaseException:
                place.interrupted()
                raise
            else:
                place.release(answered=True)
                return response

    def _resend_at(self, place: Place, error: grpc.RpcError, resends: int, *, waits: bool) -> float:
        """Releases the place of a call that failed; returns when it is sent again, `math.inf` if it is not."""
        may_resend = self._may_resend and place.driver.has_resends_left(resends)
        if not place.end(error, lambda: may_resend, waits=waits) or not self._may_resend:
            return math.inf
        at = place.resend_at(resends)
        return math.inf if at is None else at

    def begin(self, how: str, arguments: Arguments) -> Any:
        """Begins a call. If there is no place for it, returns a call that begins when there is."""
        driver = self._pool._driver
        if self._may_resend and arguments[METADATA] is not None:
            arguments = with_metadata_read(arguments)
        place = new_place(driver)
        with driver.lock:
            slot = driver.places.take(place)
        if arguments[WAIT_FOR_READY]:
            slot = if_up(driver, slot, place)
        if slot is None:
            driver.check_open(blocking=False)
            start = self._start_later(how, arguments[REQUEST])
            call = PoolCall(self._pool, start, arguments, place.began, may_resend=self._may_resend)
            call._wait()
            return call
        if not self._may_resend:
            try:
                native = getattr(slot.channel.made[self._method], how)(*arguments)
            except BaseException:
                place.interrupted()
                raise
            return _release_at_end(native, place, self._pool)
        return self._run_resendable(how, place, slot, arguments)

    def _run_resendable(self, how: str, place: Place, slot: Slot, arguments: Arguments) -> Any:
        """Begins a call on the slot that is sent again if the server refuses it."""
        start = _Start(self._method, how, contextvars.copy_context())
        try:
            sent = as_sent(place.driver, arguments, slot, self._method) if arguments[WAIT_FOR_READY] else arguments
            native = start.at_once(slot.channel, sent)
        except BaseException:
            place.interrupted()
            raise
        if not hasattr(native, "add_callback"):
            # What an interceptor returned, which may be anything.
            return _release_at_end(native, place, self._pool)
        call = PoolCall(self._pool, start, arguments, place.began, may_resend=True)
        call._begin(native, place)
        return call

    def _start_later(self, how: str, request: Any) -> Start:
        """Returns what starts the call on a slot with the request and the context of this moment.

        Raises:
            grpc.RpcError: The serializer raised; with gRPC's text.
        """
        start = _Start(self._method, how, contextvars.copy_context())
        try:
            start.sent = self._method.serialized(request)
        except Exception as error:
            text = "Exception serializing request!"
            raise not_started(grpc.StatusCode.INTERNAL, text, error) from error
        return start


class PoolUnaryUnary(UnaryUnary):
    """The multicallable of a pool for the most frequent kind of call: its caller's own methods, which saves a frame."""

    _caller: PoolCaller

    __call__ = PoolCaller.__call__
    with_call = PoolCaller.with_call


class _Start:
    """Starts a call, also repeatedly, with the request and in the context of the moment at which it was made."""

    __slots__ = ("_context", "_how", "_method", "sent")

    def __init__(self, method: Method, how: str, context: contextvars.Context) -> None:
        self._method = method
        self._how = how
        self._context = context
        # What it sends. Kept because it may be sent again.
        self.sent: Sent | None = None

    def at_once(self, channel: SyncSlotChannel, arguments: Arguments) -> Any:
        """The first start, in this very context."""
        method, serializer = self._method, self._method.serializer
        if serializer is not None:
            if not channel.is_plain:
                return self._noting(channel, arguments)
            request, *rest = arguments
            try:
                serialized = serializer(request)
            except Exception as error:  # noqa: BLE001 -- gRPC reports it
                failing = channel.make(method.with_sent(failed_to_serialize(request, error)))
                return getattr(failing, self._how)(*arguments)
            self.sent, method, arguments = (request, serialized), method.of_bytes, (serialized, *rest)
        return getattr(channel.made[method], self._how)(*arguments)

    def _noting(self, channel: SyncSlotChannel, arguments: Arguments) -> Any:
        """The same, where interceptors see the request: what they send is serialized after them."""
        noted = SENDING.set(self)
        try:
            return getattr(channel.made[self._method.noting], self._how)(*arguments)
        finally:
            SENDING.reset(noted)

    def __call__(self, driver: SyncDriver, slot: Slot, arguments: Arguments, resends: int) -> Any:
        """A later start."""
        request, *rest = as_sent(driver, arguments, slot, self._method, resends)
        native, request = slot.channel.sending(self._method, request, self.sent)
        return self._context.copy().run(getattr(native, self._how), request, *rest)


def _release_at_end(native: Any, place: Place, pool: object) -> Any:
    """Releases the place when the native call is over; returns what the caller gets.

    A running call keeps its pool, as gRPC's calls keep their channel.
    """
    driver = place.driver
    end = partial(_end, place, reference(native, driver.defer_apart), pool)
    return on_end(native, end, driver, driver.when_interrupted(place._slot))


def _end(place: Place, native: Callable[[], Any], _pool: object) -> None:
    place.end(native())


def _wait_for_place(place: Place, arguments: Arguments, began: float, not_before: float) -> tuple[Slot, Arguments]:
    """Waits for a place for a call that `began` then; returns its slot, and the arguments with the time that is left.

    It pauses until `not_before`.

    Raises:
        grpc.RpcError: No place was granted; the cause is the pool's error.
    """
    driver = place.driver
    arguments = with_metadata_read(arguments)
    failure = failure_of(arguments)
    if failure is not None:
        raise failure
    request, timeout, metadata, credentials, wait_for_ready, compression = arguments
    deadline = call_deadline(driver.config, timeout, began, wait_for_ready=bool(wait_for_ready))
    waiter = BlockedCall(
        1, since=driver.monotonic(), deadline=deadline, fail_fast=not wait_for_ready, not_before=not_before
    ).prepare()
    try:
        place._slot = slot = waiter.get(driver)
        place._released = False
        place.began = driver.monotonic()
    except PoolError as error:
        raise call_error(error, own_deadline=timeout is not None) from error
    if timeout is not None:
        timeout = max(0.0, deadline - place.began)
    return slot, (request, timeout, metadata, credentials, wait_for_ready, compression)
