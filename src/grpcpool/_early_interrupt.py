"""Lets Ctrl-C end the command ``grpcpool`` silently while it is still being imported.

`grpcpool` imports this module before any other, and it does nothing in other programs. The commands set a handler of
their own, or `restore` Python's.
"""

from __future__ import annotations

import os
import signal
import sys

_INTERRUPTED = 130


def end(_signal: int, _frame: object) -> None:
    """Ends the process at once: an exception would be printed by whatever it interrupts."""
    os._exit(_INTERRUPTED)


def restore() -> None:
    """Ctrl-C raises `KeyboardInterrupt` again."""
    if signal.getsignal(signal.SIGINT) is end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_command(argv: list[str], original: list[str]) -> bool:
    """Whether this process is the command: ``python -m grpcpool``, or a program of that name."""
    if argv[:1] == ["-m"]:
        # Python sets the first argument to the path of the module when it has found the module.
        return [name.removeprefix("-m") for name in original[-len(argv) :][:1]] == ["grpcpool"]
    return bool(argv) and os.path.basename(argv[0]) in {"grpcpool", "grpcpool.exe"}  # noqa: PTH119 -- quick to import


# A program that embeds Python may have no arguments.
if (
    _is_command(getattr(sys, "argv", []), sys.orig_argv)
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, end)
