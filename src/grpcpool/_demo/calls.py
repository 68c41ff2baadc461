"""Part 2: many call at once, on one channel, on gRPC's own connection scaling, and on a pool.

The pool is used as a channel; that it is a pool is one changed line.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from grpcpool import PoolConfig
from grpcpool._grpc.release import SCALES_CONNECTIONS

from .process import running_server
from .remains import connections_left, told
from .screen import Screen
from .server import STREAMS
from .tally import MEASURED, Tally
from .watch import in_figures, watching
from .world import Options, World

WORKERS: Final = 400
CONNECTIONS: Final = 8
CONFIG: Final = PoolConfig(min_size=1, max_size=CONNECTIONS)

_POOL = "calls"

Way = Callable[[str], Any]
"""Makes a channel or pool over a target."""


def ways_of(world: World) -> dict[str, Way | None]:
    """The ways to call, by their names; `None` for one that this grpcio does not have."""
    options = scaling_options(CONNECTIONS)
    return {
        f"one {world.channel_type}": world.channel,
        "gRPC's scaling": None if options is None else lambda target: world.channel(target, options),
        "grpcpool": lambda target: world.pool(target, CONFIG, _POOL),
    }


def scaling_options(connections: int) -> Options | None:
    """Options with which a channel opens so many connections by itself; `None` if this grpcio cannot."""
    if not SCALES_CONNECTIONS:
        return None
    config = json.dumps({"connectionScaling": {"maxConnectionsPerSubchannel": connections}})
    return [("grpc.service_config", config)]


def show_calls(world: World, screen: Screen) -> list[str]:
    """Shows part 2; returns what went wrong. That gRPC by itself fails calls is not ours to mend."""
    screen.write(
        f"Calls: {WORKERS} {world.workers} make calls of 50 ms, one after the other, for {MEASURED} s each way.\n"
        f"The server allows {STREAMS} streams a connection; scaling and pool may have {CONNECTIONS} connections.\n"
    )
    rows: list[tuple[str, ...]] = [
        ("calls", "completed", "failed", "a second", "p50", "p99", "TCP connections", "failed with")
    ]
    wrong: list[str] = []
    with running_server() as port:
        for name, way in ways_of(world).items():
            if way is None:
                rows.append((name, "-", "-", "-", "-", "-", "-", "not in this grpcio"))
            else:
                cells, faults = _try(name, way, world, port, screen)
                rows.append((name, *cells))
                wrong += faults
    screen.table(rows, align="<>>>>>><")
    return wrong


def _try(name: str, way: Way, world: World, port: int, screen: Screen) -> tuple[tuple[str, ...], list[str]]:
    """Calls in this way; returns the cells of its row, and what went wrong if it is the pool's."""
    tally = Tally()
    with watching(port, screen, lambda: f"{name:20} {_progress(tally)}") as watch:
        workers = world.call(lambda: way(f"127.0.0.1:{port}"), WORKERS, tally)
    # The next way begins with no connection, too.
    left = {"connections": connections_left(port), world.workers: workers}
    return _cells(tally, watch.peak), _wrong(tally, left)


def _progress(tally: Tally) -> str:
    return f"completed {len(tally.latencies):5}  failed {len(tally.failures):5}"


def _cells(tally: Tally, connections: int | None) -> tuple[str, ...]:
    """The row of the table, without the name."""
    latencies, failures = tally.latencies, tally.failures
    percentiles = statistics.quantiles(latencies, n=100) if len(latencies) > 1 else [0.0] * 99
    return (
        str(len(latencies)),
        str(len(failures)),
        f"{len(latencies) / MEASURED:.0f}",
        f"{1000 * percentiles[49]:.0f} ms",
        f"{1000 * percentiles[98]:.0f} ms",
        in_figures(connections),
        ", ".join(failure for failure, _ in Counter(failures).most_common(2)),
    )


def _wrong(tally: Tally, left: dict[str, int]) -> list[str]:
    """What should not be, in words."""
    stats = tally.at_rest
    if stats is None:
        return []
    wrong = [f"{count} calls on the pool failed: {failure}" for failure, count in Counter(tally.failures).items()]
    if not tally.latencies:
        wrong.append("no call on the pool was completed")
    if stats.in_flight or stats.waiting:
        wrong.append(f"{stats.in_flight} in flight and {stats.waiting} waiting at rest")
    return wrong + told(left)
