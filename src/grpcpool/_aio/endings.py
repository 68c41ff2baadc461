"""How calls end: one that is dropped, one that cannot be sent, and what is called then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from .._grpc.aio_calls import is_over, sending_of
from .call_stages import Running, Waiting
from .failed_call import locally_cancelled

if TYPE_CHECKING:
    from .driver import AioDriver


def drop(driver: AioDriver, stage: Waiting | Running, callbacks: list[Callable[[Any], None]] | None) -> None:
    """Ends a call that was dropped in this stage. On the loop, also if the garbage collector ran on another thread."""
    if isinstance(stage, Waiting):
        driver.withdraw(stage)
        stage.left()
        native = locally_cancelled()
    else:
        native = stage.native
        if is_over(native):
            stage.ended()
        else:
            native.cancel()
        stage.drop()
    if callbacks is not None:
        call_all(callbacks, native, driver.loop)


def end_unheld(running: Running, heir: Any) -> None:
    """Ensures that a dropped call which goes on is held, and ends. On the loop, as `drop`."""
    if running.runs():
        running.keep(heir)
        end_if_not_sent(running.native)


def end_if_not_sent(native: Any) -> None:
    """Ends a call whose request gRPC cannot send, because such a call may not be awaited and would never end."""
    sending = sending_of(native)
    # One that is over may be asked in another loop than its own.
    if sending is not None and not native.done():
        sending.add_done_callback(partial(_cancel_if_not_sent, native))


def call_all(callbacks: Iterable[Callable[[Any], None]], call: Any, loop: asyncio.AbstractEventLoop) -> None:
    """Calls each of the done callbacks, whatever they raise."""
    for callback in callbacks:
        try:
            callback(call)
        except (KeyboardInterrupt, SystemExit) as stop:
            loop.call_soon(_raise, stop)
        except BaseException as error:  # noqa: BLE001 -- a user's callback may raise anything
            loop.call_exception_handler({"message": "a done callback of a call failed", "exception": error})


def _raise(error: BaseException) -> None:
    raise error


def _cancel_if_not_sent(native: Any, sending: asyncio.Task[Any]) -> None:
    if not native.done() and (sending.cancelled() or sending.exception() is not None):
        native.cancel()
