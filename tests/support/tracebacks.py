"""The size of a traceback."""

from __future__ import annotations

import traceback
from collections.abc import Iterator

MOST_TIMES_GRPCS = 1.5
"""A failed call over a pool may have so many times the frames and lines of one on gRPC's own channel."""


def size_of(error: BaseException) -> tuple[int, int]:
    """The frames of an error and of what it is chained to, and the lines that Python prints for it."""
    frames = sum(len([*traceback.walk_tb(each.__traceback__)]) for each in _chain(error))
    return frames, len("".join(traceback.format_exception(error)).splitlines())


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
