"""Reads of a stream that did not begin, because a signal handler raised or the stream was over.

A stream of gRPC's notes that a message is due, begins to read it, and takes the note back if there is nothing to read.
If a handler raises in between, no message comes: gRPC's thread of the channel waits for it when the stream is over, and
does not end. The close of the channel then frees what that thread uses, which can crash the process.
"""

from __future__ import annotations

import contextlib
from typing import Any

from .client_modules import CLIENT_MODULES, compiled_channel
from .empty_calls import begin_empty_call
from .interrupted_calls import had_come_to, module_of, traces_of
from .missing import warn_of_missing

# The end of the names of the functions that read, and what they call to begin.
_READS = "Rendezvous._next"
_BEGIN = "operate"


def undo_unbegun_reads(error: BaseException | None, channel: Any) -> None:
    """No message is due any more to a stream on which `error` has kept a read from beginning.

    Args:
        error: What was raised while the stream was read.
        channel: That of the stream.
    """
    for trace in traces_of(error):
        frame = trace.tb_frame
        if module_of(frame) in CLIENT_MODULES and frame.f_code.co_qualname.endswith(_READS):
            try:
                _undo(frame.f_locals, frame.f_globals["cygrpc"], channel, may_have_begun=had_come_to(_BEGIN, trace))
            except (LookupError, AttributeError, TypeError):
                warn_of_missing("_call.operate")


def _undo(names: dict[str, Any], cygrpc: Any, channel: Any, *, may_have_begun: bool) -> None:
    """Undoes a read that has not begun, by the local names of the function that reads."""
    stream, handle_event = names["self"], names.get("event_handler")
    state = stream._state
    message = cygrpc.OperationType.receive_message
    with state.condition:
        if message not in state.due:
            return
        if not may_have_begun:
            state.due.remove(message)
            if state.due:
                return
            # The end came meanwhile, and was not counted as one, because of the message.
            state.due.add(message)
    # As long as the stream goes on, its reads begin; and so does what has no content, which shows that.
    if handle_event is None or (may_have_begun and stream._call.operate((), _ignore)):
        return

    def count_the_end(event: Any) -> Any:
        """All events of the stream have come before."""
        return message in state.due and handle_event(event)

    # A call that is over at once, and brings no message, is handled as if it were the read.
    with contextlib.suppress(ValueError):
        begin_empty_call(compiled_channel(channel), count_the_end)


def _ignore(_: Any) -> bool:
    """An event that ends no call."""
    return False
