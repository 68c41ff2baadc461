"""What the experiments share: rows of raw data, the command line, and how a drawing and a table are made."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import functools
import math
import multiprocessing
import pathlib
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

# The benchmarks have servers that can be made sick.
BENCH = pathlib.Path(__file__).parents[2] / "bench"


def write(data: pathlib.Path, rows: Iterable[Any]) -> None:
    """Writes rows, which are dataclass objects, each as soon as it is complete."""
    with data.open("w", encoding="utf-8", newline="") as file:
        table: csv.DictWriter[str] | None = None
        for row in rows:
            values = dataclasses.asdict(row)
            if table is None:
                table = csv.DictWriter(file, [*values], lineterminator="\n")
                table.writeheader()
            table.writerow(values)
            file.flush()
            sys.stderr.write(f"{row}\n")


def read(data: pathlib.Path) -> list[dict[str, str]]:
    """Returns the rows of the file, as text."""
    with data.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def percentile(values: Sequence[float], percent: float) -> float:
    """Returns the smallest of the values that at least this share of them does not exceed; NaN without values."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table for the page."""
    lines = (header, ["---"] * len(header), *rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines).replace(" --- ", "---").replace("| ---", "|---")


def chunks(rows: Iterable[dict[str, str]], *columns: str) -> Iterator[tuple[tuple[str, ...], list[dict[str, str]]]]:
    """Yields the rows by their values in these columns, in the order of their first appearance."""
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[column] for column in columns), []).append(row)
    yield from groups.items()


def pyplot(stem: str) -> Any:
    """Returns matplotlib, which is not needed to measure; the same data give the same drawing."""
    import matplotlib as mpl  # noqa: PLC0415 (not needed to measure)

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = stem
    from matplotlib import pyplot as plt  # noqa: PLC0415 (as above)

    return plt


def side_by_side(measure: Callable[..., T], ways: Collection[str], settings: Iterable[tuple[Any, ...]]) -> Iterator[T]:
    """Yields what `measure` returns for each setting and way.

    All ways are measured at the same time, each in a process, so that other load on the machine affects all of them.
    """
    with ProcessPoolExecutor(len(ways), multiprocessing.get_context("spawn")) as processes:
        for setting in settings:
            yield from processes.map(functools.partial(measure, *setting), ways)


def main(
    description: str,
    data: pathlib.Path,
    rows: Callable[[], Iterable[Any]],
    draw: Callable[[], None],
    table: Callable[[], str],
) -> None:
    """Measures and draws, or only draws; prints the table of the page."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--draw", action="store_true", help="only draw the existing file")
    if not parser.parse_args().draw:
        write(data, rows())
    draw()
    sys.stdout.write(f"{table()}\n")
