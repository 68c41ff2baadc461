"""The errors of a pool, and their messages.

Every message has the pool's name, its numbers at that moment, and the remedy. If a connection failed to open, the last
connect error is the ``__cause__``. As text, each error is one line: what a server said in it is escaped.

Not here: `grpc.RpcError`, in which the channel surface wraps these errors for callers that only know gRPC.
"""

from __future__ import annotations

import dataclasses
import enum

from .plain_text import plain


class PoolError(Exception):
    """An error of the pool, not of the server."""

    def __str__(self) -> str:
        """The message in one line: control characters are escaped, for a server may have sent them."""
        return plain(super().__str__())


class PoolClosedError(PoolError):
    """The pool is closed, or was closed while the caller waited."""


class PoolTimeoutError(PoolError, TimeoutError):
    """No place became free within the timeout."""


class PoolExhaustedError(PoolError):
    """The queue is full: as many callers wait as `PoolConfig.max_waiters` allows."""


class PoolOpenError(PoolError):
    """A connection failed to open; the `__cause__` says why."""


class LeaseReleasedError(PoolError):
    """A lease was used after its release."""


class WrongEventLoopError(PoolError):
    """An asyncio pool was used on another event loop than the one it is bound to."""


class PoolForkedError(PoolError):
    """A lease, or an asyncio pool, was used in a forked child; its connections are the parent's."""


class ConnectError(ConnectionError):
    """A connection failed to open; the text says why, with gRPC's own message if there is one.

    It is the ``__cause__`` of one of the errors above.
    """

    def __str__(self) -> str:
        """The text in one line, as for `PoolError`."""
        return plain(super().__str__())


class Refusal(enum.Enum):
    """Why a waiter got no place; the value is the error to raise."""

    TIMEOUT = PoolTimeoutError
    EXHAUSTED = PoolExhaustedError
    CLOSED = PoolClosedError
    OPEN_FAILED = PoolOpenError


@dataclasses.dataclass(frozen=True, slots=True)
class Figures:
    """The pool's numbers at the moment of an error, for its message."""

    open: int
    lost: int
    opening: int
    draining: int
    max_size: int
    in_flight: int
    waiting: int
    # Seconds that the caller waited; 0 if it was refused at once, and then not in the text.
    waited: float
    # Open connections that are leased as a whole.
    exclusive: int = 0
    # What was asked for, in the words of `describe_ask`; empty if nothing was.
    asked: str = ""

    def __str__(self) -> str:
        """Returns what was asked for and the numbers in one line."""
        asked = f"asked for {self.asked}; " if self.asked else ""
        waited = f", waited {self.waited:.3f} s" if round(self.waited, 3) else ""
        return f"{asked}{self.connections()}, {self.in_flight} in flight, {self.waiting} waiting{waited}"

    def connections(self) -> str:
        """Returns the numbers of connections."""
        opening = f", {self.opening} opening" if self.opening else ""
        draining = f", {self.draining} draining" if self.draining else ""
        lost = f" ({self.lost} of them down)" if self.lost else ""
        return f"{self.open} of {self.max_size} connections open{lost}{opening}{draining}"


_MESSAGES = {
    Refusal.TIMEOUT: (
        "timed out waiting for a place",
        "release leases sooner, raise max_size or max_streams, or wait longer",
    ),
    Refusal.EXHAUSTED: (
        "the queue is full",
        "shed load, or raise max_size, max_streams or max_waiters",
    ),
    Refusal.CLOSED: (
        "the pool is closed",
        "create a new pool; a closed one cannot be reopened",
    ),
    Refusal.OPEN_FAILED: (
        "no connection could be opened",
        "see the cause, check the target and its credentials",
    ),
}


_WHOLE = "a whole connection"

# What to do if none is up, and none has failed to open yet.
_NOT_YET = "no connection is up yet: call open() before, wait longer, or check the target"

# What to do if each connection is leased as a whole.
_ALL_LEASED = "release leases sooner, raise max_size, or wait longer"

# What to do if there are connections, but none with the room that was asked for.
_WITHOUT_ROOM = {
    _WHOLE: "none became free of calls; use a pool of its own for exclusive leases, or ask for streams",
}


def describe_ask(streams: int | None, *, is_call: bool) -> str:
    """Returns in words what is asked for: so many streams of a connection, or (`None`) all of it."""
    if is_call:
        return "a call"
    if streams is None:
        return _WHOLE
    return "one stream" if streams == 1 else f"{streams} streams of one connection"


def brief(error: BaseException) -> str:
    """Returns the error's text; for a `grpc.RpcError` its details as the server sent them, which may not be plain.

    A text of one word gets the error's type: that of a `KeyError` is no more than the missing key.
    """
    name = type(error).__name__
    try:
        details = getattr(error, "details", None)
        text = str((details() if callable(details) else None) or error)
    except Exception:  # noqa: BLE001 -- `details` and `str` of a foreign error may raise
        return name
    if not text:
        return name
    is_clear = " " in text or callable(details) or isinstance(error, ConnectError | PoolError)
    return text if is_clear else f"{name}: {text}"


def refusal_error(pool: str, refusal: Refusal, figures: Figures, cause: BaseException | None) -> PoolError:
    """Returns the error for a refused waiter, with `cause` as its ``__cause__``."""
    what, remedy = _MESSAGES[refusal]
    if refusal is Refusal.CLOSED:
        figures = dataclasses.replace(figures, asked="")
    if refusal is Refusal.TIMEOUT:
        is_leased = figures.exclusive >= figures.open
        remedy = _ALL_LEASED if is_leased else _WITHOUT_ROOM.get(figures.asked, remedy)
    last_error = ""
    if cause is not None and refusal is not Refusal.CLOSED:
        last_error = f"; last connect error: {brief(cause)}"
    if figures.open == figures.lost and refusal in (Refusal.TIMEOUT, Refusal.EXHAUSTED):
        remedy = _MESSAGES[Refusal.OPEN_FAILED][1] if cause is not None or figures.lost else _NOT_YET
    if cause is None:
        remedy = remedy.removeprefix("see the cause, ")
    error: PoolError = refusal.value(f"pool {pool!r}: {what} ({figures}){last_error}; {remedy}")
    error.__cause__ = cause
    return error
