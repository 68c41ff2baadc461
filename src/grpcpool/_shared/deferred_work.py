"""The work that finalizers have deferred, because they must not take a lock (`Driver.defer`)."""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable

from .._grpc.interrupted_calls import unlock_left_locked
from .announcer import logger


def do_deferred_work(deferred: deque[Callable[[], object]], pool: str) -> None:
    """Does the deferred work of the pool of that name, and removes it from the queue.

    Raises:
        BaseException: A signal handler has raised it.
    """
    while deferred:
        try:
            work = deferred.popleft()
        except IndexError:
            return
        try:
            work()
        except BaseException as error:
            # While the frames still know the locks.
            unlock_left_locked(error)
            # A log, or callers that keep the error, must not keep a place that has not been released.
            traceback.clear_frames(error.__traceback__)
            # If a signal handler has raised, the work is not done. To do it twice does no harm.
            again = _failure_of(work)
            del work
            if again is not None:
                logger.error("pool %r: work that a finalizer queued failed", pool, exc_info=again)
            if not isinstance(error, Exception) or (again is None and _runs_handlers()):
                raise


def _failure_of(work: Callable[[], object]) -> Exception | None:
    try:
        work()
    except Exception as error:  # noqa: BLE001 -- the thread that happens to be here is not concerned
        unlock_left_locked(error)
        traceback.clear_frames(error.__traceback__)
        return error
    return None


def _runs_handlers() -> bool:
    return threading.current_thread() is threading.main_thread()
