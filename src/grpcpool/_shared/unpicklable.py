"""What cannot be copied, or sent to another process: a call."""

from __future__ import annotations

from typing import Any


class Unpicklable:
    """A call. An attempt to pickle it fails at once, and not in the process that receives it."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """Calls do not pickle.

        Raises:
            TypeError: Always.
        """
        raise TypeError("a call cannot be copied or sent to another process: it runs in this one; send its result")
