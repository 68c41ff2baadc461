"""Runs scenarios in processes of their own, with a gRPC that has other private names."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

from grpc_facts.renaming import NEW

_HERE = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a scenario ended.

    Attributes:
        result: What it returned.
        warnings: What the pool warned of.
    """

    result: Any
    warnings: list[str]

    def warned_of(self, name: str) -> bool:
        """Whether there was a warning, exactly one, that gRPC lacks the name."""
        return sum(f" has no {name}: " in warning for warning in self.warnings) == 1


@dataclasses.dataclass(frozen=True)
class Changed:
    """A gRPC with other names.

    Attributes:
        patterns: What is replaced in its sources, and by what.
        modules: New names of modules, and the old ones.
        hidden: Names of the compiled part that have a prefix.
    """

    patterns: dict[str, str] = dataclasses.field(default_factory=dict)
    modules: dict[str, str] = dataclasses.field(default_factory=dict)
    hidden: tuple[str, ...] = ()

    def run(self, scenario: str, *arguments: Any, seconds: float = 60) -> Ended:
        """Runs a function of `scenarios` in a fresh interpreter; it must end well, and within so many `seconds`."""
        what = {**dataclasses.asdict(self), "scenario": scenario, "arguments": arguments}
        path = os.pathsep.join([str(_HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        done = subprocess.run(  # noqa: S603 -- our own program
            [sys.executable, str(_HERE / "renaming.py"), json.dumps(what)],
            env={**os.environ, "PYTHONPATH": path, "GRPC_VERBOSITY": "NONE"},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return Ended(**json.loads(done.stdout.splitlines()[-1]))


UNCHANGED = Changed()


def renamed(*names: str) -> Changed:
    """A gRPC in which these names of its Python part are others."""
    return Changed({rf"\b{re.escape(name)}\b": NEW + name.lstrip("_") for name in names})


def attribute_renamed(name: str) -> Changed:
    """A gRPC in which this attribute, which is also a common word or the name of a module, is another."""
    return Changed({rf"\bself\.{re.escape(name)}\b": f"self.{NEW}{name.lstrip('_')}"})
