"""The names, in all modules, by which programs know a function, such as those that they imported from gRPC."""

from __future__ import annotations

import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

# Their own names must lead to what they define.
_OWN = ("grpc", "grpcpool")


class Name(NamedTuple):
    """A global name of a module that stands for a function."""

    module: types.ModuleType
    name: str
    function: Callable[..., Any]

    def __str__(self) -> str:
        return f"{self.module.__name__}.{self.name}"


def names_of(functions: list[Callable[..., Any]]) -> list[Name]:
    """The global names that stand for one of the functions, in modules that are not gRPC's."""
    wanted = set(map(id, functions))
    return [
        Name(module, name, value) for module in _modules() for name, value in _globals(module) if id(value) in wanted
    ]


def hidden_in(functions: list[Callable[..., Any]]) -> list[str]:
    """Where modules hold one of the functions without a global name, so that it cannot be replaced.

    These are attributes of classes, default values of parameters, and arguments of `functools.partial`.
    """
    wanted = set(map(id, functions))
    found = {
        f"{module.__name__}.{name}"
        for module in _modules()
        for name, value in _globals(module)
        if getattr(value, "__module__", module.__name__) == module.__name__ or isinstance(value, functools.partial)
        if not wanted.isdisjoint(map(id, _held_by(value)))
    }
    return sorted(found)


def _modules() -> Iterator[types.ModuleType]:
    for name, module in list(sys.modules.items()):
        # Programs may put anything there.
        if issubclass(type(module), types.ModuleType) and name.partition(".")[0] not in _OWN:
            yield module


def _globals(module: types.ModuleType) -> list[tuple[str, Any]]:
    # Modules that are imported lazily may have a `__dict__` of their own, which imports them.
    held: Any = vars(types.ModuleType)["__dict__"]
    return list(held.__get__(module).items())


def _held_by(value: Any) -> Iterator[Any]:
    if isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif inspect.isfunction(value):
        yield from value.__defaults__ or ()
        yield from (value.__kwdefaults__ or {}).values()
    elif isinstance(value, type):
        for attribute in list(vars(value).values()):
            plain = attribute.__func__ if isinstance(attribute, staticmethod | classmethod) else attribute
            yield plain
            if inspect.isfunction(plain):
                yield from _held_by(plain)
