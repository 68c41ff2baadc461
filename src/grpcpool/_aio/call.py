"""The calls that pools and leases hand out: gRPC's own, each in a shell that sees to it that its place is given back.

::

    waiting --granted--> begun: everything is the native call's
       |   <--refused by the server--   (a call that may be repeated waits again)
       | refused, cancelled
       v
    failed: over without ever having been started; a `FailedCall` stands for the native one

The shell is there for three reasons. From 1.83 on gRPC never lets go of a call that was abandoned, so the shell, which
nobody but the caller holds, cancels the native call when it is dropped. A call has to be whole before it has a place.
And a call that the server refused for its limit of streams is begun again without the caller's seeing it.

Where a method waits for the native call it goes on from there in a loop: by the time the native call has ended, another
may have taken its place.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import grpc

from .._grpc.aio_calls import add_done_callback_unheld, has_done_writing, sending_of
from .._grpc.release import CALLS_HOLD_THEMSELVES
from .._grpc.status import is_refused_stream
from .._shared.finalizers import interrupts_package
from .failed_call import FailedCall, locally_cancelled
from .waiter import CallWaiter

if TYPE_CHECKING:
    from .._machine.slot import Slot
    from .._shared.methods import Method
    from .driver import AioDriver

    # gRPC's classes take no type parameters at run time; and the messages are the user's.
    _UnaryUnaryCall = grpc.aio.UnaryUnaryCall[Any, Any]
    _UnaryStreamCall = grpc.aio.UnaryStreamCall[Any, Any]
    _StreamUnaryCall = grpc.aio.StreamUnaryCall[Any, Any]
    _StreamStreamCall = grpc.aio.StreamStreamCall[Any, Any]
else:
    _UnaryUnaryCall = grpc.aio.UnaryUnaryCall
    _UnaryStreamCall = grpc.aio.UnaryStreamCall
    _StreamUnaryCall = grpc.aio.StreamUnaryCall
    _StreamStreamCall = grpc.aio.StreamStreamCall

# Of these, the native call is none the worse: it was used in a way that it does not have, or is over.
_HARMLESS = (grpc.RpcError, grpc.aio.UsageError, asyncio.InvalidStateError)


MIXED_STYLES = "The iterator and read/write APIs may not be mixed on a single RPC."
"""What gRPC says of it."""


class End:
    """What a native call is told to call when it is over, with all that its caller then has to know; acts once."""

    __slots__ = (
        "_released",
        "_slot",
        "arguments",
        "began",
        "call",
        "context",
        "kept",
        "method",
        "over",
        "refused",
        "sent",
    )

    def __init__(
        self,
        over: Callable[[Any, End], None],
        call: Shell,
        slot: Slot | None,
        arguments: Any = None,
        context: Any = None,
        began: float = 0.0,
    ) -> None:
        """Has `over` called for `call` on `slot`; the rest is for beginning it again."""
        self.over: Callable[[Any, End], None] | None = over
        self.call = weakref.ref(call)
        # As the holder of the call's place; a call on a lease has none.
        self._slot: Any = slot
        self._released = False
        self.arguments = arguments
        self.context = context
        self.began = began
        # What has been sent, or the method that sends it: for who has to begin it again.
        self.sent: tuple[Any, Any] | None = None
        self.method: Method | None = None
        # Whether the machine has been told that the server refused the call.
        self.refused = False
        # See `Shell.add_done_callback`.
        self.kept: Shell | None = None

    def __call__(self, native: Any) -> None:
        """The native call is over. Never raises: gRPC would lose the call's status."""
        over, self.over = self.over, None
        if over is not None:
            self._slot.channel.running.discard(native)
            over(native, self)
            self.kept = None


