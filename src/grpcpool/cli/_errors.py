"""The errors and exit codes of the commands: each failure is one line on standard error.

This module needs no extra, so that the command without the extra can say what to install.
"""

from __future__ import annotations

import enum
from typing import Final

INSTALL: Final = 'pip install "grpcpool[cli]"'
"""Installs everything that the commands need."""


class ExitCode(enum.IntEnum):
    """The exit codes of the command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    INTERRUPTED = 130


class CommandError(Exception):
    """A command failed; the message is one line for the user."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        """The command exits with `code`."""
        super().__init__(" ".join(message.split()))
        self.code = code


class UsageError(CommandError):
    """The command line is wrong."""

    def __init__(self, message: str) -> None:
        """Same as `CommandError`, with the exit code for usage errors."""
        super().__init__(message, ExitCode.USAGE)
