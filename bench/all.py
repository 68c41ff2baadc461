"""Runs all benchmarks, or the given ones, and keeps their results in ``docs/experiments/bench.json``.

Then it draws them: into ``bench.svg``, and into the tables of ``docs/explanation/cost.md``.

``python bench/all.py`` takes about a quarter of an hour on a quiet machine. ``python bench/all.py bench/growth.py``
replaces the rows of that script alone. ``--draw`` measures nothing and draws the existing results; ``--table`` prints
them as Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import _page
import _results

_SCRIPTS = sorted(set(pathlib.Path(__file__).parent.glob("[!_]*.py")) - {pathlib.Path(__file__)})


def run(script: pathlib.Path) -> bool:
    """Runs one script and keeps its rows; returns whether it succeeded."""
    load_average, _, _ = os.getloadavg()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        kept = pathlib.Path(folder, "rows")
        environment = {**os.environ, _results.ROWS_FILE: str(kept)}
        done = subprocess.run([sys.executable, str(script)], env=environment, check=False)  # noqa: S603 -- our own
        lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    seconds = time.monotonic() - began
    if done.returncode:
        return False
    _results.replace(script.name, [json.loads(line) for line in lines], seconds=seconds, load_average=load_average)
    sys.stdout.write(f"{script.name} took {seconds:.0f} s\n\n")
    sys.stdout.flush()
    return True


def main() -> None:
    """Runs, keeps and draws."""
    parser = argparse.ArgumentParser(description="Runs benchmarks, and keeps and draws their results.")
    parser.add_argument("scripts", nargs="*", type=pathlib.Path, help="what to run, all if not given")
    parser.add_argument("--draw", action="store_true", help="only draw the existing results")
    parser.add_argument("--table", action="store_true", help="only print the existing results as Markdown")
    arguments = parser.parse_args()
    if arguments.table:
        for panel, title in _results.PANELS.items():
            sys.stdout.write(f"### {title}\n\n{_page.table(panel)}\n\n")
        return
    failed = [] if arguments.draw else [script for script in arguments.scripts or _SCRIPTS if not run(script)]
    _page.draw()
    _page.fill()
    if failed:
        sys.exit(f"failed: {', '.join(map(str, failed))}")


if __name__ == "__main__":
    main()
