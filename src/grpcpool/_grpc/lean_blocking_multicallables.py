"""What gRPC's blocking multicallables do for each call although a pool does not need it, and what takes its place.

Together it is three hundredths of a unary call: a lock that is made by code of Python, which copies five methods into
it, and an object for two flags.
"""

from __future__ import annotations

import functools
import itertools
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from .unbroken_locks import call_lock_like

_STATE = "_RPCState"
_FLAGS = "_InitialMetadataFlags"
_WITH = "with_wait_for_ready"

Functions = frozenset[tuple[str, types.FunctionType]]


def make_lean(multicallable: Any) -> None:
    """Makes the calls of a multicallable of a channel without interceptors cheaper.

    It becomes one of a subclass, in whose methods, which are gRPC's code, other objects stand for two names.
    """
    own: Any = type(multicallable)
    lean = _lean(own, frozenset((name, of) for name, of in vars(own).items() if type(of) is types.FunctionType))
    if lean is not None:
        multicallable.__class__ = lean


@functools.cache
def _lean(own: Any, functions: Functions) -> Any:
    """The subclass of `own`; `None` if none of its functions use what others can stand for.

    What tracers put in the place of gRPC's functions uses nothing of the kind, and stays.
    """
    stand_ins = _stand_ins(vars(sys.modules[own.__module__]))
    uses = stand_ins.keys()
    changed = {name: _with(stand_ins, of) for name, of in functions if not uses.isdisjoint(of.__code__.co_names)}
    return _subclass(own, changed) if changed else None


def _stand_ins(names: dict[str, Any]) -> dict[str, Any]:
    """What stands for which of gRPC's names."""
    found: dict[str, Any] = {}
    state, flags = names.get(_STATE), names.get(_FLAGS)
    make = getattr(state, "__init__", None)
    if isinstance(state, type) and isinstance(make, types.FunctionType):
        found[_STATE] = _subclass(state, {"__init__": _with({"threading": _threading()}, make)})
    if isinstance(flags, type) and [name for name in vars(flags) if not name.startswith("__")] == [_WITH]:
        found[_FLAGS] = _flags(flags)
    return found


def _threading() -> types.ModuleType:
    """As the module, but its conditions are those of calls."""
    module = types.ModuleType(threading.__name__)
    vars(module).update(vars(threading), Condition=call_lock_like(threading.Condition()))
    return module


class _FlagsOf(dict[Any, Any]):
    """The flags of a call, by its argument `wait_for_ready`."""

    def __missing__(self, waits: Any) -> Any:
        return self[bool(waits)]


def _flags(own: Any) -> Callable[[], Any]:
    """Returns an object that looks flags up, always the same, instead of one that derives them."""
    flags = _FlagsOf((waits, own().with_wait_for_ready(waits)) for waits in (None, False, True))
    # Functions of C.
    return itertools.repeat(_subclass(own, {_WITH: flags.__getitem__})()).__next__


def _with(stand_ins: dict[str, Any], own: types.FunctionType) -> types.FunctionType:
    """The same code, in which other objects stand for some global names."""
    names = {**own.__globals__, **stand_ins}
    changed = types.FunctionType(own.__code__, names, own.__name__, own.__defaults__, own.__closure__)
    changed.__kwdefaults__ = own.__kwdefaults__
    return changed


def _subclass(own: Any, attributes: dict[str, Any]) -> Any:
    """Passes for `own` in what is printed."""
    named = {"__slots__": (), "__module__": own.__module__, "__qualname__": own.__qualname__, "__doc__": own.__doc__}
    return type(own)(own.__name__, (own,), {**named, **attributes})
