"""The four kinds of multicallable that leases and pools return.

A multicallable knows gRPC's signatures, and the interceptors of its pool or lease. Its `Caller`, of a lease
(`lease.py`) or a pool (`caller.py`), chooses the connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from .arguments import Caller
from .interceptors import intercepted

if TYPE_CHECKING:
    from .._shared.methods import Method

    # gRPC's classes take no type parameters at run time. The messages are the user's.
    _UnaryUnary = grpc.aio.UnaryUnaryMultiCallable[Any, Any]
    _UnaryStream = grpc.aio.UnaryStreamMultiCallable[Any, Any]
    _StreamUnary = grpc.aio.StreamUnaryMultiCallable[Any, Any]
    _StreamStream = grpc.aio.StreamStreamMultiCallable[Any, Any]
else:
    _UnaryUnary = grpc.aio.UnaryUnaryMultiCallable
    _UnaryStream = grpc.aio.UnaryStreamMultiCallable
    _StreamUnary = grpc.aio.StreamUnaryMultiCallable
    _StreamStream = grpc.aio.StreamStreamMultiCallable


class Multicallable:
    """What the four kinds share."""

    def __init__(self, caller: Caller, method: Method, interceptors: list[Any]) -> None:
        """Calls `method` through `caller`; `interceptors` may grow later."""
        self._caller = caller
        self._method = method
        self._interceptors = interceptors

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles its channel, and what it was made with."""
        channel, method = self._caller.origin()
        return _made, (channel, method.kind, method.arguments)


def _made(channel: Any, kind: str, arguments: tuple[Any, ...]) -> Any:
    return getattr(channel, kind)(*arguments)


class UnaryUnary(Multicallable, _UnaryUnary):
    """Unary request, unary response."""

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        arguments = (request, timeout, metadata, credentials, wait_for_ready, compression)
        if self._interceptors:
            return intercepted(self._interceptors, self._caller, self._method, arguments)
        return self._caller.begin(arguments)


class UnaryStream(Multicallable, _UnaryStream):
    """Unary request, stream of responses."""

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        arguments = (request, timeout, metadata, credentials, wait_for_ready, compression)
        if self._interceptors:
            return intercepted(self._interceptors, self._caller, self._method, arguments)
        return self._caller.begin(arguments)


class StreamUnary(Multicallable, _StreamUnary):
    """Stream of requests, unary response."""

    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        arguments = (request_iterator, timeout, metadata, credentials, wait_for_ready, compression)
        if self._interceptors:
            return intercepted(self._interceptors, self._caller, self._method, arguments)
        call = self._caller.begin(arguments)
        if request_iterator is None:
            call._mark_written()
        return call


class StreamStream(Multicallable, _StreamStream):
    """Stream of requests, stream of responses."""

    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        arguments = (request_iterator, timeout, metadata, credentials, wait_for_ready, compression)
        if self._interceptors:
            return intercepted(self._interceptors, self._caller, self._method, arguments)
        return self._caller.begin(arguments)
