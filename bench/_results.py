"""The kept results of the benchmarks: rows, and the file that holds them; `_page.py` shows them.

A script passes its rows to `keep`. When ``bench/all.py`` runs the script, the rows are written to
``docs/experiments/bench.json``; when the script runs alone, it only prints its table.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import sys
from collections.abc import Iterable, Sequence
from typing import Any

DATA = pathlib.Path(__file__).parents[1] / "docs" / "experiments" / "bench.json"
ROWS_FILE = "GRPCPOOL_BENCH_ROWS"
"""The environment variable with the path of the file to which `keep` appends."""

PANELS = {
    "calls": "Calls",
    "leases": "Leases",
    "growth": "Growth",
    "memory": "Memory",
    "imports": "Imports",
    "load": "Load and sick servers",
    "journeys": "Functions that journeys pass",
}
"""The groups of rows, and their titles."""

FEW = 4
"""With fewer rounds, the spread of a row is that of all, otherwise that of the middle half."""

MISSED = "MISSED"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One result: a value, most often compared with a base.

    Attributes:
        panel: The group, a key of `PANELS`.
        what: What is measured.
        ours: The side of the pool.
        our_value: Its value, in `unit`.
        unit: The unit of both values.
        base: What it is compared with; empty if nothing.
        base_value: The value of the base.
        ratio: Ours by base. Not always the quotient of the two values: it may be the median of many ratios.
        low: A quarter of the rounds had a lower ratio; with fewer than `FEW` rounds, the lowest.
        high: A quarter of the rounds had a higher ratio; with fewer than `FEW` rounds, the highest.
        rounds: How often it was measured.
        bound: What the ratio may be at most; where there is no ratio, what the value may be.
        at_least: The bound is a lower one.
    """

    panel: str
    what: str
    ours: str
    our_value: float
    unit: str
    base: str = ""
    base_value: float | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    rounds: int = 1
    bound: float | None = None
    at_least: bool = False

    @property
    def verdict(self) -> str:
        """Whether the bound was kept, in a word; empty if there is no bound."""
        if self.bound is None:
            return ""
        figure = self.our_value if self.ratio is None else self.ratio
        return verdict(met=figure >= self.bound if self.at_least else figure <= self.bound)


def verdict(*, met: bool) -> str:
    """Whether a bound was kept, in a word."""
    return "met" if met else MISSED


def keep(rows: Iterable[Row]) -> None:
    """Writes the rows to the file that ``bench/all.py`` reads, if it runs the script."""
    path = os.environ.get(ROWS_FILE)
    if path is None:
        return
    with pathlib.Path(path).open("a", encoding="utf-8") as file:
        for row in rows:
            figures = {
                name: float(f"{value:.6g}") if isinstance(value, float) else value
                for name, value in dataclasses.asdict(row).items()
            }
            line = {"script": pathlib.Path(sys.argv[0]).name, **figures, "verdict": row.verdict}
            file.write(f"{json.dumps(line)}\n")


def conditions() -> dict[str, Any]:
    """Returns the versions and the machine."""
    packages = {name: importlib.metadata.version(name) for name in ("grpcio", "grpcpool")}
    return {
        "versions": {"Python": platform.python_version(), **packages},
        "machine": {"cores": os.cpu_count(), "CPU": _cpu_model(), "OS": f"{platform.system()} {platform.release()}"},
    }


def _cpu_model() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor())


def load() -> dict[str, Any]:
    """Returns what the file holds."""
    result: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    return result


def replace(script: str, rows: Sequence[dict[str, Any]], *, seconds: float, load_average: float) -> None:
    """Replaces the rows of one script in the file.

    The rows of others stay only if they were measured on this machine with these versions.
    """
    now = conditions()
    before = load() if DATA.exists() else {}
    if any(before.get(name) != value for name, value in now.items()):
        before = {}
    runs = {**before.get("runs", {}), script: {"seconds": round(seconds), "load_average": round(load_average, 1)}}
    others = [row for row in before.get("rows", []) if row["script"] != script]
    held = {**now, "runs": dict(sorted(runs.items())), "rows": sorted([*others, *rows], key=lambda row: row["script"])}
    DATA.write_text(f"{json.dumps(held, indent=1)}\n", encoding="utf-8")
