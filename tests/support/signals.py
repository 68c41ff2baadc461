"""Interruptions of the main thread by a signal, as by Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator


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
