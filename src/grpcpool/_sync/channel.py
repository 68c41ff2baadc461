"""What leases and pools share as a `grpc.Channel`: the four makers of multicallables."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import grpc

from .arguments import Caller
from .driver import SyncDriver
from .multicallables import StreamStream, StreamUnary, UnaryStream, UnaryUnary

Codec = Callable[[Any], Any] | None


class ChannelSurface(grpc.Channel):
    """Creates multicallables that make their calls through a `Caller`."""

    _driver: SyncDriver
    # The class of those for the most frequent kind of call.
    _unary_unary: type[UnaryUnary] = UnaryUnary

    def _get_registered_call_handle(self, method: str) -> int:  # noqa: ARG002 -- gRPC's
        """For `grpc.experimental`, whose calls without a channel pass this on as ``_registered_method``."""
        return 1

    @abc.abstractmethod
    def _caller(self, kind: str, *arguments: Any) -> Caller:
        """The caller for a method.

        Args:
            kind: The name of the maker: ``unary_unary``, ``unary_stream``, ``stream_unary`` or ``stream_stream``.
            arguments: Full name of the method, serializer, deserializer, and whether the method is registered.
        """

    def unary_unary(
        self,
        method: str,
        request_serializer: Codec = None,
        response_deserializer: Codec = None,
        _registered_method: bool | None = False,
    ) -> UnaryUnary:
        """As `grpc.Channel.unary_unary`."""
        return self._unary_unary(
            self._caller("unary_unary", method, request_serializer, response_deserializer, _registered_method),
            _registered_method,
        )

    def unary_stream(
        self,
        method: str,
        request_serializer: Codec = None,
        response_deserializer: Codec = None,
        _registered_method: bool | None = False,
    ) -> UnaryStream:
        """As `grpc.Channel.unary_stream`."""
        return UnaryStream(
            self._caller("unary_stream", method, request_serializer, response_deserializer, _registered_method),
            _registered_method,
        )

    def stream_unary(
        self,
        method: str,
        request_serializer: Codec = None,
        response_deserializer: Codec = None,
        _registered_method: bool | None = False,
    ) -> StreamUnary:
        """As `grpc.Channel.stream_unary`."""
        return StreamUnary(
            self._caller("stream_unary", method, request_serializer, response_deserializer, _registered_method),
            _registered_method,
        )

    def stream_stream(
        self,
        method: str,
        request_serializer: Codec = None,
        response_deserializer: Codec = None,
        _registered_method: bool | None = False,
    ) -> StreamStream:
        """As `grpc.Channel.stream_stream`."""
        return StreamStream(
            self._caller("stream_stream", method, request_serializer, response_deserializer, _registered_method),
            _registered_method,
        )
