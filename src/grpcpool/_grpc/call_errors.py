"""The class that errors of gRPC's blocking calls are of, and whether the server of a failed call has answered."""

from __future__ import annotations

import sys
import time
from typing import Any, TypeVar

import grpc

from .client_modules import CLIENT_MODULES, WHOLE_MODULES
from .missing import warn_of_missing

E = TypeVar("E", bound=Exception)

_NAME = "_InactiveRpcError"

# Seconds. What is pending comes within a millisecond, unless gRPC's thread is held up.
_PENDING_AT_MOST = 0.5
_PAUSE = 0.0005

# By the class that was asked about.
_kinds: dict[type, type] = {}


def with_grpcs_own(kind: type[E], *sample: Any) -> type[E]:
    """A class that is `kind` and, where that is possible, gRPC's class of errors of blocking calls.

    That class is private, but many except clauses name it. It is not imported for this: see
    `client_modules`.

    Args:
        kind: A class of errors.
        sample: Arguments with which `kind` is made, to try the new class with.
    """
    made = _kinds.get(kind)
    if made is None:
        modules = [sys.modules[name] for name in CLIENT_MODULES if name in sys.modules]
        found = [getattr(module, _NAME) for module in modules if hasattr(module, _NAME)]
        if not found and not WHOLE_MODULES:
            # No channel was made yet; a later error may be of gRPC's class.
            return kind
        made = _kinds[kind] = _made_of(kind, found, sample)
    return made


def _made_of(kind: type[E], found: list[type], sample: tuple[Any, ...]) -> type[E]:
    try:
        made = type(kind.__name__, (kind, found[0]), {"__module__": kind.__module__, "__doc__": kind.__doc__})
        made(*sample)
    except Exception:  # noqa: BLE001 -- another order of bases, a final class, further abstract methods: it is private
        warn_of_missing(_NAME)
        return kind
    return made


def has_answered(error: Any) -> bool | None:
    """Whether the server of a sync call that is over, or of an error, sent initial metadata; `None` if unknown.

    The public method of a sync call may wait for the thread of gRPC's on which this may run, so it is asked only of
    errors known not to wait. Anything else is unknown: what interceptors raise, calls of other implementations, and
    calls of a pool within this one, which has dealt with the refusal itself. It may also be unknown yet: see
    `is_answer_pending`.
    """
    state: Any = getattr(error, "_state", None)
    if hasattr(state, "initial_metadata"):
        return None if state.initial_metadata is None else bool(state.initial_metadata)
    kind = type(error)
    if isinstance(error, grpc.aio.AioRpcError) or (kind.__name__ == _NAME and kind.__module__ in CLIENT_MODULES):
        said = error.initial_metadata()
        return None if said is None else bool(said)
    if kind.__module__ in CLIENT_MODULES:
        warn_of_missing("_state")
    return None


def is_answer_pending(call: Any) -> bool:
    """Whether gRPC has yet to see if the server of a stream sent initial metadata.

    gRPC's thread often takes note of the end of a stream first (measured: of most that are refused, and of up to a
    third that are answered and reset in one packet), and of the metadata, or of its absence, immediately afterwards.
    """
    state: Any = getattr(call, "_state", None)
    return hasattr(state, "initial_metadata") and state.initial_metadata is None and type(call).__name__ != _NAME


def has_answered_in_the_end(call: Any) -> bool | None:
    """As `has_answered`, but waits a moment if it is pending. Not on gRPC's thread, which would wait for itself."""
    until = time.monotonic() + _PENDING_AT_MOST
    # In this order: it may come in between.
    while is_answer_pending(call) and time.monotonic() < until:
        time.sleep(_PAUSE)
    return has_answered(call)
