"""The names, in all modules, by which programs know a function, such as those that they imported from gRPC."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from .._shared.module_globals import globals_of, modules

# Their own names must lead to what they define.
_OWN: Final = ("grpc", "grpcpool")

# The old name of `grpc.aio`, from which it imports.
_ALIAS: Final = "grpc.experimental.aio"

# The attributes of classes, whatever their metaclasses say.
_ATTRIBUTES: Final[Any] = vars(type)["__dict__"]


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
        Name(module, name, value)
        for _, module in _foreign_modules()
        for name, value in globals_of(module)
        if id(value) in wanted
    ]


def hidden_in(functions: list[Callable[..., Any]]) -> list[str]:
    """Where modules hold one of the functions without a global name, so that it cannot be replaced.

    These are attributes of classes, default values of parameters, and arguments of `functools.partial`.
    """
    wanted = set(map(id, functions))
    found = {
        f"{module}.{name}"
        for module, home in _foreign_modules()
        for name, value in globals_of(home)
        if not wanted.isdisjoint(map(id, _held_by(value, module)))
    }
    return sorted(found)


def _foreign_modules() -> Iterator[tuple[str, types.ModuleType]]:
    return ((name, module) for name, module in modules() if name.partition(".")[0] not in _OWN or name == _ALIAS)


def _held_by(value: Any, module: str) -> Iterator[Any]:
    """What a global value of `module` holds, unless another module has defined it."""
    # By its type only: objects that are created lazily pass on all else to what they stand for, and would create it.
    kind = type(value)
    if issubclass(kind, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif kind is types.FunctionType and value.__module__ == module:
        yield from _defaults_of(value)
    elif issubclass(kind, type) and _ATTRIBUTES.__get__(value).get("__module__") == module:
        for attribute in list(_ATTRIBUTES.__get__(value).values()):
            plain = attribute.__func__ if issubclass(type(attribute), staticmethod | classmethod) else attribute
            yield plain
            if type(plain) is types.FunctionType:
                yield from _defaults_of(plain)


def _defaults_of(function: types.FunctionType) -> Iterator[Any]:
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