class Shell:
    """What the four kinds of call have in common."""

    _native: Any = None
    _end: End | None = None
    _waiter: CallWaiter | None = None
    _over = False
    # Whether it can be begun again: its request is no iterator.
    may_repeat = True
    # Whether a response has been handed out: then it is not begun again.
    heard = False
    # Whether the call ends although nobody reads its responses.
    _ends_unread = True
    _callbacks: list[Callable[[Any], None]] | None = None
    _told: list[asyncio.Future[None]] | None = None

    def __init__(self, driver: AioDriver, owner: Any) -> None:
        """Neither waits nor runs yet; keeps `owner` (a pool or a lease) as gRPC's calls keep their channel."""
        self._driver = driver
        self._owner = owner

    # --- its life, told by whoever runs it ----------------------------------------------------------------------

    def begin(self, native: Any, end: End) -> None:
        """The native call runs; `end` is told when it is over."""
        self._native = native
        self._end = end
        # What runs is held there, until its end.
        end._slot.channel.running.add(native)
        if CALLS_HOLD_THEMSELVES:
            add_done_callback_unheld(native, end)
        else:
            native.add_done_callback(end)
        if self._waiter is not None:
            # It has waited, so that there may be who waits for it.
            self._waiter = None
            if self._callbacks is not None:
                self._end_if_not_sent()
                if self._ends_unread:
                    end.kept = self
            told, self._told = self._told, None
            _wake(told)

    def wait(self, waiter: CallWaiter) -> None:
        """The call waits for a place, at first or again."""
        self._native = self._end = None
        self._waiter = waiter
        if self._callbacks is not None and self._ends_unread:
            waiter.kept = self

    def fail(self, failed: FailedCall) -> None:
        """The call is over, and was never started."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            failed.ends_at(waiter.own_deadline, self._driver.monotonic)
        self._native = failed
        told, self._told = self._told, None
        _wake(told)
        self.end()

    def end(self) -> None:
        """The call is over for good."""
        self._over = True
        if self._callbacks is not None:
            callbacks, self._callbacks = self._callbacks, None
            _call_all(callbacks, self, self._driver.loop)

    def waits_as(self, waiter: CallWaiter) -> bool:
        """Whether this still waits, and for the answer to `waiter`."""
        return self._waiter is waiter

    async def _begun(self) -> Any:
        """The native call; waits for it if need be."""
        while (native := self._native) is None:
            future = self._driver.loop.create_future()
            if self._told is None:
                self._told = []
            self._told.append(future)
            await future
        return native

    async def _begun_or_cancelled(self) -> Any:
        """As `_begun`; should the caller be cancelled meanwhile, so is the call."""
        try:
            return await self._begun()
        except asyncio.CancelledError:
            self.cancel()
            raise

    def _goes_on(self, native: Any, error: BaseException) -> bool:
        """Whether, after `native` failed with `error`, another stands for it now.

        A call that could not even send what it has to send (gRPC refuses its metadata, say) gRPC itself would never
        end; it is cancelled here, so that its place comes back.
        """
        if native is self._native and self._end is not None and _is_over(native):
            # A callback before ours may have raised; then gRPC called no further ones.
            self._end(native)
        if native is not self._native:
            if isinstance(error, grpc.RpcError):
                return True
            # It was not the call that ended: who waits for it was cancelled.
            self.cancel()
        elif not isinstance(error, _HARMLESS) and not _is_over(native):
            native.cancel()
        elif isinstance(error, grpc.RpcError) and not self.may_repeat and is_refused_stream(error):
            # Of a call that writes gRPC says at first only that it failed.
            self._tell_of_refusal()
        return False

    def _tell_of_refusal(self) -> None:
        end, self._end = self._end, None
        if end is not None and not end.refused:
            self._driver.tell(self._driver.machine.crowded, end._slot)

    def __del__(self) -> None:
        native, waiter, driver = self._native, self._waiter, self._driver
        if self._over or (native is None and waiter is None):
            return
        if waiter is not None:
            driver.defer(partial(driver.withdraw, waiter))
            native = locally_cancelled()
        elif not _is_over(native):
            driver.defer(native.cancel)
        elif self._end is not None:
            driver.defer(partial(self._end, native))
        if self._callbacks is not None:
            driver.defer(partial(_call_all, self._callbacks, native, driver.loop))

    def __getattr__(self, name: str) -> Any:
        """Whatever else gRPC's calls have: its interceptors look at more than is public."""
        native = self.__dict__.get("_native")
        if native is None:
            raise AttributeError(f"{type(self).__name__!r} object waiting for a place has no attribute {name!r}")
        return getattr(native, name)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} waiting for a place>" if self._native is None else repr(self._native)

    # --- grpc.aio.RpcContext and grpc.aio.Call ------------------------------------------------------------------

    def cancelled(self) -> bool:
        return self._native is not None and bool(self._native.cancelled())

    def done(self) -> bool:
        return self._native is not None and bool(self._native.done())

    def time_remaining(self) -> float | None:
        if self._native is not None:
            left: float | None = self._native.time_remaining()
            return left
        return self._waiter.time_remaining() if self._waiter is not None else None

    def cancel(self) -> bool:
        if self._driver.lock.locked() and interrupts_package():
            self._driver.defer(self.cancel)
            return not self.done()
        if self._native is not None:
            return bool(self._native.cancel())
        waiter = self._waiter
        self.fail(locally_cancelled())
        if waiter is not None:
            self._driver.withdraw(waiter)
            # It stays in the queue's heap until its deadline.
            waiter.forget()
        return True

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        if self._over:
            callback(self)
            return
        if self._callbacks is None:
            self._callbacks = []
            self._end_if_not_sent()
            keeper = self._end if self._end is not None else self._waiter
            if self._ends_unread and keeper is not None:
                # Who waits for the end of a call that nobody holds is told nonetheless, as gRPC does. A stream of
                # responses has no end unless somebody reads it: one that is dropped is cancelled.
                keeper.kept = self
        self._callbacks.append(callback)

    def _end_if_not_sent(self) -> None:
        """Has a call end of which gRPC cannot even send the request, and which nobody awaits, who would notice."""
        native = self._native
        sending = sending_of(native)
        if sending is not None:
            sending.add_done_callback(partial(_cancel_if_not_sent, native))

    async def _ask(self, name: str) -> Any:
        while True:
            native = await self._begun()
            self._end_if_not_sent()
            answer = await getattr(native, name)()
            if native is self._native:
                return answer

    async def initial_metadata(self) -> Any:
        return await self._ask("initial_metadata")

    async def trailing_metadata(self) -> Any:
        return await self._ask("trailing_metadata")

    async def code(self) -> Any:
        return await self._ask("code")

    async def details(self) -> Any:
        return await self._ask("details")

    async def debug_error_string(self) -> Any:
        return await self._ask("debug_error_string")

    async def wait_for_connection(self) -> None:
        while True:
            native = await self._begun_or_cancelled()
            try:
                await native.wait_for_connection()
            except BaseException as error:
                if not self._goes_on(native, error):
                    raise
            else:
                if native is self._native:
                    return


