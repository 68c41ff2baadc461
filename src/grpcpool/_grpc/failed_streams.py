"""Streams that have failed for their reader, but not for gRPC.

gRPC does not cancel a stream whose deserializer raised: it fails for its reader, and the server goes on. As long as the
call is held, which the error itself and any done-callback do, its place would be taken for nothing.
"""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc

from .blocking_calls import CANCELLED, CHANNEL_CLOSED, DROPPED
from .call_errors import is_answer_pending
from .client_modules import CLIENT_MODULES
from .lean_blocking_multicallables import read_of
from .missing import warn_of_missing

_READ_BY_ITSELF = "_SingleThreadedRendezvous"
_READ_BY_A_THREAD = "_MultiThreadedRendezvous"

Defer = Callable[[Callable[[], object]], None]
"""Does something soon; may be called in a finalizer."""


def runs_only_while_iterated(call: object) -> bool:
    """Whether this is a stream of a channel with the option `SingleThreadedUnaryStream`, or may be one.

    A stream of an unknown class of gRPC's may be: its end is then noticed when it is dropped, too.
    """
    kind = type(call)
    name = kind.__name__
    if name == _READ_BY_A_THREAD:
        return False
    return name == _READ_BY_ITSELF or (kind.__module__ in CLIENT_MODULES and hasattr(call, "__next__"))


def responses_of(call: Any) -> Any:
    """The iterator of a stream's responses: the call itself. What an interceptor returns may only be iterable."""
    return call if hasattr(type(call), "__next__") else iter(call)


def reader_of(responses: Any) -> Callable[[], Any]:
    """The bound method that reads the next response: `__next__`, or what gRPC's own does nothing but call.

    The latter saves each response a frame.
    """
    own = getattr(responses, "_next", None) if type(responses).__module__ in CLIENT_MODULES else None
    if type(own) is types.MethodType and own.__func__ is type(responses)._next:
        return types.MethodType(read_of(responses), responses)
    # What others have put in its place stays.
    read: Callable[[], Any] = own or responses.__next__
    return read


def end_when_it_fails(call: Any, interrupted: Callable[[], object]) -> None:
    """If `call` is one of gRPC's own streams, it ends as soon as it fails for its reader.

    A proxy would cost more, and would not be gRPC's own.

    Args:
        call: What gRPC, or an interceptor, returned.
        interrupted: Called if anything but the call's own end is raised while the stream is read.
    """
    if type(call).__module__ not in CLIENT_MODULES:
        return
    if hasattr(call, "_next"):
        # Not a reference that would keep it: a stream that is dropped is to be cancelled.
        call._next = partial(_read, weakref.ref(call), read_of(call), interrupted)
    elif hasattr(call, "__next__"):
        warn_of_missing("_next")


def _read(stream: Callable[[], Any], read: Callable[[Any], Any], interrupted: Callable[[], object]) -> Any:
    call = stream()
    try:
        return read(call)
    except grpc.RpcError:
        end_failed(call)
        raise
    except StopIteration:
        raise
    except BaseException:
        interrupted()
        raise


def end_failed(call: Any) -> None:
    """Ends `call`, which has failed for its reader. Does nothing if it is over for gRPC, too."""
    if type(call).__module__ not in CLIENT_MODULES:
        return
    cancel = getattr(getattr(call, "_call", None), "cancel", None)
    if cancel is not None:
        _cancel(cancel, "Cancelled after its reader got an error!")
    elif hasattr(call, "__next__"):
        warn_of_missing("_call")
    if runs_only_while_iterated(call):
        _take_note_of_end(call)


def cancel_as_closed(call: Any) -> bool:
    """Cancels a call of gRPC's as the close of its channel would; returns `False` if that is not possible."""
    if type(call).__module__ not in CLIENT_MODULES or runs_only_while_iterated(call):
        return False
    cancel = getattr(getattr(call, "_call", None), "cancel", None)
    if cancel is None:
        return False
    _cancel(cancel, CHANNEL_CLOSED)
    return True


def take_note_of_metadata(call: Any) -> None:
    """Takes note of initial metadata that is pending. On the thread that read the stream: nothing else would do it."""
    if is_answer_pending(call) and runs_only_while_iterated(call):
        call.initial_metadata()


def _take_note_of_end(call: Any) -> None:
    """Consumes what is left of a stream that no gRPC thread watches."""
    if not hasattr(call, "_consume_next_event"):
        if type(call).__name__ == _READ_BY_ITSELF:
            warn_of_missing("_consume_next_event")
    elif not hasattr(getattr(call, "_state", None), "due"):
        warn_of_missing("_state.due")
    else:
        while call._state.due:
            call._consume_next_event()


def _cancel(cancel: Callable[..., object], why: str) -> None:
    """Cancels what is below a call, which the public `cancel` does not once the call has failed."""
    try:
        cancel(CANCELLED, why)
    except TypeError:
        warn_of_missing("_call")


def _dropped(cancel: Callable[..., object], due: object, defer: Defer, _: object) -> None:
    if due:
        defer(partial(_cancel, cancel, DROPPED))


def reference(call: Any, defer: Defer) -> Callable[[], Any]:
    """A weak reference to `call`, for what waits for its end; if that never comes, the call's end comes by it.

    A stream whose deserializer raised is over for the caller, and runs on for ever for the server. Its callbacks hold
    this reference. They are gone if it has ended well; otherwise they hear when it is dropped, and cancel it. `defer`
    must allow for that this waits for locks of gRPC's.
    """
    # What others call `_call` is something else. What has events of its own is cancelled when these are taken.
    below = getattr(call, "_call", None) if type(call).__module__ in CLIENT_MODULES else None
    cancel = None if hasattr(below, "next_event") else getattr(below, "cancel", None)
    # Empty once gRPC's thread has seen the end: callbacks may be about to run. Not the state, which holds them.
    due = getattr(getattr(call, "_state", None), "due", True)
    try:
        return weakref.ref(call) if cancel is None else weakref.ref(call, partial(_dropped, cancel, due, defer))
    except TypeError:
        # It cannot be referred to weakly: how it ends stays unknown.
        return object
