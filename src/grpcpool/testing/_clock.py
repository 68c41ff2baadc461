"""A clock that is turned by hand."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from .._shared.clock import choose_clock


class ManualClock:
    """Stands still until it is advanced; then has every pool do what is due, on the thread that advances it."""

    def __init__(self) -> None:
        """Starts at some moment."""
        self._now = 1000.0
        self._ticks: list[Callable[[], object]] = []
        self._guard = threading.Lock()
        self.monotonic: Callable[[], float] = lambda: self._now

    def wait_until(self, moment: float) -> float | None:
        """For ever, if the time is not here yet: who waits is told when it has come."""
        return 0.0 if moment <= self._now else None

    def subscribe(self, tick: Callable[[], object]) -> Callable[[], None]:
        """Has `tick` called after each advance; returns what ends that."""
        with self._guard:
            self._ticks.append(tick)

        def unsubscribe() -> None:
            with self._guard, contextlib.suppress(ValueError):
                self._ticks.remove(tick)

        return unsubscribe

    def advance(self, seconds: float) -> None:
        """Lets time pass."""
        self._now += seconds
        with self._guard:
            ticks = list(self._ticks)
        for tick in ticks:
            tick()


@contextlib.contextmanager
def manual_clock() -> Iterator[ManualClock]:
    """Pools made within the block live by the clock it gives."""
    clock = ManualClock()
    restore = choose_clock(clock)
    try:
        yield clock
    finally:
        restore()
