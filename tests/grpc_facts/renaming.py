"""Runs a scenario with a gRPC in which private names are others; called in the processes that `template` forks.

The names are replaced in the sources of gRPC's Python modules while they are imported: gRPC works as before, as its
next release would. Names of its compiled part are hidden from the objects that Python sees.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import logging
import os
import pathlib
import re
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

NEW = "renamed_"


class Finder(importlib.abc.MetaPathFinder):
    """Finds gRPC's modules, and changes their sources."""

    def __init__(self, patterns: dict[str, str], modules: dict[str, str]) -> None:
        """Replaces `patterns` (regular expressions) in sources; `modules` are new names and the old ones."""
        self._patterns = patterns
        self._modules = modules

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module, if it is gRPC's and written in Python."""
        if fullname.partition(".")[0] != "grpc":
            return None
        if fullname in self._modules.values():
            raise ModuleNotFoundError(fullname)
        old = self._modules.get(fullname, fullname)
        spec = importlib.machinery.PathFinder.find_spec(old, path)
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            return None if fullname == old else spec
        loader = _Loader(fullname, spec.origin, self._patterns)
        places = spec.submodule_search_locations
        return importlib.util.spec_from_file_location(
            fullname, spec.origin, loader=loader, submodule_search_locations=places
        )


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module from a changed source, and keeps no bytecode then; an unchanged one from its usual bytecode."""

    def __init__(self, fullname: str, path: str, patterns: dict[str, str]) -> None:
        super().__init__(fullname, path)
        self._patterns = patterns

    def get_code(self, fullname: str) -> types.CodeType | None:
        path = self.get_filename(fullname)
        source = changed = pathlib.Path(path).read_text(encoding="utf-8")
        for pattern, new in self._patterns.items():
            changed = re.sub(pattern, new, changed)
        if changed == source:
            return super().get_code(fullname)
        code: types.CodeType = compile(changed, path, "exec", dont_inherit=True)
        return code


class Hiding:
    """Stands for an object of gRPC's compiled part, some of whose names are others."""

    def __init__(self, inner: Any, hidden: list[str]) -> None:
        """Offers the `hidden` names only with a prefix."""
        self._inner = inner
        self._hidden = hidden

    def __getattr__(self, name: str) -> Any:
        """Whatever else there is."""
        if name in self._hidden:
            raise AttributeError(name)
        return getattr(self._inner, name.removeprefix(NEW))


Hiding.__module__ = "grpc._cython.cygrpc"

# Where Python gets to see the compiled objects.
_SEEN = {r"\bcygrpc\.Channel\(": "hiding_channel(", r"\bchannel\.call\(": "hiding_call(channel, "}


def install(patterns: dict[str, str], modules: dict[str, str], hidden: list[str]) -> None:
    """From here on gRPC is imported with other names."""
    if hidden:
        patterns = {**patterns, **{rf"\b{name}\b": NEW + name for name in hidden}, **_SEEN}

        def hiding_channel(*arguments: Any) -> Hiding:
            cygrpc: Any = importlib.import_module("grpc._cython.cygrpc")
            return Hiding(cygrpc.Channel(*arguments), hidden)

        def hiding_call(channel: Any, *arguments: Any) -> Hiding:
            return Hiding(channel.call(*arguments), hidden)

        for function in (hiding_channel, hiding_call):
            setattr(builtins, function.__name__, function)
    sys.meta_path.insert(0, Finder(patterns, modules))


class _Warnings(logging.Handler):
    """Keeps what was logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def _scenario(name: str) -> Callable[..., Any]:
    """The scenario of that name, of either world."""
    for module in ("grpc_facts.scenarios", "grpc_facts.read_scenarios", "grpc_facts.aio_scenarios"):
        scenario: Callable[..., Any] | None = getattr(importlib.import_module(module), name, None)
        if scenario is not None:
            return scenario
    raise LookupError(name)


def run(what: dict[str, Any]) -> NoReturn:
    """Runs the scenario, prints what it returns and what the pool has warned of, and ends the process."""
    install(what["patterns"], what["modules"], what["hidden"])
    warnings = _Warnings()
    logging.getLogger("grpcpool").addHandler(warnings)
    result = _scenario(what["scenario"])(*what["arguments"])
    sys.stdout.write(json.dumps({"result": result, "warnings": warnings.said}) + "\n")
    sys.stdout.flush()
    # gRPC itself may wait for a call that is left.
    os._exit(0)
