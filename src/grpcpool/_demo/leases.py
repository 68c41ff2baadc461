"""Part 1: a burst of requests for whole connections; afterwards the pool closes the connections it no longer needs."""

from __future__ import annotations

import dataclasses

from .burst import CONFIG, DONE, REQUESTS, SHORT_TIMEOUT, TIMED_OUT, Burst
from .leftovers import connections_left, describe_leftovers
from .monitor import count_text
from .process import running_server
from .screen import Screen
from .world import World


@dataclasses.dataclass(frozen=True)
class LeaseResults:
    """The results of the burst, and what was left after the pool was closed."""

    burst: Burst
    left: dict[str, int]

    @property
    def lost(self) -> int:
        """Leases that were not released, and connections and workers that were left after the close."""
        stats, outcomes = self.burst.stats, self.burst.outcomes
        released = sum(count for outcome, count in outcomes.items() if outcome != TIMED_OUT)
        return max(abs(stats.acquired - released), stats.in_flight) + sum(self.left.values())


def show_leases(world: World, screen: Screen) -> list[str]:
    """Shows part 1; returns its problems."""
    screen.write(
        f"Leases: {REQUESTS} {world.workers} at once acquire a whole connection each, for one call of 50 ms.\n"
        f"The pool has {CONFIG.min_size} to {CONFIG.max_size} connections; one in five {world.workers} "
        f"waits at most {SHORT_TIMEOUT} s.\n"
    )
    with running_server() as port:
        burst = Burst(port, screen)
        workers = world.run_leases(burst, "leases")
        results = LeaseResults(burst, {"connections": connections_left(port), world.workers: workers})
    _show(results, world, screen)
    return _problems(results)


def _show(results: LeaseResults, world: World, screen: Screen) -> None:
    burst = results.burst
    stats = burst.stats
    opened, idle = stats.opened, stats.closed["idle"] + stats.closed["shrink"]
    rows = [
        ("leases", "", ""),
        ("acquired", str(stats.acquired), "leases granted; each made its call"),
        ("waited", str(stats.waited), "of them had to wait"),
        ("timed out", str(stats.timeouts), f"requests that waited at most {SHORT_TIMEOUT} s"),
        ("connections opened", str(opened), "including replacements of aged ones"),
        ("open at peak", count_text(burst.peak), "TCP connections, counted from outside"),
        ("reused", str(stats.acquired - opened), "leases that needed no new connection"),
        ("closed as idle", str(idle), f"unused for {CONFIG.idle_timeout} s, or no longer needed"),
        ("closed as aged", str(stats.closed["age"]), f"replaced before they were {CONFIG.max_age} s old"),
        ("open at the end", count_text(burst.at_end), f"TCP connections; min_size is {CONFIG.min_size}"),
        ("lost", str(results.lost), f"leases not released; connections, {world.workers} left"),
    ]
    screen.table(rows, align="<><")


def _problems(results: LeaseResults) -> list[str]:
    """Describes what is wrong."""
    stats, outcomes = results.burst.stats, results.burst.outcomes
    problems = [
        f"{count} requests: {outcome}" for outcome, count in outcomes.items() if outcome not in (DONE, TIMED_OUT)
    ]
    expectations = {
        f"{outcomes.total()} of {REQUESTS} requests ended": outcomes.total() == REQUESTS,
        f"{stats.acquired} acquired, {outcomes[DONE]} done": stats.acquired == outcomes[DONE],
        f"{stats.timeouts} timeouts, {outcomes[TIMED_OUT]} raised": stats.timeouts == outcomes[TIMED_OUT],
        f"{stats.in_flight} in flight and {stats.waiting} waiting after the burst": not stats.in_flight + stats.waiting,
    }
    return problems + [text for text, met in expectations.items() if not met] + describe_leftovers(results.left)
