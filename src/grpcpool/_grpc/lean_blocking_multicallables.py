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

    It becomes one of a subclass, whose methods are gRPC's code, in which other objects stand for two names.
    """
    own: Any = type(multicallable)
    lean = _lean(own, frozenset((name, of) for name, of in vars(own).items() if type(of) is types.FunctionType))
    if lean is not None:
        multicallable.__class__ = lean


@functools.cache
def _lean(own: Any, functions: Functions) -> Any:
    """The subclass of `own`; `None` if none of its functions use what others can stand for.

    What tracers put in the place of gRPC's functions stays.
    """
    module = vars(sys.modules[own.__module__])
    stand_ins = _stand_ins(module)
    grpcs = {name: of for name, of in functions if of.__globals__ is module}
    if all(stand_ins.keys().isdisjoint(of.__code__.co_names) for of in grpcs.values()):
        return None
    return _subclass(own, {name: _with(stand_ins, of) for name, of in grpcs.items()})


def _stand_ins(module: dict[str, Any]) -> dict[str, Any]:
    """What stands for which of the module's names."""
    found: dict[str, Any] = {}
    state, flags = module.get(_STATE), module.get(_FLAGS)
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
    # A copy: Python notes in code what it has found by its names, and would look again at each change of their values.
    code, names = own.__code__.replace(), {**own.__globals__, **stand_ins}
    changed = types.FunctionType(code, names, own.__name__, own.__defaults__, own.__closure__)
    changed.__kwdefaults__ = own.__kwdefaults__
    return changed


def _subclass(own: Any, attributes: dict[str, Any]) -> Any:
    """Passes for `own` in what is printed."""
    named = {"__slots__": (), "__module__": own.__module__, "__qualname__": own.__qualname__, "__doc__": own.__doc__}
    return type(own)(own.__name__, (own,), {**named, **attributes})
