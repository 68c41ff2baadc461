"""What takes the arguments of a call and runs it, and what gRPC rejects before it looks for a connection.

A call that can never run must not wait for a place first. gRPC checks metadata, credentials and compression when it
starts a call. Here the same is checked, with the same texts, for calls that are not started at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

import grpc

from .._grpc.version import REFUSES_METADATA
from .._machine.slot import Slot
from .._shared.arguments import COMPRESSION, CREDENTIALS, METADATA, Arguments
from .._shared.methods import Method
from .driver import SyncDriver
from .failed_call import CallNotStartedError, not_started

Start = Callable[[SyncDriver, Slot, Arguments, int], Any]
"""Starts a native call on a slot of the driver's pool; the last is how often the call has been sent again so far."""


class Caller(Protocol):
    """Runs the calls of one method."""

    def origin(self) -> tuple[Any, Method]:
        """The channel that it was made by, and the method."""

    def block(
        self,
        how: str,
        request: Any,
        timeout: float | None,
        metadata: Any,
        credentials: grpc.CallCredentials | None,
        wait_for_ready: bool | None,
        compression: grpc.Compression | None,
        /,
    ) -> Any:
        """Runs a call until it is over; `how` names the method of gRPC's multicallable."""

    def begin(self, how: str, arguments: Arguments) -> Any:
        """Begins a call and returns its object."""


_COMPRESSIONS = dict.fromkeys(map(int, grpc.Compression))

# RFC 7540, 8.1.2, as gRPC applies it.
_KEY = re.compile(rb"[0-9a-z_.-]+")
_VALUE = re.compile(rb"[ -~]*")


def with_metadata_read(arguments: Arguments) -> Arguments:
    """The arguments, with metadata as a tuple: an iterator could not be read again, and a list could change."""
    request, timeout, metadata, credentials, wait_for_ready, compression = arguments
    if not metadata or isinstance(metadata, tuple):
        return arguments
    return request, timeout, tuple(metadata), credentials, wait_for_ready, compression


def failure_of(arguments: Arguments) -> CallNotStartedError | None:
    """The error of a call with invalid metadata (which has been read); `None` if it is valid.

    Raises:
        TypeError: It is not metadata, or other arguments are not what gRPC takes; with gRPC's text.
        ValueError: Likewise.
        AttributeError: Likewise, for credentials.
        KeyError: Likewise, for compression.
    """
    _check_compression(arguments[COMPRESSION])
    _check_credentials(arguments[CREDENTIALS])
    for key, value in arguments[METADATA] or ():
        name = _bytes(key)
        binary = name.endswith(b"-bin")
        if binary and not isinstance(value, bytes):
            raise TypeError(f'Binary metadata key="{key}" expected bytes, got {type(value)}')
        if not _KEY.fullmatch(name) or not (binary or _VALUE.fullmatch(_bytes(value))):
            if REFUSES_METADATA:
                raise ValueError(f"metadata was invalid: {arguments[METADATA]}")
            return not_started(grpc.StatusCode.INTERNAL, "Invalid metadata", None)
    return None


def _check_compression(compression: Any) -> None:
    # As gRPC looks it up: numbers do as well.
    if compression and compression not in _COMPRESSIONS:
        raise KeyError(compression)


def _check_credentials(credentials: Any) -> None:
    if credentials is None or isinstance(credentials, grpc.CallCredentials):
        return
    kind = type(credentials).__name__
    if isinstance(credentials, grpc.ChannelCredentials):
        raise TypeError(f"Argument 'credentials' has incorrect type (expected CallCredentials, got {kind})")
    raise AttributeError(f"{kind!r} object has no attribute '_credentials'")


def _bytes(text: Any) -> bytes:
    if text is None:
        return b""
    if isinstance(text, bytes):
        return text
    if isinstance(text, str):
        return text.encode()
    raise TypeError(f"Expected str, not {type(text)}")
