"""What a call is made with, and what runs it."""

from __future__ import annotations

from typing import Any, Protocol

from .driver import AioDriver

Arguments = tuple[Any, float | None, Any, Any, bool | None, Any]
"""Request or request iterator, timeout, metadata, credentials, wait_for_ready, compression."""


def start(native: Any, arguments: Arguments) -> Any:
    """Starts a call by gRPC's own multicallable `native`."""
    request, timeout, metadata, credentials, wait_for_ready, compression = arguments
    return native(
        request,
        timeout=timeout,
        metadata=metadata,
        credentials=credentials,
        wait_for_ready=wait_for_ready,
        compression=compression,
    )


class Caller(Protocol):
    """Runs the calls of one method."""

    @property
    def driver(self) -> AioDriver:
        """The driver of its pool."""

    def call(self, arguments: Arguments) -> Any:
        """Begins a call and returns it."""

    def of_other_method(self, name: str) -> Caller:
        """The caller for the same method under another name: an interceptor has changed it."""
