"""Counts the calls that a thread makes."""

from __future__ import annotations

import gc
import pathlib
import sys
from collections import Counter
from types import FrameType, TracebackType
from typing import Any, Self


class Calls:
    """The calls that one thread makes within the ``with`` block, as `sys.setprofile` tells of them.

    A coroutine or generator that goes on counts as called.
    """

    def __init__(self) -> None:
        """Has seen none."""
        self.python: Counter[str] = Counter()
        self.c: Counter[str] = Counter()
        self._by_file: Counter[pathlib.Path] = Counter()

    def __enter__(self) -> Self:
        """Counts from here on."""
        gc.disable()
        sys.setprofile(self._see)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Counts no more."""
        sys.setprofile(None)
        gc.enable()

    def _see(self, frame: FrameType, event: str, what: Any) -> None:
        # This is called itself to make an end.
        if frame.f_code.co_filename == __file__:
            return
        if event == "call":
            self.python[frame.f_code.co_qualname] += 1
            self._by_file[pathlib.Path(frame.f_code.co_filename)] += 1
        elif event == "c_call":
            self.c[what.__name__] += 1

    def inside(self, *packages: str) -> int:
        """How many calls of Python functions were of those in these packages."""
        return sum(count for path, count in self._by_file.items() if not set(packages).isdisjoint(path.parts))

    @property
    def made_effects(self) -> bool:
        """Whether the machine asked the driver for anything, or the driver looked for something to carry out."""
        return "Driver.commit" in self.python or any(path.name == "_effects.py" for path in self._by_file)
