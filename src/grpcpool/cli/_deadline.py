"""The one deadline of a command, which every wait for a server respects, whatever the server sends meanwhile.

A timeout for each read would not end a command: a server that sends one byte a second answers each read in time.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class Deadline:
    """The moment by which something has to end."""

    def __init__(self, seconds: float) -> None:
        """The moment in that many seconds."""
        self._seconds = seconds
        self._at = time.monotonic() + seconds

    def __str__(self) -> str:
        """Returns the time that there was, as in ``2.5 s``."""
        return f"{self._seconds:.2g} s" if self._seconds < 1 else f"{round(self._seconds, 1):g} s"

    def left(self) -> float:
        """Returns the seconds until then, at least 0."""
        return max(0.0, self._at - time.monotonic())

    def timeout(self) -> float:
        """Returns the seconds that a blocking operation may take.

        Raises:
            TimeoutError: The deadline has passed.
        """
        left = self.left()
        if not left:
            raise TimeoutError
        return left

    def part(self, parts: int) -> Deadline:
        """Returns the deadline of the first of several parts that share the time left."""
        return Deadline(self.left() / parts)


def call_within(deadline: Deadline, function: Callable[[], T]) -> T:
    """Calls a function that cannot be interrupted, such as the system's resolver, and returns its result.

    It runs on a thread of its own. A function that is late is abandoned; its thread does not keep the process alive.

    Raises:
        TimeoutError: There was no result by the deadline.
    """
    future: Future[T] = Future()
    threading.Thread(target=_complete, args=(future, function), daemon=True).start()
    return future.result(deadline.left())


def call_each(functions: Sequence[Callable[[], T]], threads: int) -> list[T]:
    """Calls the functions, that many at a time, and returns their results in order.

    They run on threads that do not keep the process alive. So Ctrl-C ends the command, whatever they wait for.
    """
    futures: list[Future[T]] = [Future() for _ in functions]
    left = deque(zip(futures, functions, strict=True))

    def run() -> None:
        # Threads take from it at the same time: only `popleft` says whether there is one.
        with contextlib.suppress(IndexError):
            while True:
                _complete(*left.popleft())

    for _ in range(min(threads, len(functions))):
        threading.Thread(target=run, daemon=True).start()
    return [future.result() for future in futures]


def _complete(future: Future[T], function: Callable[[], T]) -> None:
    try:
        future.set_result(function())
    except BaseException as error:  # noqa: BLE001 -- raised again by the waiting thread
        future.set_exception(error)
