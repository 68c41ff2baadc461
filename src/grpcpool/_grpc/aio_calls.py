"""What is private in gRPC's asyncio calls, and what those of others may leave out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

from .missing import warn_of_missing

_MODULE = "grpc.aio._call"
# The method of the call below that its task runs.
_AWAITS_STATUS = "_handle_status_once_received"


def is_grpcs_own(call: object) -> bool:
    """Whether the call is gRPC's own, not one that an interceptor or another make stands for."""
    return type(call).__module__ == _MODULE


def when_over(call: Any, callback: Callable[[], None]) -> None:
    """Calls `callback` when `call` is over.

    The `add_done_callback` of the call would make an object that holds the call; that of the call below makes none.
    """
    try:
        call._cython_call.add_done_callback(callback)
    except AttributeError:
        call.add_done_callback(partial(_call_without, callback))


def _call_without(callback: Callable[[], None], call: object) -> None:  # noqa: ARG001 -- gRPC passes it
    callback()


def is_over(call: Any) -> bool:
    """Whether a call is over, or does not say: what gRPC makes of an interceptor's own answer may not."""
    try:
        return bool(call.done())
    except Exception:  # noqa: BLE001 -- as above
        return True


def is_being_read(call: Any) -> bool:
    """Whether a coroutine reads the responses of `call`, whose class reads them by a generator, as gRPC's own does not.

    Another that tries to read gets a `RuntimeError`, by which the call does not end.
    """
    if is_grpcs_own(call):
        return False
    with contextlib.suppress(Exception):
        # What an interceptor returned may raise anything.
        return bool(aiter(call).ag_running)
    return False


def sending_of(call: Any) -> asyncio.Task[Any] | None:
    """The task that sends the request of `call`; `None` if it has none, such as a call of another implementation."""
    sending: asyncio.Task[Any] | None = getattr(call, "_call_response", None) or getattr(call, "_preparation", None)
    if sending is None and is_grpcs_own(call):
        warn_of_missing("_preparation" if hasattr(call, "__aiter__") else "_call_response")
    return sending


def awaiting_status(loop: asyncio.AbstractEventLoop) -> list[asyncio.Task[Any]]:
    """GRPC's tasks that wait for the status of a stream. As long as one does, the connection is open."""
    coroutines = ((task, task.get_coro()) for task in asyncio.all_tasks(loop))
    return [task for task, coroutine in coroutines if getattr(coroutine, "__name__", None) == _AWAITS_STATUS]


def has_done_writing(call: Any) -> bool:
    """Whether `done_writing` was called; `False` if the call does not show it."""
    return bool(getattr(call, "_done_writing_flag", False))
