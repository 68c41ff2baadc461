"""What stands for gRPC's call where a call was never started: over from the beginning, with a code and details."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, NoReturn

import grpc

from .._shared.rpc_status import status_of
from .._values.errors import PoolError

_LOCALLY_CANCELLED = "Locally cancelled by application!"


class FailedCall:
    """A call of any kind that never left the pool.

    It behaves as gRPC's own calls do that are over. The errors that it raises have the pool's error as ``__cause__``.
    """

    _done_writing_flag = True
    _deadline: float | None = None
    _monotonic: Callable[[], float]

    def __init__(
        self,
        code: grpc.StatusCode,
        details: str,
        cause: BaseException | None,
        *,
        raises: BaseException | type[BaseException] | None = None,
    ) -> None:
        """With gRPC's status `code` and `details`; `raises`: what awaiting it raises, if no `grpc.RpcError`."""
        self._code = code
        self._details = details
        self._cause = cause
        self._raises = raises

    def ends_at(self, deadline: float | None, monotonic: Callable[[], float]) -> None:
        """Notes the deadline that the call came with, if any, and by which clock: gRPC's calls tell it to the last."""
        self._deadline = deadline
        self._monotonic = monotonic

    async def _raise(self) -> NoReturn:
        """Raises what awaiting the call raises: a new error each time, as gRPC does."""
        if self._raises is not None:
            raise self._raises
        empty = grpc.aio.Metadata()
        said = str(self._cause or self._details)
        raise grpc.aio.AioRpcError(self._code, empty, empty, self._details, said) from self._cause

    def __await__(self) -> Generator[Any, None, Any]:
        return self._raise().__await__()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        await self._raise()

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
        return f'<Call that was never started:\n\tstatus = {self._code}\n\tdetails = "{self._details}"\n>'


def locally_cancelled() -> FailedCall:
    """What a call becomes that its caller cancels while it waits."""
    return FailedCall(grpc.StatusCode.CANCELLED, _LOCALLY_CANCELLED, None, raises=asyncio.CancelledError)


def failed_by(error: PoolError, *, own_deadline: bool) -> FailedCall:
    """What a call becomes because of the pool's `error`; `own_deadline`: the call came with a timeout."""
    code, details = status_of(error, own_deadline=own_deadline)
    return FailedCall(code, details, error)
