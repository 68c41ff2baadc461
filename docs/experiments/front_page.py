"""Draws the front page's picture from the data of two experiments: ``python docs/experiments/front_page.py``.

Left, the calls that failed while one of three servers was sick; right, those that failed with many callers on a server
that allows 100 streams per connection.
"""

from __future__ import annotations

import csv
import pathlib
import statistics
from typing import Any

from experiment import chunks, pyplot
from sick_server import WAYS, failed_percent, sick_rows

FOLDER = pathlib.Path(__file__).parent
PICTURE = FOLDER / "front_page.svg"
KIND = "fails at once"
LOADS = ("150", "300")
PRECISE_BELOW = 10
LABELS = {
    "one channel": "one channel\n",
    "8 equal channels": "eight equal\nchannels",
    "gRPC's scaling": "gRPC's\nscaling",
    "round_robin": "round_robin\n",
    "outlier detection": "round_robin +\noutlier detection",
    "grpcpool": "grpcpool\n",
}
GREY, LIGHT, BLUE, LIGHT_BLUE = "#8a919c", "#b8bdc5", "#1f6feb", "#7fb0f5"

Bar = tuple[str, float, float]


def while_sick() -> list[Bar]:
    """Returns way, failed percent and p99 of the seconds in which a server failed its calls."""
    return [
        (way, failed_percent(of_way), statistics.median(float(row["p99_ms"]) for row in of_way))
        for (kind, way), of_way in chunks(sick_rows(), "kind", "way")
        if kind == KIND
    ]


def at_the_limit(load: str) -> list[Bar]:
    """Returns way, failed percent and p99 with this many callers."""
    with (FOLDER / "one_channel.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["concurrent"] == load]
    result = []
    for (way,), rounds in chunks(rows, "way"):
        failed, completed = (sum(int(row[name]) for row in rounds) for name in ("failed", "completed"))
        p99 = statistics.median(float(row["p99_ms"]) for row in rounds)
        result.append((way, 100 * failed / (failed + completed), p99))
    return result


def bars(axis: Any, found: list[Bar], *, shift: float, width: float, colours: tuple[str, str], label: str = "") -> None:
    """Draws the bars of one load, each with its percentage on top."""
    places = [number + shift for number in range(len(found))]
    drawn = axis.bar(
        places,
        [failed for _, failed, _ in found],
        width,
        color=[colours[way == "grpcpool"] for way, _, _ in found],
        label=label,
    )
    texts = [f"{failed:.1f} %" if 0 < failed < PRECISE_BELOW else f"{failed:.0f} %" for _, failed, _ in found]
    axis.bar_label(drawn, texts, padding=3, fontsize=12, fontweight="bold")


def main() -> None:
    """Draws the picture."""
    plt = pyplot(PICTURE.stem)
    plt.rcParams.update({"font.size": 12, "font.family": "sans-serif"})
    figure, (left, right) = plt.subplots(1, 2, figsize=(15, 5.2), layout="constrained")
    sick = while_sick()
    bars(left, sick, shift=0, width=0.6, colours=(GREY, BLUE))
    left.set_title("Calls that failed while one of three servers was sick", fontsize=15, fontweight="bold", pad=14)
    left.set_xticks(range(len(WAYS)), [f"{LABELS[way]}\n\np99 {p99:.0f} ms" for way, _, p99 in sick])
    few, many = (at_the_limit(load) for load in LOADS)
    bars(right, few, shift=-0.2, width=0.38, colours=(LIGHT, LIGHT_BLUE), label=f"{LOADS[0]} callers")
    bars(right, many, shift=0.2, width=0.38, colours=(GREY, BLUE), label=f"{LOADS[1]} callers")
    right.set_title("Calls that failed at a limit of 100 streams", fontsize=15, fontweight="bold", pad=14)
    labels = [
        f"{LABELS[way]}\n\np99 {fewer:.0f} / {more:.0f} ms"
        for (way, _, fewer), (_, _, more) in zip(few, many, strict=True)
    ]
    right.set_xticks(range(len(labels)), labels)
    right.legend(frameon=False, loc="upper right")
    for axis, found in ((left, sick), (right, few + many)):
        axis.set(ylim=(0, 1.2 * max(failed for _, failed, _ in found)), yticks=[])
        axis.spines[["top", "left", "right"]].set_visible(False)
        axis.tick_params(axis="x", length=0)
    figure.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
