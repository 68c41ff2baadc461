"""Interceptors of a pool or a lease: applied once a call, before a connection is chosen for it.

gRPC applies a channel's interceptors to calls on that channel. Those of a pool stand before the choice of a channel:
one that calls twice is given two places, and one that sleeps holds none. So the chain is run
(by `interceptor_chain`) with one more interceptor at its end that goes on to the pool instead of to a channel.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from .._grpc.aio_calls import is_over
from .._grpc.interceptor_chain import chain_of
from .arguments import as_metadata, check_compression

if TYPE_CHECKING:
    from .._shared.arguments import Arguments
    from .._shared.methods import Method
    from .arguments import Caller


class _Last(
    grpc.aio.UnaryUnaryClientInterceptor,
    grpc.aio.UnaryStreamClientInterceptor,
    grpc.aio.StreamUnaryClientInterceptor,
    grpc.aio.StreamStreamClientInterceptor,
):
    """Ends the chain of one call."""

    def __init__(self, caller: Caller, method: Method, compression: Any, *, goes_on: bool, is_written: bool) -> None:
        self._caller = caller
        self._method = method
        self._compression = compression
        self._goes_on = goes_on
        # Whether the requests are written, and there is one response; and the calls to which they are.
        self._is_written = is_written and method.kind == "stream_unary"
        self._written: list[weakref.ref[Any]] = []
        self._chain: asyncio.Task[Any] | None = None
        # The calls that the interceptors began. A stream they hold themselves, if they need it.
        self._begun: list[tuple[Callable[[], Any], weakref.ref[asyncio.Task[Any]] | None]] = []

    async def _go_on(self, _: Any, client_call_details: Any, request: Any) -> Any:
        details = client_call_details
        method = details.method
        name = method.decode() if isinstance(method, bytes) else method
        caller = self._caller if name == self._method.arguments[0] else self._caller.of_other_method(name)
        how = (details.timeout, details.metadata, details.credentials, details.wait_for_ready)
        call = caller.begin((request, *how, self._compression), self if self._goes_on else None)
        if self._is_written:
            call._mark_written()
            self._written.append(weakref.ref(call))
        task = asyncio.current_task()
        # Begun by the chain itself, also at once when it was created; else by a task of an interceptor's.
        own = self._chain is None or task is self._chain
        held = partial(_same, call) if call._ends_unread else weakref.ref(call)
        # Those that are over need not be cancelled: an interceptor may make thousands.
        self._begun = [(held, task) for held, task in self._begun if _runs(held())]
        self._begun.append((held, None if own or task is None else weakref.ref(task)))
        return call

    def follow(self, chain: asyncio.Task[Any]) -> None:
        """The task runs the interceptors."""
        self._chain = chain
        chain.add_done_callback(self._chain_ended)

    def _chain_ended(self, chain: asyncio.Task[Any]) -> None:
        """The interceptors are done. If they were cancelled, so is what they began, which nothing else would end."""
        begun, self._begun = self._begun, []
        self._chain, self._goes_on = None, False
        if chain.cancelled():
            for call, task in begun:
                # One that a running task has begun goes on with that: others may wait for it.
                if task is None or (other := task()) is None or other.done():
                    _cancel(call())
        else:
            # Otherwise asyncio reports what it raised as unseen if the call is dropped. GRPC's own call prevents that.
            chain.exception()
        self._caller.end_chain()

    def mark_complete(self) -> None:
        """The last request has been written."""
        for reference in self._written:
            call = reference()
            if call is not None:
                call._mark_complete()

    intercept_unary_unary: Any = _go_on
    intercept_unary_stream: Any = _go_on
    intercept_stream_unary: Any = _go_on
    intercept_stream_stream: Any = _go_on


def _same(call: Any) -> Any:
    return call


def _runs(call: Any) -> bool:
    return call is not None and not is_over(call)


def _cancel(call: Any) -> None:
    if call is not None:
        call.cancel()


def intercepted(interceptors: Sequence[Any], caller: Caller, method: Method, arguments: Arguments) -> Any:
    """Begins a call that goes through `interceptors`, and then on by way of `caller`."""
    request, timeout, metadata, credentials, wait_for_ready, compression = arguments
    caller.driver.enter()
    # Interceptors may add to it.
    metadata = as_metadata(metadata)
    check_compression(compression)
    name, serializer, deserializer, _ = method.arguments
    goes_on = caller.begin_chain()
    last = _Last(caller, method, compression, goes_on=goes_on, is_written=request is None)
    try:
        call = chain_of(method.kind)(
            [*interceptors, last],
            request,
            timeout,
            metadata,
            credentials,
            wait_for_ready,
            None,
            name.encode() if isinstance(name, str) else name,
            serializer,
            deserializer,
            caller.driver.loop,
        )
    except BaseException:
        caller.end_chain()
        raise
    last.follow(call.chain)
    call._when_complete = last.mark_complete
    if goes_on:
        caller.watch_chain(call.chain)
    return call


_KINDS = (
    (grpc.aio.UnaryUnaryClientInterceptor, "_unary_unary_interceptors"),
    (grpc.aio.UnaryStreamClientInterceptor, "_unary_stream_interceptors"),
    (grpc.aio.StreamUnaryClientInterceptor, "_stream_unary_interceptors"),
    (grpc.aio.StreamStreamClientInterceptor, "_stream_stream_interceptors"),
)


def interceptors_of(channel: Any) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    """The interceptors of a channel, with the names of the lists that they are in."""
    found = ((attribute, tuple(getattr(channel, attribute))) for _, attribute in _KINDS)
    return tuple((attribute, group) for attribute, group in found if group)


def add_interceptors(channel: Any, interceptors: Sequence[Any]) -> None:
    """Adds each interceptor to the channel's list of its kind; one of several kinds to the first, as gRPC does.

    Raises:
        ValueError: It is of no kind; in gRPC's words.
    """
    for interceptor in interceptors:
        for kind, attribute in _KINDS:
            if isinstance(interceptor, kind):
                getattr(channel, attribute).append(interceptor)
                break
        else:
            names = " or ".join(kind.__name__ for kind, _ in _KINDS)
            raise ValueError(f"Interceptor {interceptor} must be {names}. ")
