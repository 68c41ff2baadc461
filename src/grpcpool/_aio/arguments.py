"""The arguments of a call, and what runs it."""

from __future__ import annotations

from typing import Any, Protocol

from .driver import AioDriver

Arguments = tuple[Any, float | None, Any, Any, bool | None, Any]
"""Request or request iterator, timeout, metadata, credentials, wait_for_ready, compression."""


def start(native: Any, arguments: Arguments) -> Any:
    """Starts a call with gRPC's own multicallable `native`."""
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

    def call(self, arguments: Arguments, chain: object = None) -> Any:
        """Begins a call and returns it; `chain`: what it goes on from, if that may go on, see `begin_chain`."""

    def begin_chain(self) -> bool:
        """An intercepted call begins; returns whether it may go on even if it is closed meanwhile."""

    def end_chain(self) -> None:
        """The interceptors of a call are done."""

    def of_other_method(self, name: str) -> Caller:
        """The caller for a method with another name, if an interceptor has changed it."""
