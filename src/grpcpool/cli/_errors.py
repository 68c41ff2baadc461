"""The errors and exit codes of the commands: each failure is one line on standard error.

This module needs no extra, so that the command without the extra can say what to install.
"""

from __future__ import annotations

import enum
import os
import sys
from typing import Final

from .._values.plain_text import plain

INSTALL: Final = 'pip install "grpcpool[cli]"'
"""Installs everything that the commands need."""


# A server may have sent megabytes.
_LONGEST: Final = 2000


class ExitCode(enum.IntEnum):
    """The exit codes of the command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    INTERRUPTED = 130


class CommandError(Exception):
    """A command failed; the message is one line for the user, in which control characters are escaped."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        """The command exits with `code`."""
        line = plain(" ".join(message.split()))
        super().__init__(line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ...")
        self.code = code


class UsageError(CommandError):
    """The command line is wrong."""

    def __init__(self, message: str) -> None:
        """Same as `CommandError`, with the exit code for usage errors."""
        super().__init__(message, ExitCode.USAGE)


def number_of(text: str) -> int | None:
    """Returns the number that the text is; `None` if it is not one, or has more digits than Python converts."""
    try:
        return int(text) if text.isdecimal() else None
    except ValueError:
        return None


def report_os_error(error: OSError) -> ExitCode:
    """Prints the error in one line, unless the reader of the output has closed it; returns the exit code."""
    if not isinstance(error, BrokenPipeError) and sys.stderr is not None:
        sys.stderr.write(f"grpcpool: {plain(str(error))}\n")
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        # Python would try it again at its exit, and report it.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    return ExitCode.FAILED
