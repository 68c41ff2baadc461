"""Part 3: three servers restart one after the other; a pool beside gRPC's own balancer, `round_robin`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from .balancers import CALLERS, POOL, ROUND_ROBIN, SERVERS, Comparison
from .call_counter import UNLIMITED, Phase
from .process import ServerProcess, running_servers
from .screen import Screen
from .server import RESTART
from .world import World

CALLS: Final = 300
"""How many calls after the restarts show the spread."""

# A server that gets less than this part of an even share is hardly in use.
_IN_USE = 0.5


class Restarts:
    """What is done to the servers, and the calls meanwhile and afterwards."""

    def __init__(self, comparison: Comparison, servers: Sequence[ServerProcess]) -> None:
        """Nothing is restarted yet."""
        self._comparison = comparison
        self._servers = servers
        self.counters = comparison.counters
        self.ports = [str(server.port) for server in servers]
        self.after: dict[str, Phase] = {}

    def run(self) -> None:
        """Restarts a server when the one before is used again; after the last one, some more calls are made."""
        comparison = self._comparison
        comparison.warm_up()
        for server in self._servers:
            server.tell(RESTART)
            comparison.begin_phase(UNLIMITED)
            comparison.wait(partial(_is_used, str(server.port)))
        self.after = comparison.begin_phase(CALLS)

    def spread(self, name: str) -> list[int]:
        """How many of the calls after the restarts each server answered."""
        return [self.after[name].answers[port] for port in self.ports]


def _is_used(port: str, phase: Phase) -> bool:
    return port in phase.answers


def show_restart(world: World, screen: Screen) -> list[str]:
    """Shows part 3; returns what was lost. Calls that fail are not lost."""
    screen.heading(f"3. {SERVERS} servers restart, one after the other")
    screen.paragraph(
        f"As when a new version is rolled out: each restarts when the one before is in use again. {ROUND_ROBIN} and a "
        f"pool call them from {CALLERS} {world.workers} each. The last {CALLS} calls show how calls are spread."
    )
    with running_servers(SERVERS) as servers:
        comparison = Comparison(world, servers)
        restarts = Restarts(comparison, servers)
        screen.begin_table(lambda: _show(restarts, screen))
        problems = comparison.run(screen, restarts.run)
    _show(restarts, screen)
    screen.paragraph(_conclusion(restarts))
    return problems


def _show(restarts: Restarts, screen: Screen) -> None:
    rows = [("", "calls", "failed", *(f"server {number}" for number in range(1, SERVERS + 1)))]
    for name in restarts.after:
        counter = restarts.counters[name]
        rows.append((name, str(counter.ended), str(counter.failed), *map(str, restarts.spread(name))))
    screen.table(rows, align="<>>" + ">" * SERVERS)


def _conclusion(restarts: Restarts) -> str:
    """Returns what the table shows."""
    spread = restarts.spread(POOL)
    if sum(spread) < CALLS or min(spread) * SERVERS < _IN_USE * CALLS:
        return "This machine was too busy to show how calls are spread."
    balancer, pool = (restarts.counters[name].failed for name in (ROUND_ROBIN, POOL))
    failed = f"{_number(pool).capitalize()} of its calls failed, and {_number(balancer)} of {ROUND_ROBIN}'s."
    reason = " A call that reaches a server just as it stops may fail." if pool or balancer else ""
    return f"The pool connected to each server again and used all of them, as {ROUND_ROBIN} did. {failed}{reason}"


def _number(count: int) -> str:
    return str(count) if count else "none"
