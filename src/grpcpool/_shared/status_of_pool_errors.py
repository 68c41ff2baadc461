"""The gRPC status of a call that failed because of the pool."""

from __future__ import annotations

import grpc

from .._values.errors import PoolClosedError, PoolError, PoolOpenError, PoolTimeoutError, brief


def status_of_pool_error(error: PoolError, *, own_deadline: bool) -> tuple[grpc.StatusCode, str]:
    """The code and details of a call that failed because of `error`; `own_deadline`: the call came with a timeout."""
    match error:
        case PoolTimeoutError() if own_deadline:
            return grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"
        case PoolOpenError():
            reason = brief(error.__cause__) if error.__cause__ is not None else str(error)
            return grpc.StatusCode.UNAVAILABLE, reason
        case PoolClosedError():
            return grpc.StatusCode.CANCELLED, "Channel closed!"
        case _:
            return grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)
