"""Part 1: more callers than one connection carries, over one channel, gRPC's own connection scaling, and a pool.

The pool is used as a channel: the difference is one line.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any, Final

from grpcpool import PoolConfig
from grpcpool._grpc.version import SCALES_CONNECTIONS

from .call_counter import CallCounter, Phase
from .leftovers import connections_left, describe_leftovers
from .monitor import count_text, monitoring
from .process import running_server
from .screen import Screen
from .server import STREAMS
from .world import Load, Options, World

CALLERS: Final = 300
EACH: Final = 2
CALLS: Final = EACH * CALLERS
CONFIG: Final = PoolConfig()

# A call takes as long as this, or longer on a machine that needs longer to begin as many calls.
_SECONDS = (0.5, 1.0, 2.0)
# Long enough for every call that begins at once, too short for those that wait for two others.
_DEADLINE = 1.8
# How much of what remains until the deadline beginning as many calls may take.
_BEGINNING = 0.6

Way = Callable[[str], Any]
"""Creates a channel or pool for a target."""

ONE, SCALING, POOL = "one channel", "gRPC's scaling", "grpcpool"


@dataclasses.dataclass(frozen=True)
class Pace:
    """How long a call takes, and within how many seconds it must be answered."""

    seconds: float

    @property
    def deadline(self) -> float:
        """The deadline of a call."""
        return round(self.seconds * _DEADLINE, 1)

    def __str__(self) -> str:
        """As a sentence."""
        return f"A call takes {self.seconds} s, and its caller waits at most {self.deadline} s."


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of the calls of one way."""

    phase: Phase
    connections: int | None


def ways_of(world: World) -> dict[str, Way | None]:
    """Returns the ways to call by name; `None` for a way that this grpcio does not support."""
    options = scaling_options(CONFIG.max_size)
    return {
        ONE: world.channel,
        SCALING: None if options is None else lambda target: world.channel(target, options),
        POOL: lambda target: world.pool(target, CONFIG, "limit"),
    }


def scaling_options(connections: int) -> Options | None:
    """Returns options with which a channel opens up to `connections`; `None` if this grpcio does not support them."""
    if not SCALES_CONNECTIONS:
        return None
    config = json.dumps({"connectionScaling": {"maxConnectionsPerSubchannel": connections}})
    return [("grpc.service_config", config)]


def show_limit(world: World, screen: Screen) -> list[str]:
    """Shows part 1; returns what was lost. Calls that fail are not lost."""
    screen.heading(f"1. {CALLERS} callers at once, {STREAMS} calls per connection")
    results: dict[str, Result | None] = {}
    screen.begin_table(lambda: _show(results, screen))
    with running_server() as port:
        first, *slower = _calibrate(world, port)
        screen.paragraph(
            f"{CALLERS} {world.workers} make {EACH} calls each. {first} The server accepts {STREAMS} calls at a time "
            "on each connection. Half of the answered calls took at most p50, and 99 % at most p99."
        )
        problems = _run_ways(results, world, first, port, screen)
        for pace in slower:
            if not _was_late(results[POOL]):
                break
            screen.paragraph(f"Calls on the pool were late, because this machine is busy. Once more: {pace}")
            problems += _run_ways(results, world, pace, port, screen)
    _show(results, screen)
    screen.paragraph(_conclusion(results))
    return problems


def _calibrate(world: World, port: int) -> list[Pace]:
    """Measures how long beginning and ending as many calls takes here; returns the pace for that, and slower ones."""
    counter = CallCounter(CALLERS)
    world.make_calls([Load(lambda: world.pool(f"127.0.0.1:{port}", CONFIG, "calibration"), counter, CALLERS, 0)])
    slowest = max(counter.phase.latencies, default=0.0)
    fitting = [seconds for seconds in _SECONDS if slowest <= _BEGINNING * (_DEADLINE - 1) * seconds]
    return [Pace(seconds) for seconds in fitting or _SECONDS[-1:]]


def _run_ways(results: dict[str, Result | None], world: World, pace: Pace, port: int, screen: Screen) -> list[str]:
    """Makes the calls in each way, and adds its result to `results`; returns what was lost."""
    problems: list[str] = []
    for name, way in ways_of(world).items():
        if way is None:
            results[name] = None
        else:
            results[name], lost = _run_way(name, way, world, pace, port, screen)
            problems += lost
    return problems


def _run_way(name: str, way: Way, world: World, pace: Pace, port: int, screen: Screen) -> tuple[Result, list[str]]:
    """Makes the calls in one way; returns their result, and what was lost."""
    counter = CallCounter(CALLS)
    load = Load(lambda: way(f"127.0.0.1:{port}"), counter, CALLERS, pace.seconds, pace.deadline, EACH)
    phase = counter.phase
    with monitoring(port, screen, lambda: f"{name:14} {_progress(phase)}") as monitor:
        workers = world.make_calls([load])
    # Each way starts without connections.
    left = {"connections": connections_left(port), world.workers: workers}
    lost = counter.problems() + describe_leftovers(left) if name == POOL else []
    return Result(phase, monitor.peak), lost


def _progress(phase: Phase) -> str:
    return f"of {CALLS} calls {phase.completed:3} done, {phase.failed:3} failed "


def _show(results: dict[str, Result | None], screen: Screen) -> None:
    rows: list[tuple[str, ...]] = [("", "calls", "failed", "p50", "p99", "connections", "failed because")]
    for name, result in results.items():
        rows.append((name, *(("-",) * 5 + ("needs grpcio 1.84",) if result is None else _cells(result))))
    screen.table(rows, align="<>>>>><")


def _cells(result: Result) -> tuple[str, ...]:
    """Returns the row of the table, without the name."""
    phase = result.phase
    times = [f"{seconds:.2f} s" for seconds in phase.percentiles() or ()] or ["-", "-"]
    reasons = [_REASONS.get(name, name) for name, _ in phase.failures.most_common(1)]
    return (str(phase.ended), str(phase.failed), *times, count_text(result.connections), "".join(reasons))


_REASONS: Final = {"DEADLINE_EXCEEDED": "too late", "UNAVAILABLE (stream refused)": "server refused it"}


def _was_late(result: Result | None) -> bool:
    """Whether calls were late, as no call on the pool is on a machine that has time for them."""
    return result is not None and result.phase.failures["DEADLINE_EXCEEDED"] > 0


def _conclusion(results: dict[str, Result | None]) -> str:
    """Returns what the table shows, in a sentence or two."""
    one, pool = results[ONE], results[POOL]
    if one is None or pool is None or _was_late(pool) or not one.phase.failed:
        return "This machine was too busy to show what a pool changes here: calls were late for other reasons."
    if pool.phase.failed:
        return f"{one.phase.failed} calls failed over one channel, and {pool.phase.failed} over the pool."
    return (
        f"One channel is one connection: beyond {STREAMS} calls at a time callers waited or were refused, and "
        f"{one.phase.failed} of {CALLS} calls failed. The pool opened {count_text(pool.connections)} connections, and "
        "no call failed."
    )
