"""How the message of a cancellation reaches the task that awaits a call.

gRPC cancels the task that sends the request of a unary call instead of the one that awaits the call, which then gets a
`CancelledError` without a message. By the message anyio recognises the cancellations of its own scopes. The other kinds
of call pass the error on.

Such a call handles the cancellation by its own `cancel`. That of a subclass, `KeepingCall`, finds the message there,
which costs other calls nothing.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import types
from collections.abc import Awaitable, Generator
from typing import Any, Final

from .aio_calls import sending_of


def _class(name: str) -> Any:
    """GRPC's own class of calls; `None` if it is not there: then `keeping_message` serves, which costs more."""
    try:
        return getattr(importlib.import_module("grpc.aio._call"), name)
    except (ImportError, AttributeError):
        return None


def _keeping(losing: Any) -> Any:
    if losing is None:
        return None

    class KeepingCall(losing):  # type: ignore[misc]
        """GRPC's own call, which keeps the message of a cancellation that it handles."""

        __module__ = losing.__module__
        message: Any = None

        def cancel(self) -> bool:
            error = sys.exception()
            # Its user may call this while handling another cancellation.
            if isinstance(error, asyncio.CancelledError) and error.args and asyncio.current_task() is sending_of(self):
                self.message = error.args[0]
            return bool(super().cancel())

    return KeepingCall


KEEPS_MESSAGE: Final = _keeping(_class("UnaryUnaryCall"))
"""A subclass of gRPC's unary calls that keep the message of a cancellation; `None` if there is no such class."""

NEED_NO_HELP: Final = frozenset([KEEPS_MESSAGE, _class("StreamUnaryCall")])
"""Calls with one response that may be awaited without `keeping_message`."""


def restore_kept(error: BaseException, call: Any) -> None:
    """Gives an error that awaiting `call` has raised the message that the call has kept, if it has; once."""
    if type(call) is KEEPS_MESSAGE and call.message is not None:
        restore_message(error, call.message)
        if error.args == (call.message,):
            call.message = None


def restore_message(error: BaseException, message: Any) -> None:
    """Gives the error the message, if it is the cancellation of the current task, and has none."""
    if message is None or error.args or not isinstance(error, asyncio.CancelledError):
        return
    task = asyncio.current_task()
    # A call that a task cancels is cancelled for the other tasks that await it as well.
    if task is not None and task.cancelling():
        error.args = (message,)


class _Wait:
    """Stands for a future in the eyes of the task that waits for it, and notes the message of a cancellation.

    It has what tasks use of futures of other implementations, see `asyncio.isfuture`. There is one for each wait.
    """

    # Asyncio's own: whether a task was asked to wait for it, as the ``__await__`` of a future does.
    _asyncio_future_blocking = True

    def __init__(self, future: Any) -> None:
        future._asyncio_future_blocking = False
        self._future = future
        self.get_loop = future.get_loop
        self.add_done_callback = future.add_done_callback
        self.message: Any = None

    def cancel(self, msg: Any = None) -> bool:
        """As of the future."""
        self.message = msg
        return bool(self._future.cancel(msg=msg))


@types.coroutine
def keeping_message(work: Awaitable[Any]) -> Generator[Any, None, Any]:
    """Awaits `work`; if the task is cancelled meanwhile, the error has the message, whatever `work` makes of it."""
    future: Any = None
    wait: _Wait | None = None
    steps: Any = work.__await__()
    try:
        future = steps.send(None)
        while True:
            # `None` stands for a turn of the loop.
            wait = None if future is None else _Wait(future)
            try:
                yield wait
            except BaseException as error:  # noqa: BLE001 -- it is for the work
                future = steps.throw(error)
            else:
                future = steps.send(None)
    except StopIteration as stop:
        return stop.value
    except asyncio.CancelledError as error:
        if wait is not None:
            restore_message(error, wait.message)
        raise
    finally:
        # The traceback of an error holds this frame, and a failed future its error: without this they were a cycle,
        # which held the call and what it answered until the garbage collector ran.
        future = wait = None
