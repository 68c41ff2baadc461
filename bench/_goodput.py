"""What the goodput benchmarks share: how much they measure, and the report.

400 workers make calls of 50 ms; the server, the demonstration's, allows 100 streams a connection. A pool of up to eight
connections is compared with eight channels over which the workers are distributed by hand. That is the best possible
without a pool: it knows beforehand how many workers there will be. Both sides run in turn, each first every other time,
on one server. The result is the ratio of all completed calls; single rounds vary widely on a machine that also does
other things.
"""

from __future__ import annotations

import contextlib
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from _common import footer
from _results import Row, keep, verdict
from grpcpool import PoolConfig
from grpcpool._demo.call_counter import failure_name
from grpcpool._demo.screen import Screen

WORKERS = 400
CONNECTIONS = 8
CONFIG = PoolConfig(min_size=1, max_size=CONNECTIONS)
CALL_TIMEOUT = 10.0

ROUNDS = 6
# Seconds of each round. In shorter rounds, the time at which a thread happens to be woken has too much weight.
MEASURED = 5.0
WARM_UP = 0.6
_BOUND = 0.97
_DEALT = f"{CONNECTIONS} channels"


class CallCounter:
    """Counts the calls that end within the measured time, with their durations and failures. Thread-safe."""

    def __init__(self) -> None:
        """Starts the warm-up; after it, calls count."""
        self.begins = time.monotonic() + WARM_UP
        self.ends = self.begins + MEASURED
        self.latencies: list[float] = []
        self.failures: list[str] = []

    def running(self) -> bool:
        """Whether to make another call."""
        return time.monotonic() < self.ends

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Counts how the ``with`` block ends, which is one call."""
        began = time.monotonic()
        failure = None
        try:
            yield
        except Exception as error:  # noqa: BLE001 -- every failure is counted
            failure = failure_name(error)
        now = time.monotonic()
        # No lock: appending to a list is thread-safe.
        if not self.begins <= now < self.ends:
            return
        if failure is None:
            self.latencies.append(now - began)
        else:
            self.failures.append(failure)


def report(pairs: Sequence[tuple[CallCounter, CallCounter]], *, callers: str) -> None:
    """Prints a table and the command to repeat it, and keeps the rows; the first of each pair is the pool's."""
    ours, dealt = zip(*pairs, strict=True)
    rows = [("goodput", "completed", "failed", "failed with")]
    completed: dict[str, int] = {}
    for name, counters in (("pool", ours), (_DEALT, dealt)):
        failures = Counter(failure for counter in counters for failure in counter.failures)
        completed[name] = sum(len(counter.latencies) for counter in counters)
        rows.append((name, str(completed[name]), str(failures.total()), ", ".join(failures)))
    screen = Screen(sys.stdout)
    screen.table(rows, align="<>><")
    ratio = completed["pool"] / completed[_DEALT]
    ratios = sorted(len(one.latencies) / len(other.latencies) for one, other in pairs)
    failed = sum(len(counter.failures) for counter in ours)
    screen.write(
        f"ratio {ratio:.3f} (in single rounds {ratios[0]:.2f} to {ratios[-1]:.2f}), "
        f"bound {_BOUND}: {verdict(met=ratio >= _BOUND)}\n"
        f"failed on the pool {failed}, bound 0: {verdict(met=not failed)}\n"
        f"{footer()}"
    )
    what = f"{WORKERS} {callers} against limits of 100"
    seconds = ROUNDS * MEASURED
    low, _, high = statistics.quantiles(ratios)
    goodput = Row(
        panel="load",
        what=f"{what}, goodput",
        ours="pool",
        our_value=completed["pool"] / seconds,
        unit="calls/s",
        base=f"{_DEALT} by hand",
        base_value=completed[_DEALT] / seconds,
        ratio=ratio,
        low=low,
        high=high,
        rounds=len(pairs),
        bound=_BOUND,
        at_least=True,
    )
    of_others = sum(len(counter.failures) for counter in dealt)
    failures_of_pool = Row(
        panel="load",
        what=f"{what}, failed",
        ours="pool",
        our_value=failed,
        unit="calls",
        base=f"{_DEALT} by hand",
        base_value=of_others,
        rounds=len(pairs),
        bound=0,
    )
    keep([goodput, failures_of_pool])
