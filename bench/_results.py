"""The kept results of the benchmarks: rows, the file that holds them, and its drawing.

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
    "leases": "Leases and growth",
    "load": "Load and sick servers",
    "size": "Memory and time",
}
"""The groups of rows, and their titles."""


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
        low: A quarter of the rounds had a lower ratio; with fewer than four rounds, the lowest.
        high: A quarter of the rounds had a higher ratio; with fewer than four rounds, the highest.
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
    return "met" if met else "MISSED"


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


# --- the file -------------------------------------------------------------------------------------------------------


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


# --- the drawing and the table --------------------------------------------------------------------------------------


def ratios(panel: str) -> list[dict[str, Any]]:
    """Returns the rows of one group that have a ratio."""
    return [row for row in load()["rows"] if row["panel"] == panel and row["ratio"] is not None]


def draw() -> None:
    """Draws the ratios into ``bench.svg``: one line for each row, with its middle half and its bound."""
    import matplotlib as mpl  # noqa: PLC0415 (not needed to measure)

    mpl.use("svg")
    # The same data give the same drawing.
    mpl.rcParams["svg.hashsalt"] = DATA.stem
    from matplotlib import pyplot as plt  # noqa: PLC0415 (as above)

    panels = {panel: rows for panel in PANELS if (rows := ratios(panel))}
    figure, axes = plt.subplots(
        len(panels),
        1,
        figsize=(10, 1.5 * len(panels) + 0.28 * sum(map(len, panels.values()))),
        layout="constrained",
        squeeze=False,
        height_ratios=[len(rows) + 3 for rows in panels.values()],
    )
    for (panel, rows), axis in zip(panels.items(), axes.flat, strict=True):
        _draw_panel(axis, PANELS[panel], rows)
    handles = {label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels())}  # noqa: B905 -- equally long
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=len(handles))
    figure.savefig(DATA.with_suffix(".svg"), metadata={"Date": None})


def _draw_panel(axis: Any, title: str, rows: Sequence[dict[str, Any]]) -> None:
    for number, row in enumerate(rows):
        if row["low"] is not None:
            axis.plot([row["low"], row["high"]], [number, number], color="tab:blue", linewidth=4, alpha=0.35)
        if row["bound"] is not None:
            axis.plot(row["bound"], number, marker="|", color="black", markersize=13, linestyle="", label="bound")
        missed = row["verdict"] == "MISSED"
        style = {"marker": "D", "color": "tab:red"} if missed else {"marker": "o", "color": "tab:blue"}
        label = "ratio, bound missed" if missed else "ratio, with its middle half"
        axis.plot(row["ratio"], number, linestyle="", markersize=5, label=label, **style)
    axis.axvline(1, color="grey", linewidth=0.8, linestyle=":")
    axis.set_yticks(range(len(rows)), [f"{row['what']}: {row['ours']} / {row['base']}" for row in rows], fontsize=8)
    axis.set(title=title, ylim=(len(rows) - 0.5, -0.5), xlim=(0, None))
    axis.grid(axis="x", alpha=0.3)


def figure_text(value: float | None, digits: int = 3) -> str:
    """Returns a number as the table shows it; empty if there is none."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def table(panel: str) -> str:
    """Returns the rows of one group as a Markdown table."""
    lines = [
        "| what | compared with | base | pool | ratio | middle half | bound | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in load()["rows"]:
        if row["panel"] != panel:
            continue
        unit = row["unit"]
        base, ours = (
            "" if value is None else f"{figure_text(value)} {unit}".rstrip()
            for value in (row["base_value"], row["our_value"])
        )
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.3f}"
        half = "" if row["low"] is None else f"{row['low']:.2f} to {row['high']:.2f}"
        sign = "≥" if row["at_least"] else "≤"
        bound = "" if row["bound"] is None else f"{sign} {row['bound']:g}"
        what = f"{row['what']}: {row['ours']}"
        lines.append(f"| {what} | {row['base']} | {base} | {ours} | {ratio} | {half} | {bound} | {row['verdict']} |")
    return "\n".join(lines)
