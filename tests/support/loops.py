"""Running a test's coroutine in an event loop of its own."""

from __future__ import annotations

import asyncio
import functools
import gc
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_TO_END = 5.0
"""Seconds for what is ending already: gRPC's own tasks end when its thread has told them."""


def run(main: Coroutine[Any, Any, T], *, limit: float = 60) -> T:
    """Returns what `main` returns, run in a new loop, which is closed then.

    Raises:
        AssertionError: Tasks were left over, or the loop was told of an error that nobody has caught.
        TimeoutError: It did not end within `limit` seconds.
    """
    with asyncio.Runner(debug=False) as runner:
        loop = runner.get_loop()
        uncaught: list[str] = []
        loop.set_exception_handler(lambda loop, context: uncaught.append(_told(context)))
        result = runner.run(_watched(main, limit))
        # Calls that errors still refer to keep gRPC's connections open; and tasks say only now that nobody has asked
        # for their error.
        gc.collect()
    # gRPC's poller complains of events that another loop's has taken.
    errors = [error for error in uncaught if "PollerCompletionQueue" not in error]
    assert not errors, f"nobody has caught: {errors}"
    return result


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Makes a test of a coroutine function; it takes the same fixtures."""

    @functools.wraps(test)
    def run_test(**fixtures: Any) -> None:
        run(test(**fixtures))

    return run_test


async def _watched(main: Coroutine[Any, Any, T], limit: float) -> T:
    async with asyncio.timeout(limit):
        result = await main
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=_TO_END)
    assert not left, f"tasks are left over: {left}"
    return result


def _told(context: dict[str, Any]) -> str:
    return f"{context.get('message')}: {context.get('exception')!r}"
