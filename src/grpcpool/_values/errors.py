"""The errors of a pool, and the sentences in which they say why.

Every message carries the pool's name, the figures of the moment and the remedy. Where a connection could not be
made, the last connect error is the ``__cause__``.

Not here: `grpc.RpcError`, in which the channel surface dresses these errors for callers who only know gRPC.
"""

from __future__ import annotations

import dataclasses
import enum


class PoolError(Exception):
    """Something that the pool, not the server, has to say."""


class PoolClosedError(PoolError):
    """The pool is closed, or was closed while the caller waited."""


class PoolTimeoutError(PoolError, TimeoutError):
    """No place came free within the time given."""


class PoolExhaustedError(PoolError):
    """So many wait already (`PoolConfig.max_waiters`) that the pool takes no further waiter."""


class PoolOpenError(PoolError):
    """A connection could not be made; the `__cause__` says why."""


class LeaseReleasedError(PoolError):
    """A lease was used after it had been given back."""


class WrongEventLoopError(PoolError):
    """An asyncio pool was used from another event loop than the one it is bound to."""


class PoolForkedError(PoolError):
    """A lease, or an asyncio pool, was used in a forked child; its connections are the parent's."""


class ConnectError(ConnectionError):
    """A connection could not be made; the text says why, in gRPC's words where it has any.

    Callers find it as the ``__cause__`` of one of the errors above.
    """


class Refusal(enum.Enum):
    """Why a waiter goes without; each has its error."""

    TIMEOUT = PoolTimeoutError
    EXHAUSTED = PoolExhaustedError
    CLOSED = PoolClosedError
    OPEN_FAILED = PoolOpenError


@dataclasses.dataclass(frozen=True, slots=True)
class Figures:
    """The pool at the moment of a refusal, as an error tells it."""

    open: int
    lost: int
    opening: int
    draining: int
    max_size: int
    in_flight: int
    waiting: int
    waited: float

    def __str__(self) -> str:
        """The figures in one line."""
        return f"{self.connections()}, {self.in_flight} in flight, {self.waiting} waiting, waited {self.waited:.3f} s"

    def connections(self) -> str:
        """What there is of connections."""
        opening = f", {self.opening} opening" if self.opening else ""
        draining = f", {self.draining} draining" if self.draining else ""
        lost = f" ({self.lost} of them down)" if self.lost else ""
        return f"{self.open} of {self.max_size} connections open{lost}{opening}{draining}"


_SAYS = {
    Refusal.TIMEOUT: (
        "no place came free in time",
        "release leases sooner, raise max_size or max_streams, or allow more time",
    ),
    Refusal.EXHAUSTED: (
        "too many are waiting already",
        "shed load, or raise max_size, max_streams or max_waiters",
    ),
    Refusal.CLOSED: (
        "the pool is closed",
        "make a new pool, or close this one later",
    ),
    Refusal.OPEN_FAILED: (
        "no connection could be made",
        "see the cause, check the target and its credentials",
    ),
}


def brief(error: BaseException) -> str:
    """The error in one line: a `grpc.RpcError` by its details, which its `str` buries among others."""
    try:
        details = getattr(error, "details", None)
        said = details() if callable(details) else None
        return str(said or error) or type(error).__name__
    except Exception:  # noqa: BLE001 -- a foreign error may fail even at saying what it is
        return type(error).__name__


def refusal_error(pool: str, refusal: Refusal, figures: Figures, cause: BaseException | None) -> PoolError:
    """Makes the error for a refused waiter, with `cause` as its ``__cause__``."""
    what, remedy = _SAYS[refusal]
    because = ""
    if cause is not None and refusal is not Refusal.CLOSED:
        because = f"; last connect error: {brief(cause)}"
    if figures.open == figures.lost and refusal is Refusal.TIMEOUT and (cause is not None or figures.lost):
        remedy = _SAYS[Refusal.OPEN_FAILED][1]
    if cause is None:
        remedy = remedy.removeprefix("see the cause, ")
    error: PoolError = refusal.value(f"pool {pool!r}: {what} ({figures}){because}; {remedy}")
    error.__cause__ = cause
    return error
