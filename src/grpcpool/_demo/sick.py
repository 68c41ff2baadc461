"""Part 2: one of three servers turns sick; a pool beside gRPC's own balancer, `round_robin`."""

from __future__ import annotations

from typing import Final

from .balancers import POOL, ROUND_ROBIN, SERVERS, Comparison
from .call_counter import Phase
from .process import ServerProcess, running_servers
from .screen import Screen
from .server import SICK
from .world import World

CALLS: Final = 450


def show_sick(world: World, screen: Screen) -> list[str]:
    """Shows part 2; returns what was lost. Calls that fail are not lost."""
    screen.heading(f"2. One of {SERVERS} servers turns sick")
    screen.paragraph(
        f"It fails each of its calls at once. Meanwhile gRPC's own balancer, {ROUND_ROBIN}, and a pool make {CALLS} "
        f"calls each over the {SERVERS} servers, at the same time."
    )
    phases: dict[str, Phase] = {}
    screen.begin_table(lambda: _show(phases, screen))
    with running_servers(SERVERS) as servers:
        comparison = Comparison(world, servers)
        problems = comparison.run(screen, lambda: _turn_sick(comparison, servers[0], phases))
    _show(phases, screen)
    screen.paragraph(_conclusion(phases))
    return problems


def _turn_sick(comparison: Comparison, server: ServerProcess, phases: dict[str, Phase]) -> None:
    comparison.warm_up()
    server.tell(SICK)
    phases.update(comparison.begin_phase(CALLS))


def _show(phases: dict[str, Phase], screen: Screen) -> None:
    rows = [("", "calls", "failed", "share")]
    for name, phase in phases.items():
        rows.append((name, str(phase.ended), str(phase.failed), f"{_share(phase):.1%}"))
    screen.table(rows, align="<>>>")


def _share(phase: Phase) -> float:
    return phase.failed / max(1, phase.ended)


def _conclusion(phases: dict[str, Phase]) -> str:
    """Returns what the table shows."""
    balancer, pool = phases[ROUND_ROBIN], phases[POOL]
    if min(balancer.ended, pool.ended) < CALLS:
        return "This machine was too busy to show how a pool avoids a sick server."
    if 2 * pool.failed >= balancer.failed:
        return f"This time the pool avoided the sick server little better than {ROUND_ROBIN}."
    return (
        f"{ROUND_ROBIN} keeps sending calls to the sick server. The pool prefers the others once a call has failed "
        "there, and tries it again some seconds later."
    )
