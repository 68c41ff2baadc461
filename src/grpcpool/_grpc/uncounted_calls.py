"""Futures and streams that a signal handler kept gRPC from counting.

One thread of gRPC's serves all of those of a channel. It is started with the first of them, and ends with the last, by
a count. If a handler raises when one has begun and is not counted yet, the thread ends before the last has ended. If it
raises before the thread has started, there is none: `broken_channels.py`.
"""

from __future__ import annotations

import types

from .client_modules import CLIENT_MODULES, is_compiled
from .interrupted_calls import had_come_to, module_of, traces_of
from .missing import warn_of_missing

# The function within which gRPC begins and counts one, and what it uses to do so.
_BEGINS = "_channel_managed_call_management."
_BEGIN = "integrated_call"
_COUNT = "managed_calls"


def count_uncounted_call(error: BaseException | None) -> bool:
    """Counts what had begun if `error` was raised while gRPC was beginning a future or stream.

    Returns:
        Whether it was. The channel is to be replaced: its thread may be missing, and nothing else ends what had begun.
    """
    traces = list(traces_of(error))
    for index, trace in enumerate(traces):
        frame = trace.tb_frame
        if module_of(frame) in CLIENT_MODULES and frame.f_code.co_qualname.startswith(_BEGINS):
            try:
                _count(trace, traces[index + 1 :])
            except (LookupError, AttributeError, TypeError):
                warn_of_missing(_COUNT)
            return True
    return False


def _count(trace: types.TracebackType, below: list[types.TracebackType]) -> None:
    """Counts one if the function of the entry was left in between. If gRPC's core was, it has not begun."""
    within_core = bool(below) and is_compiled(module_of(below[0].tb_frame))
    if within_core or had_come_to(_COUNT, trace) or not had_come_to(_BEGIN, trace):
        return
    state = trace.tb_frame.f_locals["state"]
    with state.lock:
        # If it is the first, there is no thread that could end too early.
        if state.managed_calls:
            state.managed_calls += 1
