"""The demonstration's output: texts, a live line and tables, in plain ASCII that can be pasted anywhere."""

from __future__ import annotations

import os
import shutil
import textwrap
import time
from collections.abc import Callable, Sequence
from typing import TextIO

_WIDTH = 79


class OutputClosedError(Exception):
    """The program that read the output has ended, as ``head`` does."""


class Screen:
    """Writes to a terminal, where the live line is redrawn in place, or to a file, without live lines."""

    def __init__(self, out: TextIO) -> None:
        """Writes to `out`."""
        self._out = out
        self._redraws = out.isatty()
        self._began = time.monotonic()
        self._live = False
        self._unfinished: Callable[[], None] | None = None

    def write(self, text: str) -> None:
        """Writes a text of one or more lines."""
        self.end_live()
        self._write(f"{text}\n")

    def paragraph(self, text: str) -> None:
        """Writes a text, broken into lines."""
        self.write(textwrap.fill(text, _WIDTH))

    def heading(self, text: str) -> None:
        """Begins a part."""
        self.write(f"\n{text}\n{'=' * len(text)}")

    def live(self, text: str) -> None:
        """Shows `text` as the current state, in a terminal."""
        if self._redraws:
            width = min(_WIDTH, shutil.get_terminal_size().columns - 1)
            line = f"{time.monotonic() - self._began:5.1f} s  {text}"
            self._live = True
            self._write("\r" + line[:width].ljust(width))

    def end_live(self) -> None:
        """Ends the live line; later output appears below it."""
        if self._live:
            self._live = False
            self._write("\n")

    def leave(self) -> None:
        """Ends the live line in a process that ends at once: the interrupted code may be writing to the same file."""
        if self._live:
            os.write(self._out.fileno(), b"\n")

    def begin_table(self, show: Callable[[], None]) -> None:
        """Notes what shows the table of a part, for `show_unfinished`."""
        self._unfinished = show

    def show_unfinished(self) -> None:
        """Shows the table of a part that does not end, as it is now."""
        show, self._unfinished = self._unfinished, None
        if show is not None:
            show()

    def table(self, rows: Sequence[Sequence[str]], *, align: str) -> None:
        """Writes a table; the first row is the header.

        Args:
            rows: Cells, as many in each row as `align` has letters.
            align: One letter for each column: ``<`` left-aligned, ``>`` right-aligned.
        """
        self._unfinished = None
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(f"{cell:{to}{width}}" for cell, to, width in zip(row, align, widths, strict=True)).rstrip()
            for row in rows
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        self.write("\n" + "\n".join(lines) + "\n")

    def _write(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except BrokenPipeError:
            raise OutputClosedError from None


def bar(*, used: int, idle: int, size: int) -> str:
    """Returns a bar of `size` marks: ``#`` for a connection in use, ``-`` for an idle one, ``.`` for one not open."""
    return "[" + ("#" * used + "-" * idle).ljust(size, ".") + "]"
