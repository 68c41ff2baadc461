"""Runs a test's coroutine in its own loop: asyncio's, also in debug mode or with eager tasks, or uvloop's."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import importlib.util
import os
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, TypeVar

import pytest

from support.waiting import LONG

T = TypeVar("T")

KINDS = [
    "asyncio",
    # asyncio's debug mode takes half as long again as all the rest.
    *(["debug"] if "GRPCPOOL_ALL_LOOPS" in os.environ else []),
    pytest.param(
        "uvloop",
        marks=pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="uvloop is not installed"),
    ),
    # Python 3.12 brought tasks that begin at once.
    *(["eager"] if sys.version_info >= (3, 12) else []),
]
"""The kinds of loop, for a test that is to be run in each."""

_kind = ["asyncio"]
_TO_END = 5.0
# More turns than any fake takes, and how many without anything to do show that all is done.
_TURNS = 30
_QUIET_TURNS = 3


@contextlib.contextmanager
def loops_of(kind: str) -> Iterator[None]:
    """Tests within run in loops of this kind."""
    _kind.append(kind)
    try:
        yield
    finally:
        _kind.pop()


def new_loop() -> asyncio.AbstractEventLoop:
    """A loop of the current kind."""
    if _kind[-1] != "uvloop":
        asyncios = asyncio.new_event_loop()
        if _kind[-1] == "eager" and sys.version_info >= (3, 12):
            asyncios.set_task_factory(asyncio.eager_task_factory)
        return asyncios
    import uvloop  # noqa: PLC0415 -- it need not be there

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def run(main: Coroutine[Any, Any, T], *, limit: float = 60) -> T:
    """Returns what `main` returns, run in a new loop, which is then closed.

    Raises:
        AssertionError: Tasks were left, or the loop's exception handler was called.
        TimeoutError: It did not end within `limit` seconds.
    """
    uncaught: list[str] = []
    with asyncio.Runner(debug=_kind[-1] == "debug", loop_factory=new_loop) as runner:
        runner.get_loop().set_exception_handler(lambda loop, context: uncaught.append(_text_of(context)))
        result = runner.run(_watched(main, limit))
        # Calls that errors still refer to keep gRPC's connections open; and a task reports an error that was never
        # retrieved only when it is collected.
        gc.collect()
    assert not not_of_poller(uncaught), f"uncaught: {uncaught}"
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
    left = await tasks_left()
    assert not left, f"tasks are left over: {left}"
    return result


async def tasks_left() -> set[asyncio.Task[Any]]:
    """The loop's tasks, besides this one, that do not end within seconds."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        # gRPC's own tasks end when its thread has notified them.
        _, left = await asyncio.wait(left, timeout=_TO_END)
    return left


def not_of_poller(errors: Iterable[str]) -> list[str]:
    """The uncaught errors besides those of gRPC's poller.

    It serves several loops, and complains of events that another loop has taken.
    """
    return [error for error in errors if "PollerCompletionQueue" not in error]


def _text_of(context: dict[str, Any]) -> str:
    return f"{context.get('message')}: {context.get('exception')!r}"


async def settle(turns: int | None = None) -> None:
    """Lets the loop run for a number of turns; without one until, with fakes, all that can happen has happened."""
    # uvloop does not show what is to be done.
    to_do = getattr(asyncio.get_running_loop(), "_ready", None) if turns is None else None
    quiet = 0
    for _ in range(_TURNS if turns is None else turns):
        await asyncio.sleep(0)
        quiet = 0 if to_do is None or to_do else quiet + 1
        if quiet == _QUIET_TURNS:
            return


async def until(
    predicate: Callable[[], T],
    timeout: float = LONG,  # noqa: ASYNC109 -- as `eventually`
    *,
    pause: float = 0.002,
) -> T:
    """Returns what `predicate` returns as soon as that is true: for facts seen from outside, and other threads.

    Raises:
        AssertionError: It was not within `timeout` seconds.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while not (value := predicate()):
        assert loop.time() < deadline, f"still {value!r} after {timeout} s"
        await asyncio.sleep(pause)
    return value


async def in_thread(work: Callable[[], T]) -> T:
    """Runs `work` in another thread, in which no loop runs."""
    return await asyncio.get_running_loop().run_in_executor(None, work)
