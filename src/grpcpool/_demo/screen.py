"""The demonstration's output: a live line, and tables, in plain ASCII that can be pasted anywhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TextIO

_WIDTH = 79

# Seconds between live lines if the line cannot be redrawn.
_PAUSE = 0.5


class Screen:
    """Writes to a terminal, where the live line is redrawn in place, or to a file, as a line from time to time."""

    def __init__(self, out: TextIO) -> None:
        """Writes to `out`."""
        self._out = out
        self._redraws = out.isatty()
        self._began = time.monotonic()
        self._shown_at = 0.0
        self._live = False

    def write(self, text: str) -> None:
        """Writes a text of one or more lines."""
        self.end_live()
        self._write(f"{text}\n")

    def live(self, text: str) -> None:
        """Shows `text` as the current state."""
        now = time.monotonic()
        line = f"{now - self._began:5.1f} s  {text}"
        if self._redraws:
            self._live = True
            self._write("\r" + line[:_WIDTH].ljust(_WIDTH))
        elif now - self._shown_at >= _PAUSE:
            self._shown_at = now
            self._write(f"{line}\n")

    def end_live(self) -> None:
        """Ends the live line; later output appears below it."""
        if self._live:
            self._live = False
            self._write("\n")

    def table(self, rows: Sequence[Sequence[str]], *, align: str) -> None:
        """Writes a table; the first row is the header.

        Args:
            rows: Cells, as many in each row as `align` has letters.
            align: One letter for each column: ``<`` left-aligned, ``>`` right-aligned.
        """
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(f"{cell:{to}{width}}" for cell, to, width in zip(row, align, widths, strict=True)).rstrip()
            for row in rows
        ]
        lines.insert(1, "  ".join("-" * width for width in widths))
        self.write("\n" + "\n".join(lines) + "\n")

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def bar(*, used: int, idle: int, size: int) -> str:
    """Returns a bar of `size` marks: ``#`` for a connection in use, ``-`` for an idle one, ``.`` for one not open."""
    return "[" + ("#" * used + "-" * idle).ljust(size, ".") + "]"
