"""Mutants, and a loader for a copy of the machine with one of them.

A mutant replaces a text that occurs exactly once in a module. If a change of the module removes the text, write the
mutant again; do not drop it. Each stands for a mistake that the model must catch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import grpcpool
from machine.settings import Code

SOURCE = Path(grpcpool.__file__).parent


@dataclasses.dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake in one module.

    Attributes:
        name: What goes wrong.
        module: The module.
        old: The right text.
        new: The wrong text.
        why: Why the mistake is easily made.
    """

    name: str
    module: str
    old: str
    new: str
    why: str


def patched(mutant: Mutant) -> str:
    """The mutant's module as text.

    Raises:
        ValueError: The right text does not occur exactly once.
    """
    text = (SOURCE / "_machine" / f"{mutant.module}.py").read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: the text occurs {text.count(mutant.old)} times in {mutant.module}")
    return text.replace(mutant.old, mutant.new)


@functools.cache
def _compiled(path: Path, text: str) -> types.CodeType:
    """The code of a module. Mutants differ in one module each: the others are compiled once for all of them."""
    return compile(text, path, "exec", dont_inherit=True)


class _Copy(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the machine's modules again, under another package's name, and changes the one that is mutated."""

    def __init__(self, name: str, mutant: Mutant | None) -> None:
        """Finds what is imported from the package of that name."""
        self._name = name
        self._changed = {} if mutant is None else {SOURCE / "_machine" / f"{mutant.module}.py": patched(mutant)}

    def find_spec(self, fullname: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        """The module, if it is one of the copy."""
        package, *names = fullname.split(".")
        if package != self._name:
            return None
        file = SOURCE.joinpath(*names)
        is_package = file.is_dir()
        origin = str(file / "__init__.py" if is_package else file.with_suffix(".py"))
        return importlib.util.spec_from_loader(fullname, self, origin=origin, is_package=is_package)

    def exec_module(self, module: types.ModuleType) -> None:
        """Runs it. The package itself is empty: nothing but the machine is to be imported."""
        assert module.__spec__ is not None
        assert module.__spec__.origin is not None
        path = Path(module.__spec__.origin)
        if path.parent != SOURCE:
            exec(_compiled(path, self._changed.get(path) or path.read_text(encoding="utf-8")), vars(module))  # noqa: S102 -- our own


@contextlib.contextmanager
def loaded(mutant: Mutant | None) -> Iterator[Code]:
    """Loads a copy of the machine as a package of its own, with the mutation if one is given."""
    name = "copy_of_grpcpool"
    copy = _Copy(name, mutant)
    sys.meta_path.insert(0, copy)
    try:
        machine, openers, queue, config = (
            importlib.import_module(f"{name}.{module}")
            for module in ("_machine.machine", "_machine.openers", "_machine.queue", "_values.config")
        )
        yield Code(
            machine=machine.PoolMachine,
            waiter=queue.Waiter,
            open_waiter=openers.OpenWaiter,
            config=config.PoolConfig,
            mode=config.Mode,
        )
    finally:
        sys.meta_path.remove(copy)
        for module in [module for module in sys.modules if module.split(".")[0] == name]:
            del sys.modules[module]
