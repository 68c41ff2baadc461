"""How the pool's errors reach code that knows only gRPC: as a `grpc.RpcError`, like any other failure of a call."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from .._grpc.call_errors import with_grpcs_own
from .._shared.status_of_pool_errors import status_of_pool_error
from .._values.errors import PoolError
from .._values.plain_text import plain

if TYPE_CHECKING:

    class CallAndError(Exception):
        """A stand-in: to the type checker, gRPC's three bases contradict each other; at run time they do not."""
else:

    class CallAndError(grpc.RpcError, grpc.Call, grpc.Future):
        """An error, a call and a future, as gRPC's own are: interceptors that retry check for these types."""


class CallNotStartedError(CallAndError):
    """A call that never left the pool: an error, a call and a future, as the errors of gRPC's own calls are.

    The `__cause__` is the pool's error, with the figures.
    """

    def __init__(self, code: grpc.StatusCode, details: str, cause: BaseException | None) -> None:
        """With gRPC's status `code` and `details`; `cause` becomes the ``__cause__``."""
        Exception.__init__(self, code, details, cause)
        self._code = code
        self._details = details
        self.__cause__ = cause

    def code(self) -> grpc.StatusCode:
        """The status."""
        return self._code

    def details(self) -> str:
        """The reason."""
        return self._details

    def debug_error_string(self) -> str:
        """The text of the pool's error."""
        return str(self.__cause__ or self._details)

    def initial_metadata(self) -> tuple[()]:
        """Empty: the call was not sent."""
        return ()

    def trailing_metadata(self) -> tuple[()]:
        """Empty: the call was not sent."""
        return ()

    def is_active(self) -> bool:
        """Never."""
        return False

    def time_remaining(self) -> None:
        """None."""
        return

    def add_callback(self, callback: Callable[[], None]) -> bool:  # noqa: ARG002 -- gRPC's
        """The call is over already."""
        return False

    def cancel(self) -> bool:
        """Without effect: the call is over."""
        return False

    def cancelled(self) -> bool:
        """Whether the call was cancelled by the application."""
        return False

    def running(self) -> bool:
        """Never."""
        return False

    def done(self) -> bool:
        """Always."""
        return True

    def result(self, timeout: float | None = None) -> NoReturn:  # noqa: ARG002 -- gRPC's
        """Raises this error."""
        raise self

    def exception(self, timeout: float | None = None) -> CallNotStartedError:  # noqa: ARG002 -- gRPC's
        """This error."""
        return self

    def traceback(self, timeout: float | None = None) -> types.TracebackType | None:  # noqa: ARG002 -- gRPC's
        """Where it was raised."""
        return traceback_of(self)

    def add_done_callback(self, fn: Callable[[Any], None]) -> None:
        """Calls `fn` at once."""
        fn(self)

    def __str__(self) -> str:
        """In gRPC's own form, but what a server sent is escaped."""
        return (
            f"<{type(self).__name__} of RPC that terminated with:\n"
            f"\tstatus = {self._code}\n"
            f'\tdetails = "{plain(self._details)}"\n'
            f'\tdebug_error_string = "{plain(self.debug_error_string())}"\n'
            ">"
        )

    __repr__ = __str__

    def __reduce__(self) -> tuple[Callable[..., CallNotStartedError], tuple[Any, ...]]:
        """Pickled as a call of `not_started`, because its class is not found by its name."""
        return not_started, self.args


def traceback_of(error: BaseException) -> types.TracebackType | None:
    """Where the error was raised: here, if it has not been raised yet. As gRPC's: no traceback would mean no error."""
    if error.__traceback__ is not None:
        return error.__traceback__
    try:
        raise error  # noqa: TRY301 -- to have a traceback
    except BaseException as raised:  # noqa: BLE001 -- it is the one that was given
        return raised.__traceback__
    finally:
        # The traceback holds this frame.
        del error


def not_started(code: grpc.StatusCode, details: str, cause: BaseException | None) -> CallNotStartedError:
    """The error of a call that never left the pool.

    It is also of the class that errors of gRPC's blocking calls are of, if there is one.
    """
    return with_grpcs_own(CallNotStartedError, code, details, cause)(code, details, cause)


def call_error(error: PoolError, *, own_deadline: bool) -> CallNotStartedError:
    """The error of a call that fails because of the pool's `error`; `own_deadline`: the call has a timeout."""
    return not_started(*status_of_pool_error(error, own_deadline=own_deadline), error)


def closed_before_start(cause: BaseException) -> CallNotStartedError:
    """The error of a call that had its place when the pool was closed, and had not begun."""
    return not_started(grpc.StatusCode.CANCELLED, "Channel closed!", cause)


def locally_cancelled() -> CallNotStartedError:
    """The error of a call that was cancelled while it waited."""
    return not_started(grpc.StatusCode.CANCELLED, "Locally cancelled by application!", None)
