"""What is done when an event loop ends, while it still runs.

`asyncio.run`, and what others have in its place, cancel all tasks, and then have the loop close its asynchronous
generators. One of these does the work. A task could not: it would be cancelled as well.
"""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import _get_running_loop
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

from .._grpc.aio_calls import awaiting_status

# Turns of the loop within which the tasks of calls and interceptors end that are cancelled; and seconds within which
# gRPC reports that a call is.
_TURNS, _PATIENCE = 5, 1.0

LoopEnd = AsyncGenerator[None, None]
"""What has to be held until the loop ends."""


def at_end_of(loop: asyncio.AbstractEventLoop | None, work: Callable[[], Awaitable[object]]) -> LoopEnd | None:
    """Does `work` when the loop ends, if what this returns is held; also when it is passed to `end_now`.

    Returns:
        What has to be held; `None` if the loop does not run here, or is at its end.
    """
    if loop is None or loop.is_closed() or _get_running_loop() is not loop:
        return None
    if getattr(loop, "_asyncgens_shutdown_called", False):
        # asyncio would warn.
        return None
    end = _until_it_ends(work)
    with contextlib.suppress(StopIteration):
        # It comes to its `yield` at once.
        end.__anext__().send(None)
    return end


def end_now(end: LoopEnd) -> None:
    """Does the work now, which must have nothing to wait for. Does nothing if the loop is at its end."""
    if not end.ag_running:  # type: ignore[attr-defined]  # every generator has it
        with contextlib.suppress(StopIteration):
            end.aclose().send(None)


async def end_late(calls: Sequence[Any]) -> None:
    """The loop ends, and has cancelled all tasks: cancels calls that have begun since, and waits for their tasks."""
    if not calls:
        return
    for call in calls:
        with contextlib.suppress(Exception):
            # What an interceptor returned may raise anything.
            call.cancel()
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    if tasks := awaiting_status(asyncio.get_running_loop()):
        await asyncio.wait(tasks, timeout=_PATIENCE)


async def _until_it_ends(work: Callable[[], Awaitable[object]]) -> LoopEnd:
    try:
        yield
    finally:
        await work()
