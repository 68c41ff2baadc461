"""The command ``grpcpool``, also ``python -m grpcpool``.

With the extra ``cli`` it runs `grpcpool.cli.app`, otherwise `grpcpool.cli.without_extra`. All else is imported when
Ctrl-C ends the process silently already, because the imports take a moment.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code or raises `SystemExit` with it."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    # Otherwise it is a shell that ignores Ctrl-C for programs in the background, or a program that calls this.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler and arguments is None:
        signal.signal(signal.SIGINT, _end)
    import importlib.util  # noqa: PLC0415 -- see above

    if importlib.util.find_spec("typer") is None or importlib.util.find_spec("rich") is None:
        from .cli.without_extra import run  # noqa: PLC0415 -- see above
    else:
        from .cli.app import run  # noqa: PLC0415 -- installed only with the extra
    if given[:1] != ["demo"] and signal.getsignal(signal.SIGINT) is _end:
        # The others print what they have so far.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run(given)


def _end(_signal: int, _frame: object) -> None:
    """Ends the process at once: an exception would be printed by whatever it interrupts."""
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
