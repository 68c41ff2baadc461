"""Callbacks that users add to a call that gRPC, or an interceptor, has made: none of them stops gRPC's thread.

gRPC runs the callbacks of all calls of a channel on one thread. A callback that raises ends that thread, and with it
every later `future()` and stream on the channel: they never end, and their places are lost. So what it raises is
logged. A callback that makes a call may wait for a place there, and that for the ends of calls that this very thread
would report. So the pool runs it on another.

A call of gRPC's stays as it is; its list of callbacks is replaced by one that wraps what is added. Any other call is
changed to a subclass of its class. A method as an attribute of the call would not do: with the usual
``stub.Method.future(requests).add_done_callback(fn)`` the bound method alone keeps the call, and an attribute that
refers to the call would keep a dropped stream running.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

from .client_modules import CLIENT_MODULES, is_within_call
from .failed_streams import runs_only_while_iterated
from .missing import warn_of_missing

_logger = logging.getLogger("grpcpool")

# There are two or three; interceptors may define a class for each call.
_MOST_CLASSES: Final = 64

_classes: dict[tuple[type, tuple[str, ...]], type] = {}


Run = Callable[[Callable[[], None]], object]
"""Runs a callback, on another thread, and logs what it raises."""


def blocks_others(call: object) -> bool:
    """Whether a callback of `call` that blocks here, where the call reports its end, keeps other calls from ending."""
    return is_within_call() and not runs_only_while_iterated(call)


def log_callbacks(call: Any, run: Run) -> None:
    """From here on, what the callbacks that are added to `call` raise is logged.

    A call of gRPC's own passes those that would hold up others to `run`.
    """
    if not _replace_list(call, run):
        _change_class(call, run)


def _replace_list(call: Any, run: Run) -> bool:
    """Replaces the list of a call of gRPC's; returns `False` if it has none that is known."""
    if type(call).__module__ not in CLIENT_MODULES or not hasattr(call, "_state"):
        return False
    state = call._state
    if not hasattr(state, "callbacks") or not hasattr(state, "condition"):
        warn_of_missing("_state.callbacks")
        return False
    with state.condition:
        # There is none any more when the call is over.
        if state.callbacks is not None:
            callbacks = state.callbacks = _Callbacks(state.callbacks)
            callbacks.run = None if runs_only_while_iterated(call) else run
    return True


class _Callbacks(list[Callable[[], None]]):
    """The callbacks of a call of gRPC's. Those that are there already are the pool's, which do not raise."""

    __slots__ = ("run",)

    run: Run | None

    def append(self, callback: Callable[[], None]) -> None:
        """Adds it; what it raises is logged."""
        super().append(_Logged(callback, added_by=None, run=self.run))


def _change_class(call: Any, run: Run) -> None:
    try:
        # Not by the `__setattr__` of its class, which may forbid changes.
        object.__setattr__(call, "__class__", _logging(call))
    except Exception:  # noqa: BLE001 -- a class of an interceptor's may forbid subclasses in any way
        # A proxy as of `wrapt`. Other objects stay as they are.
        inner = getattr(call, "__wrapped__", None)
        if inner is not None:
            log_callbacks(inner, run)


def _logging(call: Any) -> type:
    """The subclass of the class of `call` that logs; made once."""
    kind = type(call)
    # Only those that the call has: interceptors ask which those are.
    names = tuple(name for name in ("add_callback", "add_done_callback") if hasattr(call, name))
    known = _classes.get((kind, names))
    if known is None:
        if len(_classes) >= _MOST_CLASSES:
            _classes.clear()
        known = _classes[kind, names] = _subclass(kind, names)
        # So a call that comes a second time stays as it is.
        _classes[known, names] = known
    return known


def _subclass(kind: type, names: tuple[str, ...]) -> type:
    def adder(name: str) -> Callable[..., Any]:
        return lambda call, *given, **named: _add(_own(super(made, call), name), *given, **named)

    # It has the layout of `kind`, as a change of class demands, and looks like it in texts.
    like_kind = {"__slots__": (), "__module__": kind.__module__, "__qualname__": kind.__qualname__}
    made: Any = type(kind)(kind.__name__, (kind,), {name: adder(name) for name in names} | like_kind)
    return cast("type", made)


def _own(of_class: Any, name: str) -> Callable[..., Any]:
    """The method of the call's own class, which may delegate it to another object."""
    try:
        method: Callable[..., Any] = getattr(of_class, name)
    except AttributeError:
        method = of_class.__getattr__(name)
    return method


def _add(add: Callable[..., Any], *given: Callable[..., None], **named: Callable[..., None]) -> Any:
    """Adds the callback, however it is passed."""
    logged = [_Logged(callback, added_by=threading.get_ident(), run=None) for callback in (*given, *named.values())]
    try:
        return add(*logged[: len(given)], **dict(zip(named, logged[len(given) :], strict=True)))
    finally:
        for one in logged:
            one.added_by = None


class _Logged:
    """A callback. It runs where the call reports its end; or, if that is over, within the method that adds it.

    That method raises what it raises.
    """

    __slots__ = ("added_by", "callback", "run")

    def __init__(self, callback: Callable[..., None], *, added_by: int | None, run: Run | None) -> None:
        """Runs `callback`.

        Args:
            callback: A user's.
            added_by: The thread that is adding it, as long as it is.
            run: Runs it instead of gRPC's thread.
        """
        self.callback = callback
        self.added_by = added_by
        self.run = run

    def __call__(self, *arguments: Any) -> None:
        """Runs the callback."""
        if self.run is not None and is_within_call():
            self.run(partial(self.callback, *arguments))
            return
        try:
            self.callback(*arguments)
        except BaseException:
            if self.added_by == threading.get_ident():
                raise
            _logger.exception("a callback of a call failed")
