"""Where drivers get the time from: the system's clock, or one that a test advances by hand."""

from __future__ import annotations

import datetime as dt
import math
import threading
import time
from collections.abc import Callable
from typing import Protocol

# A thread cannot wait longer than this in one go; after it, the waiting thread looks at the clock again.
_LONGEST_WAIT = min(threading.TIMEOUT_MAX, 24 * 3600.0)


class Clock(Protocol):
    """The time, and how long to wait for a moment."""

    # An attribute, not a method, so that the way of every call goes straight to the C function.
    monotonic: Callable[[], float]
    """The moment, in seconds since some point."""

    by_hand: bool
    """Whether it stands still until a test advances it."""

    def wait_until(self, moment: float) -> float | None:
        """The seconds to wait for `moment` at most; `None`: without limit."""

    def late_by(self, moment: float) -> float:
        """The seconds since `moment`, at which something was due: the process or the loop stood still meanwhile."""

    def subscribe(self, tick: Callable[[], object]) -> Callable[[], None]:
        """Calls `tick` whenever the time has been advanced by hand; returns a function that ends that."""


class SystemClock:
    """The system's monotonic clock."""

    by_hand = False

    def __init__(self) -> None:
        """Takes the time from `time.monotonic`."""
        self.monotonic = time.monotonic

    def wait_until(self, moment: float) -> float | None:
        """The seconds from now to `moment`, at least 0."""
        if moment == math.inf:
            return None
        seconds = moment - self.monotonic()
        # Each waiter pays for this: calling min() and max() would cost more than the rest.
        return seconds if 0.0 <= seconds <= _LONGEST_WAIT else min(max(0.0, seconds), _LONGEST_WAIT)

    def late_by(self, moment: float) -> float:
        """The seconds since `moment`."""
        return self.monotonic() - moment

    def subscribe(self, tick: Callable[[], object]) -> Callable[[], None]:  # noqa: ARG002 -- nobody advances the system's time
        """Does nothing."""
        return lambda: None


_SYSTEM = SystemClock()
_chosen: list[Clock] = []


def current_clock() -> Clock:
    """The clock for pools created now."""
    return _chosen[-1] if _chosen else _SYSTEM


def choose_clock(clock: Clock) -> Callable[[], None]:
    """Makes pools created from now on use `clock`, until the returned function is called."""
    _chosen.append(clock)
    return lambda: _chosen.remove(clock)


def dates_of(clock: Clock) -> Callable[[float], dt.datetime]:
    """A function that turns moments of `clock` into dates, always the same moment into the same date.

    A later change of the system's calendar does not show.
    """
    epoch = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=clock.monotonic())
    return lambda moment: epoch + dt.timedelta(seconds=moment)
