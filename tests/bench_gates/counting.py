"""Counts the calls that a thread makes."""

from __future__ import annotations

import gc
import pathlib
import sys
from collections import Counter
from types import FrameType, TracebackType
from typing import Any, Self


class Calls:
    """The calls that one thread makes within the ``with`` block, as `sys.setprofile` reports them.

    Resuming a coroutine or generator counts as a call.
    """

    def __init__(self) -> None:
        """Starts at zero."""
        self.python: Counter[str] = Counter()
        self.c: Counter[str] = Counter()
        self._by_file: Counter[pathlib.Path] = Counter()

    def __enter__(self) -> Self:
        """Starts counting."""
        gc.disable()
        sys.setprofile(self._see)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Stops counting."""
        sys.setprofile(None)
        gc.enable()

    def _see(self, frame: FrameType, event: str, what: Any) -> None:
        # The end of counting calls this function itself.
        if frame.f_code.co_filename == __file__:
            return
        if event == "call":
            self.python[frame.f_code.co_qualname] += 1
            self._by_file[pathlib.Path(frame.f_code.co_filename)] += 1
        elif event == "c_call":
            self.c[what.__name__] += 1

    def inside(self, *packages: str) -> int:
        """The number of calls of Python functions in these packages."""
        return sum(count for path, count in self._by_file.items() if not set(packages).isdisjoint(path.parts))

    @property
    def made_effects(self) -> bool:
        """Whether the machine returned effects, or the driver looked for effects to carry out."""
        files = {path.name for path in self._by_file}
        return "Driver.commit" in self.python or not files.isdisjoint({"effects.py", "carrying_out.py"})
