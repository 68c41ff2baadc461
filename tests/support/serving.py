"""What the server scripts of the tests share. It uses the standard library alone."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Running:
    """How many calls run under each name, and the most that ran at once."""

    def __init__(self) -> None:
        """Starts with none."""
        self._guard = threading.Lock()
        self._now: Counter[str] = Counter()
        self._most: Counter[str] = Counter()

    @contextmanager
    def one(self, name: str) -> Iterator[None]:
        """Counts a call under `name` while the block runs."""
        with self._guard:
            self._now[name] += 1
            self._most[name] = max(self._most[name], self._now[name])
        try:
            yield
        finally:
            with self._guard:
                self._now[name] -= 1

    def total(self) -> int:
        """How many run now."""
        with self._guard:
            return self._now.total()

    def names(self) -> list[str]:
        """The names under which calls run now."""
        with self._guard:
            return [name for name, number in self._now.items() if number]

    def take_peaks(self) -> dict[str, int]:
        """The most that ran at once under each name since the last time this was asked."""
        with self._guard:
            peaks, self._most = self._most, Counter()
        return dict(peaks)


def serve_until_input_ends(port: int) -> None:
    """Prints the port, and ends the process when its standard input ends.

    So the server never outlives the process that started it.
    """
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
    os._exit(0)
