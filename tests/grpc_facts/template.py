"""A program that is ready to run scenarios, each in a process that it forks; run by `programs`.

What every scenario needs is imported here once, with the parts of the project that know nothing of gRPC, and the
project's other modules are compiled once. gRPC and those are not imported here: each scenario imports them again, with
its own names.

A line of input is a scenario; the line of output that follows says how it ended.
"""

from __future__ import annotations

import asyncio  # noqa: F401 -- for the scenarios
import importlib
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import signal
import sys
import tempfile
import traceback
import types
from collections.abc import Sequence
from typing import IO, Any, NoReturn

import psutil  # noqa: F401 -- for the scenarios
import pytest  # noqa: F401 -- for the scenarios

from grpc_facts import renaming

_TESTS = pathlib.Path(__file__).parents[1]
# Parts of the project that no scenario imports.
_UNUSED = {"_demo", "cli", "contrib"}
# Parts that import nothing of gRPC, as one of the contracts of import-linter says.
_PURE = ("_machine", "_values")


class Compiled:
    """Finds the project's modules, which are compiled already."""

    def __init__(self) -> None:
        """Compiles them."""
        self._codes: dict[str, types.CodeType] = {}
        spec = importlib.util.find_spec("grpcpool")
        assert spec is not None
        assert spec.origin is not None
        package = pathlib.Path(spec.origin).parent
        for folder in (package, _TESTS / "support", _TESTS / "aio_calls"):
            for path in folder.rglob("*.py"):
                if not (path.name.startswith("test_") or _UNUSED.intersection(path.relative_to(folder).parts)):
                    self._codes[str(path)] = compile(path.read_bytes(), path, "exec", dont_inherit=True)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module, if it is compiled."""
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None or spec.origin not in self._codes:
            return None
        spec.loader = _Loader(fullname, spec.origin, self._codes[spec.origin])
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, fullname: str, path: str, code: types.CodeType) -> None:
        super().__init__(fullname, path)
        self._code = code

    def get_code(self, fullname: str) -> types.CodeType:
        return self._code


def _import_pure_parts() -> None:
    """Imports the parts that know no gRPC, without the package itself, which imports the others."""
    spec = importlib.util.find_spec("grpcpool")
    assert spec is not None
    package = types.ModuleType("grpcpool")
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["grpcpool"] = package
    for part in _PURE:
        for path in pathlib.Path(package.__path__[0], part).glob("[!_]*.py"):
            importlib.import_module(f"grpcpool.{part}.{path.stem}")
    del sys.modules["grpcpool"]
    assert "grpc" not in sys.modules


def _run(what: dict[str, Any], out: IO[bytes], err: IO[bytes]) -> NoReturn:
    """Runs a scenario in this process, which is its own, and ends the process."""
    try:
        # A scenario that hangs is killed by this.
        signal.alarm(what["seconds"])
        null = os.open(os.devnull, os.O_RDONLY)
        for descriptor, own in ((null, 0), (out.fileno(), 1), (err.fileno(), 2)):
            os.dup2(descriptor, own)
        renaming.run(what)
    except BaseException:  # noqa: BLE001 -- whatever it is, the process ends here
        traceback.print_exc()
    os._exit(1)


def main() -> None:
    """Runs scenarios until its input ends."""
    compiled: Any = Compiled()
    sys.meta_path.insert(0, compiled)
    _import_pure_parts()
    for line in sys.stdin:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            pid = os.fork()
            if not pid:
                _run(json.loads(line), out, err)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            out.seek(0)
            err.seek(0)
            ended = {"code": code, "out": out.read().decode(), "err": err.read().decode(errors="replace")}
        sys.stdout.write(json.dumps(ended) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
