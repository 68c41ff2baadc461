"""Part 2: many concurrent calls over one channel, over gRPC's own connection scaling, and over a pool.

The pool is used as a channel: the difference is one line.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from grpcpool import PoolConfig
from grpcpool._grpc.release import SCALES_CONNECTIONS

from . import call_counter
from .call_counter import CallCounter
from .leftovers import connections_left, describe_leftovers
from .monitor import count_text, monitoring
from .process import running_server
from .screen import Screen
from .server import STREAMS
from .world import Options, World

WORKERS: Final = 400
CONNECTIONS: Final = 8
CONFIG: Final = PoolConfig(min_size=1, max_size=CONNECTIONS)

_POOL = "calls"

Way = Callable[[str], Any]
"""Creates a channel or pool for a target."""


def ways_of(world: World) -> dict[str, Way | None]:
    """Returns the ways to call by name; `None` for a way that this grpcio does not support."""
    options = scaling_options(CONNECTIONS)
    return {
        f"one {world.channel_type}": world.channel,
        "gRPC's scaling": None if options is None else lambda target: world.channel(target, options),
        "grpcpool": lambda target: world.pool(target, CONFIG, _POOL),
    }


def scaling_options(connections: int) -> Options | None:
    """Returns options with which a channel opens up to `connections`; `None` if this grpcio does not support them."""
    if not SCALES_CONNECTIONS:
        return None
    config = json.dumps({"connectionScaling": {"maxConnectionsPerSubchannel": connections}})
    return [("grpc.service_config", config)]


def show_calls(world: World, screen: Screen) -> list[str]:
    """Shows part 2; returns its problems. Calls that fail without the pool are not problems."""
    screen.write(
        f"Calls: {WORKERS} {world.workers} make calls of 50 ms, one after the other, "
        f"for {call_counter.MEASURED} s each way.\n"
        f"The server allows {STREAMS} streams per connection; scaling and pool have up to {CONNECTIONS} connections.\n"
    )
    rows: list[tuple[str, ...]] = [
        ("calls", "completed", "failed", "per second", "p50", "p99", "TCP connections", "failed with")
    ]
    problems: list[str] = []
    with running_server() as port:
        for name, way in ways_of(world).items():
            if way is None:
                rows.append((name, "-", "-", "-", "-", "-", "-", "not supported by this grpcio"))
            else:
                cells, way_problems = _run_way(name, way, world, port, screen)
                rows.append((name, *cells))
                problems += way_problems
    screen.table(rows, align="<>>>>>><")
    return problems


def _run_way(name: str, way: Way, world: World, port: int, screen: Screen) -> tuple[tuple[str, ...], list[str]]:
    """Makes the calls in one way; returns the cells of its row, and the problems if it is the pool."""
    counter = CallCounter(call_counter.MEASURED)
    with monitoring(port, screen, lambda: f"{name:20} {_progress(counter)}") as monitor:
        workers = world.run_calls(lambda: way(f"127.0.0.1:{port}"), WORKERS, counter)
    # Each way starts without connections.
    left = {"connections": connections_left(port), world.workers: workers}
    return _cells(counter, monitor.peak), _problems(counter, left)


def _progress(counter: CallCounter) -> str:
    return f"completed {len(counter.latencies):5}  failed {len(counter.failures):5}"


def _cells(counter: CallCounter, connections: int | None) -> tuple[str, ...]:
    """Returns the row of the table, without the name."""
    latencies, failures = counter.latencies, counter.failures
    percentiles = statistics.quantiles(latencies, n=100) if len(latencies) > 1 else [0.0] * 99
    return (
        str(len(latencies)),
        str(len(failures)),
        f"{len(latencies) / call_counter.MEASURED:.0f}",
        f"{1000 * percentiles[49]:.0f} ms",
        f"{1000 * percentiles[98]:.0f} ms",
        count_text(connections),
        ", ".join(failure for failure, _ in Counter(failures).most_common(2)),
    )


def _problems(counter: CallCounter, left: dict[str, int]) -> list[str]:
    """Describes what is wrong."""
    stats = counter.at_rest
    if stats is None:
        return []
    problems = [f"{count} calls on the pool failed: {failure}" for failure, count in Counter(counter.failures).items()]
    if not counter.latencies:
        problems.append("no call on the pool was completed")
    if stats.in_flight or stats.waiting:
        problems.append(f"{stats.in_flight} in flight and {stats.waiting} waiting after the last call")
    return problems + describe_leftovers(left)
