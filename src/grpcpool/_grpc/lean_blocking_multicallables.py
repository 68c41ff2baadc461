"""What gRPC's blocking multicallables do for each call although a pool does not need it, and what takes its place.

Together it is an eighth of a unary call: a lock that is made by code of Python, which copies five methods into it, an
object for two flags, and a lock for the whole process to find that nobody observes calls. For each message of a stream
it is two functions that wait for it, where one would do.
"""

from __future__ import annotations

import functools
import itertools
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from .client_modules import CLIENT_MODULES
from .unbroken_locks import call_lock_like

_STATE = "_RPCState"
_FLAGS = "_InitialMetadataFlags"
_WITH = "with_wait_for_ready"
_OBSERVABILITY = "_observability"
_RECORD = "maybe_record_rpc_latency"
_FIND = "get_plugin"
_PLUGIN = "_OBSERVABILITY_PLUGIN"
_COMMON = "_common"
_WAIT = "wait"
_ONCE = "_wait_once"
_STREAM = "_MultiThreadedRendezvous"
_NEXT = "_next"
_READS = "grpcpool_reads"

# The functions that multicallables call with what has another object in its place, the called before the calling.
_CALLED = ("_handle_event", "_event_handler")

# All that gRPC uses to record the latency of a call, which it does if there is a plugin.
_RECORDING = {
    "_SERVICES_TO_EXCLUDE",
    "method",
    "encode",
    _FIND,
    "stats_enabled",
    "rpc_end_time",
    "rpc_start_time",
    "record_rpc_latency",
    "target",
    "code",
}

# All that gRPC uses to wait: for a tenth of a second, again and again, so that signal handlers can run.
_WAITING = {_ONCE, "MAXIMUM_WAIT_TIMEOUT", "time", "min"}

# What gRPC's code finds within what its global names stand for.
_WITHIN = (
    (_OBSERVABILITY, _RECORD),
    (_OBSERVABILITY, _FIND),
    (_COMMON, _WAIT),
    (_COMMON, _ONCE),
    (_STREAM, _NEXT),
)

# No name in code.
_REPLACED = ""

# Of the states of gRPC's code, so many are remembered: what replaces names, such as a tracer, may come and go.
_MOST = 32

Functions = frozenset[tuple[str, types.FunctionType]]
Names = dict[str, Any]
Ids = tuple[int, ...]


def make_lean(multicallable: Any) -> None:
    """Makes the calls of a multicallable of a channel without interceptors cheaper.

    It becomes one of a subclass, whose methods are gRPC's code, in which other objects stand for some names.
    """
    own: Any = type(multicallable)
    if own.__module__ not in CLIENT_MODULES:
        return
    functions = frozenset((name, of) for name, of in vars(own).items() if type(of) is types.FunctionType)
    lean = _lean(own, functions, _ids(own.__module__))
    if lean is not None:
        multicallable.__class__ = lean


def _ids(module: str) -> Ids:
    """Other ones if something that gRPC's code uses was replaced."""
    return tuple(map(id, _used(vars(sys.modules[module]))))


def _used(module: Names) -> list[Any]:
    """What the global names of a module of gRPC's stand for, and what is called within that."""
    return [*module.values(), *(_within(module.get(name), within) for name, within in _WITHIN)]


def _within(home: Any, name: str) -> Any:
    """What a module or class has by that name; not what it returns if asked for it, which may be new each time."""
    return getattr(home, "__dict__", {}).get(name)


@functools.lru_cache(_MOST)
def _lean(own: Any, functions: Functions, ids: Ids) -> Any:
    """The subclass of `own`; `None` if none of its functions use what others can stand for.

    What tracers put in the place of gRPC's functions stays.
    """
    module = vars(sys.modules[own.__module__])
    names = _names(own.__module__, ids)
    stand_ins = {name for name, of in names.items() if module.get(name) is not of}
    grpcs = {name: of for name, of in functions if _is_of(module, of)}
    if all(stand_ins.isdisjoint(of.__code__.co_names) for of in grpcs.values()):
        return None
    return _subclass(own, {name: _with(names, of) for name, of in grpcs.items()})


