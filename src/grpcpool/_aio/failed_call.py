"""The call that replaces gRPC's own where one was never started: over from the beginning, with a code and details."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, NoReturn, final

import grpc

from .._shared.status_of_pool_errors import status_of_pool_error
from .._values.errors import PoolError
from .._values.plain_text import plain

_LOCALLY_CANCELLED = "Locally cancelled by application!"


class CallNotStartedError(grpc.aio.AioRpcError):
    """The error of a call that never left the pool: gRPC's own, but what a server sent is escaped in its text."""

    def __str__(self) -> str:
        """In gRPC's own form."""
        return (
            f"<{type(self).__name__} of RPC that terminated with:\n"
            f"\tstatus = {self.code()}\n"
            f'\tdetails = "{plain(self.details() or "")}"\n'
            f'\tdebug_error_string = "{plain(self.debug_error_string() or "")}"\n'
            ">"
        )

    __repr__ = __str__


@final
class Failed:
    """The stage of a call, of any kind, that is over and was never started. It serves in place of a native call.

    It behaves as gRPC's own calls that are over. The errors that it raises have the pool's error as ``__cause__``.
    """

    __slots__ = ("_cause", "_code", "_deadline", "_details", "_monotonic", "_raises")

    over = True
    _done_writing_flag = True

    def __init__(
        self,
        code: grpc.StatusCode,
        details: str,
        cause: BaseException | None,
        *,
        raises: BaseException | type[BaseException] | None = None,
    ) -> None:
        """With gRPC's status `code` and `details`; `raises`: what awaiting it raises instead of a `grpc.RpcError`."""
        self._code = code
        self._details = details
        self._cause = cause
        self._raises = raises
        self._deadline: float | None = None
        self._monotonic = time.monotonic

    @property
    def native(self) -> Any:
        """Itself."""
        return self

    def ends_at(self, deadline: float | None, monotonic: Callable[[], float]) -> None:
        """Sets the call's own deadline, if any, for `time_remaining`: gRPC's calls report that after their end, too."""
        self._deadline = deadline
        self._monotonic = monotonic

    async def _raise(self) -> NoReturn:
        """Raises what awaiting the call raises: a new error each time, as gRPC does, or what foreign code raised."""
        if self._raises is not None:
            raise self._raises
        empty = grpc.aio.Metadata()
        said = str(self._cause or self._details)
        raise CallNotStartedError(self._code, empty, empty, self._details, said) from self._cause

    def __await__(self) -> Generator[Any, None, Any]:
        return self._raise().__await__()

    async def __aiter__(self) -> AsyncIterator[Any]:
        # A generator, as gRPC's: it raises once, and is over then.
        yield await self._raise()

    async def read(self) -> Any:
        await self._raise()

    async def write(self, request: Any) -> None:  # noqa: ARG002 -- gRPC's
        raise asyncio.InvalidStateError("RPC already finished.")

    async def done_writing(self) -> None:
        pass

    async def wait_for_connection(self) -> None:
        await self._raise()

    def cancelled(self) -> bool:
        return self._code is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        return True

    def cancel(self) -> bool:
        return False

    def time_remaining(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - self._monotonic())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        callback(self)

    async def initial_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata()

    async def code(self) -> grpc.StatusCode:
        return self._code

    async def details(self) -> str:
        return self._details

    async def debug_error_string(self) -> str | None:
        return None if self._raises is not None else str(self._cause or self._details)

    def __repr__(self) -> str:
        return f'<Call that was never started:\n\tstatus = {self._code}\n\tdetails = "{plain(self._details)}"\n>'


def locally_cancelled() -> Failed:
    """The stage of a call that was cancelled while it waited."""
    return Failed(grpc.StatusCode.CANCELLED, _LOCALLY_CANCELLED, None, raises=asyncio.CancelledError)


def failed_by(error: PoolError, *, own_deadline: bool) -> Failed:
    """The stage of a call that fails because of the pool's `error`; `own_deadline`: the call has a timeout."""
    code, details = status_of_pool_error(error, own_deadline=own_deadline)
    return Failed(code, details, error)