def _wake(told: list[asyncio.Future[None]] | None) -> None:
    for future in told or ():
        if not future.done():
            future.set_result(None)


def _call_all(callbacks: list[Callable[[Any], None]], call: Any, loop: asyncio.AbstractEventLoop) -> None:
    """Calls done callbacks, one like the other, whatever they raise."""
    for callback in callbacks:
        try:
            callback(call)
        except (KeyboardInterrupt, SystemExit) as stop:
            loop.call_soon(_raise, stop)
        except BaseException as error:  # noqa: BLE001 -- a user's callback may raise anything
            loop.call_exception_handler({"message": "a done callback of a call failed", "exception": error})


def _is_over(native: Any) -> bool:
    """Whether a call is over, or cannot tell: what gRPC makes of an interceptor's own answer may not."""
    try:
        return bool(native.done())
    except Exception:  # noqa: BLE001 -- as above
        return True


def _raise(error: BaseException) -> None:
    raise error


def _cancel_if_not_sent(native: Any, sending: asyncio.Task[Any]) -> None:
    if not native.done() and (sending.cancelled() or sending.exception() is not None):
        native.cancel()


class _OneResponse(Shell):
    """A call with one response."""

    def __await__(self) -> Generator[Any, None, Any]:
        while True:
            native = self._native
            if native is None:
                native = yield from self._begun_or_cancelled().__await__()
            try:
                return (yield from native.__await__())
            except BaseException as error:
                if not self._goes_on(native, error):
                    raise


