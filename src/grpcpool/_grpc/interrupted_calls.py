"""What a signal handler that raises within gRPC leaves behind, and what can be repaired of it.

gRPC's channels and calls have locks of the type `threading.Condition`, whose methods are Python code. A signal handler
that raises as such a method begins or ends keeps the lock from being released. The interrupted thread does not notice,
because the lock is reentrant. All others wait for it forever: those that check the connection, and the thread that
serves all futures and streams of the channel. That thread is started with the first of them and ends with the last, by
a count. A handler that raises while one is begun may keep the thread from being started, or the call from being counted
so that the thread ends too early.
"""

from __future__ import annotations

import contextlib
import threading
import types
from collections.abc import Iterator

from .client_modules import CLIENT_MODULES

_LOCKING = {threading.Condition.__enter__.__code__, threading.Condition.__exit__.__code__}
# Beginnings of the names of the modules whose locks these are. The locks of others are not our concern.
_USERS = ("grpc.", "grpcpool.")
_PACKAGE = "grpc."
# The function within which gRPC begins and counts a future or stream, and starts the thread.
_BEGINS = "_channel_managed_call_management."


def _frames_of(error: BaseException | None) -> Iterator[types.FrameType]:
    trace = None if error is None else error.__traceback__
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


def _module_of(frame: types.FrameType) -> str:
    return str(frame.f_globals.get("__name__"))


def was_raised_within(error: BaseException | None) -> bool:
    """Whether code that ran within gRPC's channel raised `error`, as a signal handler does; not gRPC itself.

    What an interceptor raises comes from outside: gRPC keeps no lock then.
    """
    names = [_module_of(frame) for frame in _frames_of(error)]
    if not names or (isinstance(error, Exception) and names[-1].startswith(_PACKAGE)):
        return False
    return not CLIENT_MODULES.isdisjoint(names)


def may_lack_its_thread(error: BaseException | None) -> bool:
    """Whether `error` was raised while gRPC was beginning a future or stream.

    Those of the channel may never end then: their thread is missing, or ends while one of them runs.
    """
    names = (frame.f_code.co_qualname for frame in _frames_of(error) if _module_of(frame) in CLIENT_MODULES)
    return any(name.startswith(_BEGINS) for name in names)


def unlock_left_locked(error: BaseException | None) -> None:
    """Releases each lock within which a signal handler has raised `error`, on the thread that holds it."""
    user = ""
    for frame in _frames_of(error):
        if frame.f_code in _LOCKING and user.startswith(_USERS):
            # It is not held if the handler came before it was taken, or after it was released.
            with contextlib.suppress(RuntimeError):
                # It is not there any more if the frame has been cleared.
                lock = frame.f_locals.get("self")
                if lock is not None:
                    lock.release()
        user = _module_of(frame)
