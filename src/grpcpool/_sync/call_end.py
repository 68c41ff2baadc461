"""How a call that was handed out reports its end, exactly once, whichever way it ends."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Self

from .._grpc.failed_streams import Defer, end_when_it_fails, runs_only_while_iterated


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


def on_end(call: Any, end: Callable[[], None], defer: Defer, *, within: bool = False) -> Any:
    """Has `end` called when `call` is over; at once if it is over already.

    Args:
        call: What gRPC, or an interceptor, returned for a call that runs.
        end: Must be short, call no gRPC, and never raise: gRPC's thread would die of it.
        defer: See `Defer`.
        within: Whether it is read by another call, which sees to it that a stream that fails ends.

    Returns:
        What to hand out for the call: the call itself, but for iterators that tell nobody of their end.
    """
    if not within:
        end_when_it_fails(call)
    if runs_only_while_iterated(call):
        # Its callbacks run on the thread that iterates; when it is dropped unfinished, nobody does any more.
        end = Once(end)
        weakref.finalize(call, defer, end).atexit = False
    elif not hasattr(call, "add_callback") and not hasattr(call, "add_done_callback"):
        if hasattr(call, "__next__"):
            return WatchedIterator(call, end, defer)
        # Nothing tells when that is over; a place that never comes back is worse than one that comes back early.
        end()
        return call
    if not tell_at_end(call, end):
        end()
    return call


def tell_at_end(call: Any, callback: Callable[[], None]) -> bool:
    """Has `callback` called when `call` is over; `False` if it is over already."""
    # add_done_callback would keep a stream that was dropped alive for ever, and running.
    add = getattr(call, "add_callback", None)
    if add is not None:
        return bool(add(callback))
    # What interceptors return may be a future and no more.
    call.add_done_callback(lambda _: callback())
    return True


class WatchedIterator:
    """An interceptor's iterator or generator, which is over when it has been read, has failed, or is dropped."""

    def __init__(self, iterator: Any, end: Callable[[], None], defer: Defer) -> None:
        """Stands for `iterator`."""
        self._iterator = iterator
        self._end = Once(end)
        weakref.finalize(self, defer, self._end).atexit = False

    def __iter__(self) -> Self:
        """Is its own iterator."""
        return self

    def __next__(self) -> Any:
        """The next response."""
        try:
            return next(self._iterator)
        except BaseException:
            self._end()
            raise

    def __getattr__(self, name: str) -> Any:
        """Whatever else the iterator has."""
        return getattr(self._iterator, name)
