"""What leases and pools share of being a `grpc.aio.Channel`: the four makers of multicallables, and interceptors."""

from __future__ import annotations

import abc
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import grpc

from .arguments import Caller
from .driver import AioDriver
from .multicallables import StreamStream, StreamUnary, UnaryStream, UnaryUnary

if TYPE_CHECKING:
    from .._shared.methods import Method

Codec = Callable[[Any], Any] | None


class ChannelSurface(grpc.aio.Channel):
    """Makes multicallables whose calls go by way of a `Caller`."""

    _driver: AioDriver
    # Channels of an unknown factory may take call credentials; whether they do shows when a call begins.
    _takes_call_credentials = True

    # Clients that Google generates append to these, as they do with gRPC's own channels.

    @cached_property
    def _unary_unary_interceptors(self) -> list[Any]:
        return self._inherited("_unary_unary_interceptors")

    @cached_property
    def _unary_stream_interceptors(self) -> list[Any]:
        return self._inherited("_unary_stream_interceptors")

    @cached_property
    def _stream_unary_interceptors(self) -> list[Any]:
        return self._inherited("_stream_unary_interceptors")

    @cached_property
    def _stream_stream_interceptors(self) -> list[Any]:
        return self._inherited("_stream_stream_interceptors")

    def _inherited(self, attribute: str) -> list[Any]:  # noqa: ARG002 -- see `Lease`
        """The interceptors that the channel has from the beginning."""
        return []

    @abc.abstractmethod
    def _caller(self, kind: str, *arguments: Any) -> tuple[Caller, Method]:
        """The caller for a method, and the method.

        Args:
            kind: The name of the maker: ``unary_unary``, ``unary_stream``, ``stream_unary`` or ``stream_stream``.
            arguments: The maker's: full name of the method, serializer, deserializer, and whether it is registered.
        """

    def unary_unary(
        self,
        method: str,
        request_serializer: Codec = None,
        response_deserializer: Codec = None,
        _registered_method: bool | None = False,
    ) -> UnaryUnary:
        """As `grpc.aio.Channel.unary_unary`."""
        made = self._caller("unary_unary", method, request_serializer, response_deserializer, _registered_method)
        return UnaryUnary(*made, self._unary_unary_interceptors)

    def unary_stream(
        self,
        method: str,
        request_serializer: Codec = None,
        response_deserializer: Codec = None,
        _registered_method: bool | None = False,
    ) -> UnaryStream:
        """As `grpc.aio.Channel.unary_stream`."""
        made = self._caller("unary_stream", method, request_serializer, response_deserializer, _registered_method)
        return UnaryStream(*made, self._unary_stream_interceptors)

    def stream_unary(
        self,
        method: str,
        request_serializer: Codec = None,
        response_deserializer: Codec = None,
        _registered_method: bool | None = False,
    ) -> StreamUnary:
        """As `grpc.aio.Channel.stream_unary`."""
        made = self._caller("stream_unary", method, request_serializer, response_deserializer, _registered_method)
        return StreamUnary(*made, self._stream_unary_interceptors)

    def stream_stream(
        self,
        method: str,
        request_serializer: Codec = None,
        response_deserializer: Codec = None,
        _registered_method: bool | None = False,
    ) -> StreamStream:
        """As `grpc.aio.Channel.stream_stream`."""
        made = self._caller("stream_stream", method, request_serializer, response_deserializer, _registered_method)
        return StreamStream(*made, self._stream_stream_interceptors)
