"""Waits with a time limit: for facts seen from outside, and for what other threads do."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")

LONG = 20.0
"""Seconds within which whatever is waited for must have happened; a test that works never waits so long."""


def eventually(predicate: Callable[[], T], timeout: float = LONG, *, pause: float = 0.01) -> T:
    """Returns what `predicate` returns as soon as that is true.

    It is asked often at first, because most of what tests wait for happens at once; later with a `pause` in between.

    Raises:
        AssertionError: It was not within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    next_pause = pause / 16
    while not (value := predicate()):
        assert time.monotonic() < deadline, f"still {value!r} after {timeout} s"
        time.sleep(next_pause)
        next_pause = min(2 * next_pause, pause)
    return value


def background(work: Callable[[], T]) -> Future[T]:
    """Runs `work` in a thread of its own; the future gets its result or error."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 -- raised by result()
            future.set_exception(error)

    threading.Thread(target=run, name="test-background", daemon=True).start()
    return future


def together(number: int, work: Callable[[int], T]) -> list[T]:
    """Runs `work(i)` in `number` threads, which all begin at the same moment; returns the results in order."""
    barrier = threading.Barrier(number)

    def run(i: int) -> T:
        barrier.wait(LONG)
        return work(i)

    futures = [background(lambda i=i: run(i)) for i in range(number)]  # type: ignore[misc]
    return [future.result(3 * LONG) for future in futures]


def is_inside(function: str, thread: int) -> bool:
    """Whether the innermost Python function that `thread` runs has this name."""
    frame = sys._current_frames().get(thread)
    return frame is not None and frame.f_code.co_name == function
