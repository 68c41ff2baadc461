"""The four kinds of multicallable that leases and pools return.

A multicallable knows gRPC's signatures and nothing else. Its `Caller`, of a lease (`lease.py`) or a pool (`caller.py`),
chooses the connection, and follows the call from beginning to end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from .arguments import Caller

if TYPE_CHECKING:
    # gRPC's classes take no type parameters at run time. The messages are the user's.
    _UnaryUnary = grpc.UnaryUnaryMultiCallable[Any, Any]
    _UnaryStream = grpc.UnaryStreamMultiCallable[Any, Any]
    _StreamUnary = grpc.StreamUnaryMultiCallable[Any, Any]
    _StreamStream = grpc.StreamStreamMultiCallable[Any, Any]
else:
    _UnaryUnary = grpc.UnaryUnaryMultiCallable
    _UnaryStream = grpc.UnaryStreamMultiCallable
    _StreamUnary = grpc.StreamUnaryMultiCallable
    _StreamStream = grpc.StreamStreamMultiCallable


class Multicallable:
    """What the four kinds share."""

    def __init__(self, caller: Caller, registered: Any = None) -> None:
        """Makes its calls through `caller`; gRPC reads whether the method is `registered`."""
        self._caller = caller
        self._registered_call_handle = registered or None

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
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._caller.block("__call__", request, timeout, metadata, credentials, wait_for_ready, compression)

    def with_call(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._caller.block("with_call", request, timeout, metadata, credentials, wait_for_ready, compression)

    def future(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        arguments = (request, timeout, metadata, credentials, wait_for_ready, compression)
        return self._caller.begin("future", arguments)


class UnaryStream(Multicallable, _UnaryStream):
    """Unary request, stream of responses."""

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        arguments = (request, timeout, metadata, credentials, wait_for_ready, compression)
        return self._caller.begin("__call__", arguments)


class StreamUnary(Multicallable, _StreamUnary):
    """Stream of requests, unary response."""

    def __call__(
        self,
        request_iterator: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._caller.block(
            "__call__", request_iterator, timeout, metadata, credentials, wait_for_ready, compression
        )

    def with_call(
        self,
        request_iterator: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._caller.block(
            "with_call", request_iterator, timeout, metadata, credentials, wait_for_ready, compression
        )

    def future(
        self,
        request_iterator: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        arguments = (request_iterator, timeout, metadata, credentials, wait_for_ready, compression)
        return self._caller.begin("future", arguments)


class StreamStream(Multicallable, _StreamStream):
    """Stream of requests, stream of responses."""

    def __call__(
        self,
        request_iterator: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        arguments = (request_iterator, timeout, metadata, credentials, wait_for_ready, compression)
        return self._caller.begin("__call__", arguments)
