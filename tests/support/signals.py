"""Interruptions of the main thread by a signal, as by Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType


class Interruption(BaseException):
    """Raised by a signal handler in the main thread, as Ctrl-C raises KeyboardInterrupt."""


def main_thread() -> int:
    """The identifier of the main thread."""
    main = threading.main_thread().ident
    assert main is not None
    return main


@contextlib.contextmanager
def raising(error: type[BaseException]) -> Iterator[Callable[[], None]]:
    """Yields a function that calls a signal handler, which raises `error`, in the main thread."""

    def handle(*_: object) -> None:
        raise error("as the test wants")

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        yield lambda: signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


class TimeLimitError(Exception):
    """Raised as by a signal handler, for a soft time limit."""


class RaisesAt:
    """A handler that raises `TimeLimitError` at one point, as a profile function.

    CPython runs handlers when a function is entered, and when one of C has returned; these points are counted.
    """

    def __init__(self, number: int, counts: Callable[[FrameType], bool]) -> None:
        """Raises at the point of that number, of those in frames that count."""
        self._left = number
        self._counts = counts
        self.raised = False

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        """Raises if this is the point."""
        if event not in ("call", "c_return") or not self._counts(frame):
            return
        self._left -= 1
        if not self._left:
            self.raised = True
            sys.setprofile(None)
            raise TimeLimitError