@functools.lru_cache(_MOST)
def _names(module: str, _ids: Ids) -> Names:
    """The global names of a module of gRPC's, in which other objects stand for some.

    One dictionary for all functions: what they look up is in the processor's caches more often.
    """
    own = vars(sys.modules[module])
    names = dict(own)
    # Also what others stand for: while these names are remembered, nothing else gets one of the ids.
    names[_REPLACED] = _used(own)
    for name, lean in ((_FLAGS, _lean_flags), (_OBSERVABILITY, _lean_observability), (_COMMON, _lean_waits)):
        names.update(lean(own.get(name)))
    state: Any = own.get(_STATE)
    make: Any = getattr(state, "__init__", None)
    if isinstance(state, type) and _is_of(own, make):
        # Its conditions are those of calls.
        names["threading"] = _module_like(threading, Condition=call_lock_like(threading.Condition()))
        names[_STATE] = _subclass(state, {"__init__": _with(names, make), _READS: _reads(names, own)})
    names.update((name, _with(names, own[name])) for name in _CALLED if _is_of(own, own.get(name)))
    return names


def _reads(names: Names, module: Names) -> tuple[Any, Any]:
    """What reads the next message of a stream: gRPC's function, and what stands for it."""
    own: Any = _within(module.get(_STREAM), _NEXT)
    return own, _with(names, own) if _is_of(module, own) else own


def read_of(stream: Any) -> Any:
    """The function that reads the next message of a stream of gRPC's: that of its class, or what stands for it."""
    of_class = type(stream)._next
    own, lean = getattr(getattr(stream, "_state", None), _READS, (None, None))
    return lean if of_class is own else of_class


def _is_of(module: Names, function: Any) -> bool:
    """Whether it is a function of the module, not what a tracer has put in its place."""
    return isinstance(function, types.FunctionType) and function.__globals__ is module


def _lean_observability(own: Any) -> Names:
    """Asks whether there is a plugin before all else; without one, gRPC takes a lock to find that out."""
    record, find = getattr(own, _RECORD, None), getattr(own, _FIND, None)
    found = getattr(getattr(find, "__wrapped__", None), "__code__", None)
    if not (isinstance(record, types.FunctionType) and _RECORDING.issuperset(record.__code__.co_names)):
        return {}
    if found is None or found.co_names[1:] != (_PLUGIN,):
        return {}
    names = vars(own)

    def record_if_observed(state: Any) -> None:
        if names[_PLUGIN] is not None:
            record(state)

    return {_OBSERVABILITY: _module_like(own, **{_RECORD: record_if_observed})}


def _lean_waits(own: Any) -> Names:
    """Waits within one function for what has no time limit. gRPC calls another, which can do something after each."""
    wait, once = getattr(own, _WAIT, None), getattr(own, _ONCE, None)
    if not (isinstance(wait, types.FunctionType) and set(wait.__code__.co_names) == _WAITING):
        return {}
    if not (isinstance(once, types.FunctionType) and not once.__code__.co_names):
        return {}

    def wait_in_one(wait_fn: Any, wait_complete_fn: Any, timeout: Any = None, spin_cb: Any = None) -> Any:
        if timeout is not None or spin_cb is not None:
            return wait(wait_fn, wait_complete_fn, timeout, spin_cb)
        while not wait_complete_fn():
            wait_fn(own.MAXIMUM_WAIT_TIMEOUT)
        return False

    return {_COMMON: _module_like(own, **{_WAIT: wait_in_one})}


def _module_like(own: types.ModuleType, **changed: Any) -> types.ModuleType:
    """A module with the same names, except these."""
    module = types.ModuleType(own.__name__)
    vars(module).update(vars(own), **changed)
    return module


class _FlagsOf(dict[Any, Any]):
    """The flags of a call, by its argument `wait_for_ready`."""

    def __missing__(self, waits: Any) -> Any:
        return self[bool(waits)]


def _lean_flags(own: Any) -> Names:
    if not (isinstance(own, type) and [name for name in vars(own) if not name.startswith("__")] == [_WITH]):
        return {}
    return {_FLAGS: _flags(own)}


def _flags(own: Any) -> Callable[[], Any]:
    """Returns an object that looks flags up, always the same, instead of one that derives them."""
    flags = _FlagsOf((waits, own().with_wait_for_ready(waits)) for waits in (None, False, True))
    # Functions of C.
    return itertools.repeat(_subclass(own, {_WITH: flags.__getitem__})()).__next__


def _with(names: Names, own: types.FunctionType) -> types.FunctionType:
    """The same code, with other global names."""
    # A copy: Python notes in code what it has found by its names, and would look again at each change of their values.
    changed = types.FunctionType(own.__code__.replace(), names, own.__name__, own.__defaults__, own.__closure__)
    changed.__kwdefaults__ = own.__kwdefaults__
    return changed


def _subclass(own: Any, attributes: dict[str, Any]) -> Any:
    """Passes for `own` in what is printed."""
    named = {"__slots__": (), "__module__": own.__module__, "__qualname__": own.__qualname__, "__doc__": own.__doc__}
    return type(own)(own.__name__, (own,), {**named, **attributes})
