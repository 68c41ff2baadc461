"""How a call that was handed out reports its end, exactly once, whichever way it ends."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any


class Once:
    """Calls `end` at its first call. `list.pop` is what makes that so for two threads at once."""

    __slots__ = ("_end",)

    def __init__(self, end: Callable[[], None]) -> None:
        """Prepares the one call of `end`."""
        self._end = [end]

    def __call__(self) -> None:
        """Calls it, if nobody has yet."""
        try:
            end = self._end.pop()
        except IndexError:
            return
        end()


def on_end(call: Any, end: Callable[[], None], defer: Callable[[Callable[[], object]], None]) -> None:
    """Has `end` called when `call` is over; at once if it is over already.

    Args:
        call: What gRPC, or an interceptor, returned for a call that runs.
        end: Must be short, call no gRPC, and never raise: gRPC's thread would die of it.
        defer: Has something done soon, and may be called in a finalizer.
    """
    add = getattr(call, "add_callback", None)
    if add is None:
        _on_end_of_another_make(call, end, defer)
        return
    if _runs_only_while_iterated(call):
        # Its callbacks run on the thread that iterates; when it is dropped unfinished, nobody does any more.
        once = Once(end)
        end = once
        weakref.finalize(call, defer, once).atexit = False
    # add_done_callback would keep a stream that was dropped alive for ever, and running.
    if not add(end):
        end()


def _on_end_of_another_make(call: Any, end: Callable[[], None], defer: Callable[[Callable[[], object]], None]) -> None:
    """For what interceptors return: a future and no more, or a generator, which is over when it is dropped."""
    if hasattr(call, "add_done_callback"):
        call.add_done_callback(lambda _: end())
        return
    try:
        weakref.finalize(call, defer, end).atexit = False
    except TypeError:
        # Nothing tells when that is over; a place that never comes back is worse than one that comes back early.
        end()


def weak(call: Any) -> Callable[[], Any]:
    """A weak reference to `call`, or, to what cannot be referred to so, one that has nothing."""
    try:
        return weakref.ref(call)
    except TypeError:
        return lambda: None


def _runs_only_while_iterated(call: object) -> bool:
    """Whether this is a stream of a channel with the option `SingleThreadedUnaryStream`."""
    return type(call).__name__ == "_SingleThreadedRendezvous"
