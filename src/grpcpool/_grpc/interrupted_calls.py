"""What a signal handler that raises within gRPC leaves behind, and what can be repaired of it.

gRPC's channels and calls have locks of the type `threading.Condition`, whose methods are Python code. A signal handler
that raises as such a method begins or ends keeps the lock from being released. The interrupted thread does not notice,
because the lock is reentrant. All others wait for it forever: those that check the connection, and the thread that
serves all futures and streams of the channel (`uncounted_calls.py`).
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


def traces_of(error: BaseException | None) -> Iterator[types.TracebackType]:
    """The entries of the traceback of `error`, from the frame that caught it to the one that raised it."""
    trace = None if error is None else error.__traceback__
    while trace is not None:
        yield trace
        trace = trace.tb_next


def module_of(frame: types.FrameType) -> str:
    """The name of the module whose code the frame runs."""
    return str(frame.f_globals.get("__name__"))


def had_come_to(name: str, trace: types.TracebackType) -> bool:
    """Whether the function of an entry had come to where it first uses a name. Raises `LookupError` if it has none."""
    import dis  # noqa: PLC0415 -- takes long to import, and is hardly ever needed

    for instruction in dis.get_instructions(trace.tb_frame.f_code):
        if instruction.argval == name:
            return trace.tb_lasti >= instruction.offset
    raise LookupError(name)


def was_raised_within(error: BaseException | None) -> bool:
    """Whether code that ran within gRPC's channel raised `error`, as a signal handler does; not gRPC itself.

    What an interceptor raises comes from outside: gRPC keeps no lock then.
    """
    names = [module_of(trace.tb_frame) for trace in traces_of(error)]
    if not names or (isinstance(error, Exception) and names[-1].startswith(_PACKAGE)):
        return False
    return not CLIENT_MODULES.isdisjoint(names)


def unlock_left_locked(error: BaseException | None) -> None:
    """Releases each lock within which a signal handler has raised `error`, on the thread that holds it."""
    user = ""
    for trace in traces_of(error):
        frame = trace.tb_frame
        if frame.f_code in _LOCKING and user.startswith(_USERS):
            # It is not held if the handler came before it was taken, or after it was released.
            with contextlib.suppress(RuntimeError):
                # It is not there any more if the frame has been cleared.
                lock = frame.f_locals.get("self")
                if lock is not None:
                    lock.release()
        user = module_of(frame)
