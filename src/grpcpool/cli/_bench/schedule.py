"""When the calls of an open loop are due: at random, independently of each other, as from many users (Poisson)."""

from __future__ import annotations

import functools
import random
from array import array
from typing import Final

from .._errors import UsageError

MAX_CALLS: Final = 10_000_000
"""The most calls of one schedule, which is kept in memory."""


def check_size(rate: float, seconds: float) -> None:
    """Checks that a schedule fits into memory.

    Raises:
        UsageError: It would have more than `MAX_CALLS` calls.
    """
    if rate * seconds > MAX_CALLS:
        raise UsageError(f"--rate: {rate:,.0f} calls/s for {seconds:g} s are more than {MAX_CALLS:,} calls")


@functools.lru_cache(maxsize=1)
def draw_schedule(rate: float, seconds: float, seed: int) -> array[float]:
    """Draws when calls are due. The ways are measured one after the other with the same schedule, which is kept.

    Args:
        rate: The mean number of calls per second.
        seconds: How long calls are due.
        seed: The same seed gives the same schedule.

    Returns:
        Seconds from the start, in ascending order, below `seconds`.

    Raises:
        UsageError: As `check_size`.
    """
    check_size(rate, seconds)
    pauses = random.Random(seed)  # noqa: S311 -- no secret
    schedule = array("d")
    due = pauses.expovariate(rate)
    while due < seconds:
        schedule.append(due)
        due += pauses.expovariate(rate)
    return schedule
