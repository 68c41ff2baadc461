"""What takes the arguments of a call, and runs it; and what is wrong with them, as gRPC reports it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import grpc

from .._shared.arguments import Arguments
from .._shared.methods import Method
from .driver import AioDriver


class Caller(Protocol):
    """Runs the calls of one method."""

    def origin(self) -> tuple[Any, Method]:
        """The channel that it was made by, and the method."""

    @property
    def driver(self) -> AioDriver:
        """The driver of its pool."""

    def begin(self, arguments: Arguments, chain: object = None) -> Any:
        """Begins a call and returns it; `chain`: what it goes on from, if that may go on, see `begin_chain`."""

    def begin_chain(self) -> bool:
        """An intercepted call begins; returns whether it may go on even if it is closed meanwhile."""

    def watch_chain(self, chain: asyncio.Task[Any]) -> None:
        """The task runs the interceptors of a call that may go on."""

    def end_chain(self) -> None:
        """The interceptors of a call are done."""

    def of_other_method(self, name: str) -> Caller:
        """The caller for a method with another name, if an interceptor has changed it."""


_METADATA = grpc.aio.Metadata
_COMPRESSIONS = frozenset(grpc.Compression)


def as_metadata(metadata: Any) -> Any:
    """Sequences as `grpc.aio.Metadata`, and a new one instead of one that is empty; anything else as it is, as in gRPC.

    Raises:
        ValueError: An entry is not a pair. In metadata that is not a sequence gRPC finds that later.
    """
    if not metadata:
        return _METADATA()
    if isinstance(metadata, _METADATA) or not isinstance(metadata, Sequence):
        return metadata
    return _METADATA.from_tuple(tuple(metadata))


def check_compression(compression: Any) -> None:
    """Raises what gRPC raises when the call is made.

    Raises:
        KeyError: It is not a `grpc.Compression`.
    """
    if compression and compression not in _COMPRESSIONS:
        raise KeyError(compression)


def read_again(metadata: Iterable[Any]) -> Iterable[Any]:
    """Metadata, read now, because it may be an iterator, or change. It can be read again.

    It is a sequence if it was `grpc.aio.Metadata` or a sequence: that decides when gRPC finds what is wrong with it.
    """
    read = tuple(metadata)
    return read if isinstance(metadata, _METADATA | Sequence) else dict(enumerate(read)).values()
