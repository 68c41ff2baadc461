"""A clock that tests advance manually."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from .._shared.clock import choose_clock


class ManualClock:
    """Stands still until `advance`, which makes every pool do what is due, on the calling thread."""

    by_hand = True

    def __init__(self) -> None:
        """Starts at an arbitrary time."""
        self._now = 1000.0
        self._ticks: list[Callable[[], object]] = []
        self._lock = threading.Lock()
        self.monotonic: Callable[[], float] = lambda: self._now

    def wait_until(self, moment: float) -> float | None:
        """Returns 0 if the moment has come, else `None`: wait without limit, as `advance` wakes the waiter."""
        return 0.0 if moment <= self._now else None

    def late_by(self, moment: float) -> float:
        """Returns 0: what is due is done at once, however far the time is advanced."""
        return 0.0

    def subscribe(self, tick: Callable[[], object]) -> Callable[[], None]:
        """Calls `tick` after each advance; returns a function that ends this."""
        with self._lock:
            self._ticks.append(tick)

        def unsubscribe() -> None:
            with self._lock, contextlib.suppress(ValueError):
                self._ticks.remove(tick)

        return unsubscribe

    def advance(self, seconds: float) -> None:
        """Advances the time."""
        self._now += seconds
        with self._lock:
            ticks = list(self._ticks)
        for tick in ticks:
            tick()


@contextlib.contextmanager
def manual_clock() -> Iterator[ManualClock]:
    """Pools created within the block use the clock that it yields."""
    clock = ManualClock()
    restore = choose_clock(clock)
    try:
        yield clock
    finally:
        restore()
