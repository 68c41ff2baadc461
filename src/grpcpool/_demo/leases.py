"""Part 4: a burst of requests for whole connections; afterwards the pool closes the connections it no longer needs."""

from __future__ import annotations

import dataclasses

from .burst import CONFIG, DONE, REQUESTS, SHORT_TIMEOUT, TIMED_OUT, Burst
from .leftovers import connections_left, describe_leftovers
from .monitor import count_text
from .process import running_server
from .screen import Screen
from .server import PAUSE
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
    """Shows part 4; returns what was lost."""
    screen.heading("4. Whole connections, one caller at a time")
    screen.paragraph(
        f"{REQUESTS} {world.workers} lease a connection each, for one call of {PAUSE} s. The pool keeps "
        f"{CONFIG.min_size} to {CONFIG.max_size} connections, closes those that are idle for {CONFIG.idle_timeout} s, "
        f"and replaces those that are {CONFIG.max_age} s old. One in five {world.workers} waits at most "
        f"{SHORT_TIMEOUT} s."
    )
    with running_server() as port:
        burst = Burst(port, screen)
        screen.begin_table(lambda: _show(LeaseResults(burst, {}), world, screen))
        workers = world.run_leases(burst, "leases")
        results = LeaseResults(burst, {"connections": connections_left(port), world.workers: workers})
    _show(results, world, screen)
    screen.paragraph(_conclusion(burst))
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
        ("connections opened", str(opened), "including successors of aged ones"),
        ("open at peak", count_text(burst.peak), peak_text(burst.peak)),
        ("reused", str(stats.acquired - opened), "leases that needed no new connection"),
        ("closed as idle", str(idle), "no longer needed"),
        ("closed as aged", str(stats.closed["age"]), "after a successor was ready"),
        ("open at the end", count_text(burst.at_end), f"the pool keeps {CONFIG.min_size}"),
        ("lost", str(results.lost), f"leases not released; connections, {world.workers} left"),
    ]
    screen.table(rows, align="<><")


def peak_text(peak: int | None) -> str:
    """Says what the connections at the peak were."""
    counted = "counted by the operating system"
    if peak is None or peak <= CONFIG.max_size:
        return counted
    successors = peak - CONFIG.max_size
    return f"{counted}: {CONFIG.max_size} and {successors} successor{'' if successors == 1 else 's'}"


def _conclusion(burst: Burst) -> str:
    """Returns what the table shows."""
    if not burst.idle:
        return "This machine was too busy to show how the pool shrinks again."
    return f"{CONFIG.max_size} connections served all callers in turn. Then the pool shrank to {CONFIG.min_size}."


def _problems(results: LeaseResults) -> list[str]:
    """Describes what was lost."""
    stats, outcomes = results.burst.stats, results.burst.outcomes
    expectations = {
        f"{outcomes.total()} of {REQUESTS} requests ended": outcomes.total() == REQUESTS,
        f"{stats.acquired} acquired, {outcomes[DONE]} done": stats.acquired == outcomes[DONE],
        f"{stats.timeouts} timeouts, {outcomes[TIMED_OUT]} raised": stats.timeouts == outcomes[TIMED_OUT],
        f"{stats.in_flight} in flight and {stats.waiting} waiting after the burst": not stats.in_flight + stats.waiting,
    }
    unexpected = [
        f"{count} requests: {outcome}" for outcome, count in outcomes.items() if outcome not in (DONE, TIMED_OUT)
    ]
    return unexpected + [text for text, met in expectations.items() if not met] + describe_leftovers(results.left)
