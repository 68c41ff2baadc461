"""Part 1: a burst of asks for whole connections; then the pool comes to rest, and gives back what it opened."""

from __future__ import annotations

import dataclasses

from .burst import ASKS, CONFIG, DONE, HURRY, TIMED_OUT, Burst
from .process import running_server
from .remains import connections_left, told
from .screen import Screen
from .watch import in_figures
from .world import World


@dataclasses.dataclass(frozen=True)
class Findings:
    """How the burst went, and what was left of the pool when it was closed."""

    burst: Burst
    left: dict[str, int]

    @property
    def lost(self) -> int:
        """Leases that were granted and did not come back, and what was left after the close."""
        stats, outcomes = self.burst.stats, self.burst.outcomes
        returned = sum(count for outcome, count in outcomes.items() if outcome != TIMED_OUT)
        return max(abs(stats.acquired - returned), stats.in_flight) + sum(self.left.values())


def show_leases(world: World, screen: Screen) -> list[str]:
    """Shows part 1; returns what went wrong."""
    screen.write(
        f"Leases: {ASKS} {world.workers} ask at once, each for a whole connection, for one call of 50 ms.\n"
        f"The pool keeps {CONFIG.min_size} to {CONFIG.max_size} connections; every fifth of the {world.workers} "
        f"waits no longer than {HURRY} s.\n"
    )
    with running_server() as port:
        burst = Burst(port, screen)
        workers = world.lease(burst, "leases")
        findings = Findings(burst, {"connections": connections_left(port), world.workers: workers})
    _show(findings, world, screen)
    return _wrong(findings)


def _show(findings: Findings, world: World, screen: Screen) -> None:
    burst = findings.burst
    stats = burst.stats
    opened, idle = stats.opened, stats.closed["idle"] + stats.closed["shrink"]
    rows = [
        ("leases", "", ""),
        ("acquired", str(stats.acquired), "leases granted; each made its call"),
        ("waited", str(stats.waited), "of them queued first"),
        ("timed out", str(stats.timeouts), f"asks that would not wait beyond {HURRY} s"),
        ("connections opened", str(opened), "successors of aged ones included"),
        ("open at peak", in_figures(burst.peak), "TCP connections, counted from outside"),
        ("reused", str(stats.acquired - opened), "leases that needed no new connection"),
        ("closed as idle", str(idle), f"unused for {CONFIG.idle_timeout} s, or one too many"),
        ("closed as aged", str(stats.closed["age"]), f"replaced before they were {CONFIG.max_age} s old"),
        ("open at the end", in_figures(burst.at_end), f"TCP connections; min_size is {CONFIG.min_size}"),
        ("lost", str(findings.lost), f"leases not returned; connections, {world.workers} left"),
    ]
    screen.table(rows, align="<><")


def _wrong(findings: Findings) -> list[str]:
    """What should not be, in words."""
    stats, outcomes = findings.burst.stats, findings.burst.outcomes
    wrong = [f"{count} asks: {outcome}" for outcome, count in outcomes.items() if outcome not in (DONE, TIMED_OUT)]
    expectations = {
        f"{outcomes.total()} of {ASKS} asks had an outcome": outcomes.total() == ASKS,
        f"{stats.acquired} acquired, {outcomes[DONE]} done": stats.acquired == outcomes[DONE],
        f"{stats.timeouts} timeouts, {outcomes[TIMED_OUT]} told": stats.timeouts == outcomes[TIMED_OUT],
        f"{stats.in_flight} in flight and {stats.waiting} waiting at rest": not stats.in_flight + stats.waiting,
    }
    return wrong + [text for text, met in expectations.items() if not met] + told(findings.left)
