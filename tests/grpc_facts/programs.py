"""Runs scenarios in processes of their own, with a gRPC that has other private names."""

from __future__ import annotations

import dataclasses
import functools
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

    def run(self, scenario: str, *arguments: Any, seconds: int = 60) -> Ended:
        """Runs a function of `scenarios` in a process of its own; it must end well, and within so many `seconds`."""
        what = {**dataclasses.asdict(self), "scenario": scenario, "arguments": arguments, "seconds": seconds}
        template = _template()
        assert template.stdin is not None
        assert template.stdout is not None
        template.stdin.write(json.dumps(what) + "\n")
        template.stdin.flush()
        done = json.loads(template.stdout.readline())
        assert done["code"] == 0, (done["code"], done["err"])
        return Ended(**json.loads(done["out"].splitlines()[-1]))


@functools.cache
def _template() -> subprocess.Popen[str]:
    """The program that runs scenarios, started when the first one is to run."""
    path = os.pathsep.join([str(_HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(  # our own program
        [sys.executable, "-m", "grpc_facts.template"],
        env={**os.environ, "PYTHONPATH": path, "GRPC_VERBOSITY": "NONE"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def end_template() -> None:
    """Ends the program that runs scenarios, if it was started."""
    if _template.cache_info().currsize:
        # Its input ends.
        _template().communicate(timeout=10)
        _template.cache_clear()


UNCHANGED = Changed()


def renamed(*names: str) -> Changed:
    """A gRPC in which these names of its Python part are others."""
    return Changed({rf"\b{re.escape(name)}\b": NEW + name.lstrip("_") for name in names})


def attribute_renamed(name: str) -> Changed:
    """A gRPC in which this attribute, which is also a common word or the name of a module, is another."""
    return Changed({rf"\bself\.{re.escape(name)}\b": f"self.{NEW}{name.lstrip('_')}"})
