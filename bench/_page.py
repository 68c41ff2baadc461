"""Shows the kept results of the benchmarks: as a drawing, as tables, and in the page about them.

What the page has between two comments, ``<!-- drawn: NAME -->`` and ``<!-- end -->``, is drawn from the results; the
rest of its text must hold for any results.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from _results import DATA, FEW, MISSED, PANELS, load

PAGE = DATA.parents[1] / "explanation" / "cost.md"
_DRAWN = re.compile(r"(?<=<!-- drawn: )(\w+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)

_POOL_SIDES = ("pool", "machine", "least loaded", "grpcpool")
"""Names of the measured side that the tables leave out."""


def ratios(panel: str) -> list[dict[str, Any]]:
    """Returns the rows of one group that have a ratio."""
    return [row for row in load()["rows"] if row["panel"] == panel and row["ratio"] is not None]


def draw() -> None:
    """Draws the ratios into ``bench.svg``: one line for each row, with its spread and its bound."""
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
        missed = row["verdict"] == MISSED
        style = {"marker": "D", "color": "tab:red"} if missed else {"marker": "o", "color": "tab:blue"}
        label = "ratio, bound missed" if missed else "ratio, with its spread"
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


def spread_text(row: dict[str, Any]) -> str:
    """Returns the spread of a row's ratio, and says so if it is that of all rounds; empty if there is none."""
    if row["low"] is None:
        return ""
    of_all = " (all)" if row["rounds"] < FEW else ""
    return f"{row['low']:.2f} to {row['high']:.2f}{of_all}"


def table(panel: str) -> str:
    """Returns the rows of one group as a Markdown table, without columns that would be empty."""
    header = ("what", "value", "compared with", "its value", "ratio", "spread", "bound")
    rows = [_cells(row) for row in load()["rows"] if row["panel"] == panel]
    shown = [number for number in range(len(header)) if any(cells[number] for cells in rows)]
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("|".join(["", *(f" {line[number]} " for number in shown), ""]) for line in lines)


def _cells(row: dict[str, Any]) -> list[str]:
    unit = row["unit"].replace("us", "µs")
    ours, base = (
        "" if value is None else f"{figure_text(value)} {unit}" for value in (row["our_value"], row["base_value"])
    )
    ratio = "" if row["ratio"] is None else f"{row['ratio']:.3f}"
    sign = "≥" if row["at_least"] else "≤"
    met = "**missed**" if row["verdict"] == MISSED else row["verdict"]
    bound = "" if row["bound"] is None else f"{sign} {row['bound']:g}: {met}"
    side = "" if row["ours"] in _POOL_SIDES else f": {row['ours']}"
    return [f"{row['what']}{side}", ours, row["base"], base, ratio, spread_text(row), bound]


def conditions_text() -> str:
    """Returns with what, where and how long it was measured."""
    held = load()
    versions = ", ".join(f"{name} {version}" for name, version in held["versions"].items())
    machine, runs = held["machine"], held["runs"].values()
    loads = [run["load_average"] for run in runs]
    return (
        f"{versions}; {machine['cores']} cores ({machine['CPU']}), {machine['OS']}. The scripts took "
        f"{sum(run['seconds'] for run in runs) / 60:.0f} minutes. When each began, the load average was between "
        f"{min(loads):g} and {max(loads):g}; earlier scripts add to it."
    )


def bounds_text() -> str:
    """Returns how many bounds were met, and lists the others."""
    bounded = [row for row in load()["rows"] if row["bound"] is not None]
    missed = [_cells(row) for row in bounded if row["verdict"] == MISSED]
    if not missed:
        return f"All {len(bounded)} bounds are met."
    lines = [f"{len(bounded) - len(missed)} of {len(bounded)} bounds are met. Missed are:", ""]
    for what, value, _, _, ratio, _, bound in missed:
        figure = f"ratio {ratio}" if ratio else value
        lines.append(f"- {what}: {figure}, bound {bound.partition(':')[0]}")
    return "\n".join(lines)


def filled(page: str) -> str:
    """Returns the page with what is drawn from the results."""
    texts = {"conditions": conditions_text(), "bounds": bounds_text(), **{panel: table(panel) for panel in PANELS}}
    return _DRAWN.sub(lambda found: f"{found[1]}{found[2]}\n{texts[found[1]]}\n\n", page)


def fill() -> None:
    """Draws the results into the page."""
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
