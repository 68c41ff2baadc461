"""The global names of this process's modules, read without running code of modules or of what they hold."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

# A module that is imported lazily may have a `__dict__` of its own, which imports it.
_GLOBALS: Final[Any] = vars(ModuleType)["__dict__"]


def modules() -> Iterator[tuple[str, ModuleType]]:
    """The modules that are loaded, or that are about to be, with the names by which they are imported."""
    for name, module in list(sys.modules.items()):
        # Programs may put anything there.
        if issubclass(type(module), ModuleType):
            yield name, module


def globals_of(module: ModuleType) -> list[tuple[str, Any]]:
    """The global names of a module, and their values."""
    return list((_GLOBALS.__get__(module) or {}).items())
