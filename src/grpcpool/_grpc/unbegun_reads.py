"""Reads of a stream that did not begin, because a signal handler raised or the stream was over.

A stream of gRPC's notes that a message is due, begins to read it, and takes the note back if there is nothing to read.
If a handler raises in between, no message comes: gRPC's thread of the channel waits for it when the stream is over, and
does not end. The close of the channel then frees what that thread uses, which can crash the process.

Whether a message comes is looked up on gRPC's thread: there, all events that were taken have been handled. If one
comes, as for another read that waits, the note stays: gRPC's thread would fail without it.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterable
from typing import Any

from .client_modules import CLIENT_MODULES, call_state_of, compiled_channel, kept_by_state
from .empty_calls import begin_empty_call
from .interrupted_calls import module_of, traces_of
from .missing import warn_of_missing

# The end of the names of the functions that read.
_READS = "Rendezvous._next"


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
                _undo(frame.f_locals["self"], frame.f_globals["cygrpc"].OperationType.receive_message, channel)
            except (LookupError, AttributeError, TypeError, ValueError):
                warn_of_missing("receive_message")


def _undo(stream: Any, message: object, channel: Any) -> None:
    state = stream._state
    if message not in state.due:
        return
    begun = _begun_on(stream._call)

    def undo() -> bool:
        """Returns whether the stream is over: its end was not counted, because of the message."""
        with state.condition:
            if message not in state.due or message in _types_of(begun):
                return False
            state.due.remove(message)
            state.condition.notify_all()
            return not state.due

    if hasattr(stream._call, "next_event"):
        # No thread of gRPC's takes its events.
        undo()
    else:
        _do_on_its_thread(undo, channel)


def _do_on_its_thread(undo: Callable[[], bool], channel: Any) -> None:
    """Does that on gRPC's thread of the channel, which does not end before."""
    calls = call_state_of(channel)

    def handle(_: object) -> bool:
        if undo():
            with calls.lock:
                calls.managed_calls -= 1
        return True

    # A closed channel begins none.
    with calls.lock, contextlib.suppress(ValueError):
        # Otherwise there is no thread.
        if calls.managed_calls:
            begin_empty_call(compiled_channel(channel), handle)
            calls.managed_calls += 1


def _begun_on(call: Any) -> list[set[Any]]:
    """What a call of gRPC's has begun, among other sets."""
    sets = [it for it in kept_by_state(call) if type(it) is set]
    if not sets:
        raise LookupError
    return sets


def _types_of(begun: Iterable[set[Any]]) -> set[object]:
    """The types of the operations that have begun, and whose events have not been taken."""
    tags = gc.get_referents(*begun)
    return {operation.type() for it in gc.get_referents(*tags) if type(it) is tuple for operation in it}