class _Responses(AsyncIterator[Any]):
    """The responses of a call, which is held by who iterates them."""

    def __init__(self, call: _ManyResponses) -> None:
        self._call = call
        self._iterator: AsyncIterator[Any] | None = None

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Any:
        # A call of which something has been heard is not begun again: from here on the native iterator serves.
        return self._first() if self._iterator is None else self._iterator.__anext__()

    async def _first(self) -> Any:
        call = self._call
        while True:
            native = await call._begun_or_cancelled()
            iterator = native.__aiter__()
            try:
                message = await iterator.__anext__()
            except BaseException as error:
                if getattr(iterator, "ag_running", False):
                    # Another task iterates the call: to be told so ends nothing.
                    raise
                if not call._goes_on(native, error):
                    self._iterator = iterator
                    raise
            else:
                self._iterator = iterator
                call.heard = True
                return message

    async def aclose(self) -> None:
        """As of the asynchronous generator that gRPC returns."""
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()


class _ManyResponses(Shell):
    """A call with a stream of responses."""

    _ends_unread = False
    # How it is read, noted while there is no native call yet that notes it.
    _is_iterated: bool | None = None

    def _note_that_it_is(self, *, iterated: bool) -> None:
        if self._is_iterated is (not iterated):
            raise grpc.aio.UsageError(MIXED_STYLES)
        self._is_iterated = iterated

    def __aiter__(self) -> AsyncIterator[Any]:
        if self._native is None or self._is_iterated is not None:
            self._note_that_it_is(iterated=True)
        if self._native is not None:
            # Raises if the responses are being read the other way.
            self._native.__aiter__()
        return _Responses(self)

    async def read(self) -> Any:
        if self._native is None or (self._is_iterated is not None and not self.done()):
            self._note_that_it_is(iterated=False)
        while True:
            native = await self._begun_or_cancelled()
            try:
                message = await native.read()
            except BaseException as error:
                if not self._goes_on(native, error):
                    raise
            else:
                self.heard = True
                return message


class _ManyRequests(Shell):
    """A call with a stream of requests; never begun again."""

    may_repeat = False

    @property
    def _done_writing_flag(self) -> bool:
        """GRPC's own interceptors look at it."""
        return self._native is not None and has_done_writing(self._native)

    async def write(self, request: Any) -> None:
        native = await self._begun_for_writing()
        await native.write(request)

    async def done_writing(self) -> None:
        try:
            native = await self._begun_for_writing()
        except asyncio.CancelledError:
            self.cancel()
            raise
        await native.done_writing()

    async def _begun_for_writing(self) -> Any:
        """As gRPC has it, who is cancelled while he waits to write does not cancel the call."""
        waiter = self._waiter
        if waiter is None:
            return await self._begun()
        if waiter.arguments[0] is not None:
            raise grpc.aio.UsageError(MIXED_STYLES)
        native = await self._begun()
        if isinstance(native, FailedCall):
            # It ended while this waited: that is what is to be told, and not that it had ended before.
            await native.wait_for_connection()
        return native

    async def wait_for_connection(self) -> None:
        native = await self._begun()
        await native.wait_for_connection()


class UnaryUnaryCall(_OneResponse, _UnaryUnaryCall):
    """A call with one request and one response."""


class UnaryStreamCall(_ManyResponses, _UnaryStreamCall):
    """A call with one request and a stream of responses."""


class StreamUnaryCall(_ManyRequests, _OneResponse, _StreamUnaryCall):
    """A call with a stream of requests and one response."""


class StreamStreamCall(_ManyRequests, _ManyResponses, _StreamStreamCall):
    """A call with a stream of requests and a stream of responses."""


SHELLS: dict[str, type[Shell]] = {
    "unary_unary": UnaryUnaryCall,
    "unary_stream": UnaryStreamCall,
    "stream_unary": StreamUnaryCall,
    "stream_stream": StreamStreamCall,
}
"""By the names of the makers of multicallables."""
