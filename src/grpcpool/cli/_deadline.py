"""The one deadline of a command, which every wait for a server respects, whatever the server sends meanwhile.

A timeout for each read would not end a command: a server that sends one byte a second answers each read in time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
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

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 -- raised again by the waiting thread
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(deadline.left())
