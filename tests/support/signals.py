"""Interruptions of the main thread by a signal, as by Ctrl-C."""

from __future__ import annotations

import threading


class Interruption(BaseException):
    """Raised by a signal handler in the main thread, as Ctrl-C raises KeyboardInterrupt."""


def main_thread() -> int:
    """The identifier of the main thread."""
    main = threading.main_thread().ident
    assert main is not None
    return main
