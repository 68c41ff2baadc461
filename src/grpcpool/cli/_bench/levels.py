"""How much load a measurement offers: callers of a closed loop, or calls per second of an open one."""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Final

from .._errors import UsageError, number_of

MAX_CALLERS: Final = 4000
"""The most callers of a closed loop."""

MAX_RATE: Final = 100_000.0
"""The most calls per second of an open loop. One Python process makes far fewer."""

_MAX_PERCENT: Final = 1000.0
_RATE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(%?)", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True)
class Level:
    """The load of one measurement.

    Attributes:
        callers: Number of callers. Each makes its next call when its last one has ended. `None` in an open loop.
        rate: Calls per second that are due, whatever becomes of earlier ones; `None` in a closed loop, and as long as
            it is only known as a share.
        share: The rate as a percentage of the measured capacity; `None` if it was given as a number.
    """

    callers: int | None = None
    rate: float | None = None
    share: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is an open loop."""
        return self.callers is None

    def of_capacity(self, capacity: float) -> Level:
        """Returns the level with its share turned into a rate."""
        if self.share is None:
            return self
        return dataclasses.replace(self, rate=min(MAX_RATE, capacity * self.share / 100))

    @property
    def number(self) -> str:
        """The number as it was given, without its unit: callers, calls per second or a percentage."""
        if self.callers is not None:
            return str(self.callers)
        return _rate_text(self.rate or 0.0) if self.share is None else f"{self.share:g}%"

    def __str__(self) -> str:
        """Returns the level with its unit, as in ``50 callers`` or ``70% (1,230 calls/s)``."""
        if self.callers is not None:
            return f"{self.callers} {'caller' if self.callers == 1 else 'callers'}"
        rate = f"{_rate_text(self.rate or 0.0)} calls/s"
        return rate if self.share is None else f"{self.number} ({rate})"


def parse_concurrency(text: str) -> list[Level]:
    """Parses numbers of callers, separated by commas.

    Raises:
        UsageError: One of them is not valid.
    """
    return [Level(callers=_callers(part.strip())) for part in text.split(",")]


def parse_rates(text: str) -> list[Level]:
    """Parses calls per second, or percentages of the capacity, separated by commas.

    Raises:
        UsageError: One of them is not valid.
    """
    return [_rate(part.strip()) for part in text.split(",")]


def _callers(text: str) -> int:
    number = number_of(text)
    if not number:
        raise UsageError(f"--concurrency: {text!r} is not a number of callers")
    if number > MAX_CALLERS:
        reason = f"each caller is a thread, and one process runs at most {MAX_CALLERS:,} well"
        raise UsageError(f"--concurrency: {number:,} callers are too many: {reason}")
    return number


def _rate(text: str) -> Level:
    match = _RATE.fullmatch(text)
    number = float(match[1]) if match is not None else 0.0
    if match is None or not number or not math.isfinite(number):
        raise UsageError(f"--rate: {text!r} is not a number of calls per second, or a percentage of the capacity")
    if match[2]:
        if number > _MAX_PERCENT:
            raise UsageError(f"--rate: {text} is too much: at most {_MAX_PERCENT:g}% of the capacity can be offered")
        return Level(share=number)
    if number > MAX_RATE:
        raise UsageError(
            f"--rate: {text} is too much: one process makes far fewer than {MAX_RATE:,.0f} calls per second"
        )
    return Level(rate=number)


def _rate_text(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"  # noqa: PLR2004
