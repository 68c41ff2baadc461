"""The options of ``grpcpool bench`` that say what to compare, at which load, and where to write the report."""

from __future__ import annotations

import pathlib
import shlex
from collections.abc import Sequence
from typing import Final

from .._errors import UsageError
from .channels import WAYS
from .levels import parse_concurrency, parse_rates
from .metadata import without_values

DEFAULT_CONCURRENCY: Final = "1,50,400"
"""The numbers of callers, if neither they nor rates are given."""


class BenchOptions:
    """What to compare, at which load, and where to write the report."""

    def __init__(
        self,
        concurrency: str | None,
        compare: str,
        report: pathlib.Path | None,
        arguments: Sequence[str],
        *,
        rate: str | None = None,
        metadata: Sequence[str] = (),
    ) -> None:
        """Parses the comma-separated lists.

        Args:
            concurrency: The numbers of callers of closed loops.
            compare: The ways.
            report: Where to write the report.
            arguments: The command line, which the report shows without the values of the metadata.
            rate: The rates of open loops; excludes `concurrency`.
            metadata: The metadata in the command line.

        Raises:
            UsageError: A number or way is not valid, or the report cannot be at that path.
        """
        if rate is not None and concurrency is not None:
            raise UsageError("--rate and --concurrency exclude each other: an open loop has no number of callers")
        callers = DEFAULT_CONCURRENCY if concurrency is None else concurrency
        self.levels = parse_rates(rate) if rate is not None else parse_concurrency(callers)
        self.compare = [_way(part.strip()) for part in compare.split(",")]
        self.report = report
        self.command = shlex.join(["grpcpool", *without_values(arguments, metadata)])
        if report is not None and not report.absolute().parent.is_dir():
            raise UsageError(f"--report {report}: the folder does not exist")
        if report is not None and report.is_dir():
            raise UsageError(f"--report {report}: is a folder, not a file")


def _way(text: str) -> str:
    if text not in WAYS:
        raise UsageError(f"--compare: {text!r} is not one of {', '.join(WAYS)}")
    return text
