"""What the goodput benchmarks share: how much they measure, and the report.

400 workers make calls of 50 ms; the server, the demonstration's, allows 100 streams a connection. A pool of up to eight
connections is compared with eight channels over which the workers are distributed by hand. That is the best possible
without a pool: it knows beforehand how many workers there will be. Both sides run in turn, each first every other time,
on one server. The result is the ratio of all completed calls; single rounds vary widely on a machine that also does
other things.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

from _common import footer, verdict
from grpcpool._demo.calls import CONNECTIONS
from grpcpool._demo.screen import Screen
from grpcpool._demo.tally import Tally

ROUNDS = 8
# Seconds of each round. In shorter rounds, the time at which a thread happens to be woken has too much weight.
MEASURED = 5.0
_BOUND = 0.95
_DEALT = f"{CONNECTIONS} channels"


def report(pairs: Sequence[tuple[Tally, Tally]]) -> None:
    """Prints a table and the command to repeat it; the first of each pair is the pool's."""
    ours, dealt = zip(*pairs, strict=True)
    rows = [("goodput", "completed", "failed", "failed with")]
    completed: dict[str, int] = {}
    for name, tallies in (("pool", ours), (_DEALT, dealt)):
        failures = Counter(failure for tally in tallies for failure in tally.failures)
        completed[name] = sum(len(tally.latencies) for tally in tallies)
        rows.append((name, str(completed[name]), str(failures.total()), ", ".join(failures)))
    screen = Screen(sys.stdout)
    screen.table(rows, align="<>><")
    ratio = completed["pool"] / completed[_DEALT]
    ratios = sorted(len(one.latencies) / len(other.latencies) for one, other in pairs)
    failed = sum(len(tally.failures) for tally in ours)
    screen.write(
        f"ratio {ratio:.3f} (in single rounds {ratios[0]:.2f} to {ratios[-1]:.2f}), "
        f"bound {_BOUND}: {verdict(met=ratio >= _BOUND)}\n"
        f"failed on the pool {failed}, bound 0: {verdict(met=not failed)}\n"
        f"{footer()}"
    )
