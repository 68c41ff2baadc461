"""Prints text from a server so that nothing in it acts on the terminal, and JSON stays exact."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TextIO

from rich.console import Console
from rich.text import Text

from .._values.plain_text import plain

_STDERR: Final = 2
# With these set, users want gRPC's own log.
_OF_GRPCS_LOG: Final = ("GRPC_VERBOSITY", "GRPC_TRACE")


def new_console() -> Console:
    """Returns a console on standard output that prints text as it is, except for rich's markup."""
    # Rich would replace what looks like the name of an emoji.
    return Console(highlight=False, emoji=False)


def shown(text: str) -> Text:
    """Returns text from outside so that rich prints it in one line, and as it is: what looks like markup is none."""
    return Text(plain(text))


def print_json(console: Console, value: object) -> None:
    """Prints a value as JSON in ASCII, without control characters. Parsed, its texts are unchanged."""
    # `json` escapes all control characters except DEL.
    text = json.dumps(value, indent=2).replace("\x7f", "\\u007f")
    console.print(text, soft_wrap=True, highlight=False, markup=False)


@contextlib.contextmanager
def without_grpcs_log() -> Iterator[None]:
    """Discards what gRPC's core logs during the ``with`` block, unless the environment configures that log.

    The core writes to the file descriptor of standard error, with text that a server sent and control characters in it.
    It has read its environment when `grpc` was imported, so setting a variable is too late. Python's standard error
    is written as before.
    """
    if any(name in os.environ for name in _OF_GRPCS_LOG):
        yield
        return
    try:
        kept = os.dup(_STDERR)
    except OSError:
        # Standard error is closed.
        yield
        return
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, kept)
        if sys.stderr is not None and _descriptor_of(sys.stderr) == _STDERR:
            undo.enter_context(_stderr_on(kept))
        undo.callback(os.dup2, kept, _STDERR)
        with Path(os.devnull).open("wb") as nothing:
            os.dup2(nothing.fileno(), _STDERR)
        yield


@contextlib.contextmanager
def _stderr_on(descriptor: int) -> Iterator[None]:
    """Lets Python's standard error write to another descriptor."""
    before = sys.stderr
    before.flush()
    with open(descriptor, "w", buffering=1, encoding=before.encoding, errors=before.errors, closefd=False) as after:
        sys.stderr = after
        try:
            yield
        finally:
            sys.stderr = before


def _descriptor_of(file: TextIO) -> int | None:
    try:
        return file.fileno()
    except (OSError, ValueError):
        return None
