"""How a command fails: with one line that says what is wrong, and an exit code.

It needs no extra: the command is told so where there is none.
"""

from __future__ import annotations

import enum
from typing import Final

INSTALL: Final = 'pip install "grpcpool[cli]"'
"""What brings all that the commands need."""


class ExitCode(enum.IntEnum):
    """What a command ends with."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    INTERRUPTED = 130


class CommandError(Exception):
    """A command cannot do what it was asked to; the message is one line for its user."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        """The command ends with `code`."""
        super().__init__(" ".join(message.split()))
        self.code = code


class UsageError(CommandError):
    """What was asked makes no sense."""

    def __init__(self, message: str) -> None:
        """As `CommandError`, with the exit code for usage."""
        super().__init__(message, ExitCode.USAGE)
