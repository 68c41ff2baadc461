"""The work that finalizers have left to a pool (`Driver.defer`)."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable

from .announcer import logger


def do_left_work(left: deque[Callable[[], object]], pool: str) -> None:
    """Does the work that finalizers have left to the pool of that name, and removes it from the queue."""
    while left:
        try:
            work = left.popleft()
        except IndexError:
            return
        try:
            work()
        except BaseException as error:
            # A log, or callers that keep the error, must not keep a place that has not been released.
            traceback.clear_frames(error.__traceback__)
            del work
            if not isinstance(error, Exception):
                raise
            # The thread that happens to be here is not concerned.
            logger.exception("pool %r: work that a finalizer queued failed", pool)
