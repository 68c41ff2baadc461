"""Streams that have failed for their reader, but not for gRPC.

gRPC forgets to cancel a stream whose deserializer raised: its reader is told that it failed, and the server goes on. As
long as the call is held, which the error itself and any done-callback do, its place would be taken for nothing.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import grpc

CANCELLED: Final = grpc.StatusCode.CANCELLED.value[0]
"""As gRPC's own calls beneath those of Python are told it."""

_READ_BY_ITSELF = "_SingleThreadedRendezvous"
_STREAMS = ("_MultiThreadedRendezvous", _READ_BY_ITSELF)


def runs_only_while_iterated(call: object) -> bool:
    """Whether this is a stream of a channel with the option `SingleThreadedUnaryStream`."""
    return type(call).__name__ == _READ_BY_ITSELF


def end_when_it_fails(call: Any) -> None:
    """Has `call`, if it is one of gRPC's own streams, be over as soon as its reader is told that it failed.

    A proxy would cost more, and would be none of gRPC's own.
    """
    if _is_grpcs_own(call):
        # Not a reference that would keep it: a stream that is dropped is to be cancelled.
        call._next = partial(_read, weakref.ref(call))


def _read(stream: Callable[[], Any]) -> Any:
    call = stream()
    try:
        return type(call)._next(call)
    except grpc.RpcError:
        end_failed(call)
        raise


def end_failed(call: Any) -> None:
    """The reader of `call` has been told that it failed. Does nothing if it is over for gRPC, too."""
    if not _is_grpcs_own(call):
        return
    call._call.cancel(CANCELLED, "Cancelled after its reader got an error!")
    if runs_only_while_iterated(call):
        # Nobody else takes note of the end.
        while call._state.due:
            call._consume_next_event()


def _is_grpcs_own(call: object) -> bool:
    return type(call).__name__ in _STREAMS and hasattr(call, "_next")
