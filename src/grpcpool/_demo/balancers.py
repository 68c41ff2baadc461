"""What the parts with three servers share: gRPC's `round_robin` and a pool, which make calls at the same time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from grpcpool import PoolConfig, isolated

from .call_counter import CallCounter, Phase
from .leftovers import connections_left, describe_leftovers
from .monitor import monitoring, poll
from .process import ServerProcess
from .screen import Screen
from .world import PATIENCE, Load, World

SERVERS: Final = 3
CALLERS: Final = 12
SECONDS: Final = 0.03
"""How long a call takes."""

ROUND_ROBIN, POOL = "round_robin", "grpcpool"
_OPTIONS: Final = (("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),)
_WARM_UP = 30


class Comparison:
    """The calls of `round_robin` and of a pool over the same servers, at the same time."""

    def __init__(self, world: World, servers: Sequence[ServerProcess]) -> None:
        """No call is made yet."""
        self.counters = {name: CallCounter() for name in (ROUND_ROBIN, POOL)}
        self._world = world
        self._ports = [server.port for server in servers]

    def run(self, screen: Screen, script: Callable[[], None]) -> list[str]:
        """Makes calls while a thread runs `script`, which begins phases and ends the last; returns what was lost."""
        target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in self._ports)
        creators = {
            ROUND_ROBIN: lambda: self._world.channel(target, isolated(_OPTIONS)),
            POOL: lambda: self._world.pool(target, PoolConfig(), "servers"),
        }
        loads = [Load(create, self.counters[name], CALLERS, SECONDS) for name, create in creators.items()]
        with monitoring(None, screen, self._describe), self._beside(script):
            workers = self._world.make_calls(loads)
        left = {
            "connections": sum(connections_left(port) for port in self._ports),
            self._world.workers: workers,
        }
        return [text for counter in self.counters.values() for text in counter.problems()] + describe_leftovers(left)

    def warm_up(self) -> None:
        """Waits until both have made some calls."""
        self.wait(lambda phase: phase.ended >= _WARM_UP)

    def begin_phase(self, calls: int) -> dict[str, Phase]:
        """Begins a phase of this number of calls in both ways."""
        return {name: counter.begin_phase(calls) for name, counter in self.counters.items()}

    def wait(self, met: Callable[[Phase], bool]) -> None:
        """Waits until the condition is met for the current phases, or no more calls are to be made."""
        phases = [counter.phase for counter in self.counters.values()]
        for seconds in poll(lambda: self._over() or all(map(met, phases)), PATIENCE):
            time.sleep(seconds)

    @contextlib.contextmanager
    def _beside(self, script: Callable[[], None]) -> Iterator[None]:
        """Runs `script` on a thread during the ``with`` block; at its end, no more calls than it asked for are made."""
        with ThreadPoolExecutor(1) as executor:
            running = executor.submit(self._run_script, script)
            try:
                yield
            finally:
                self._stop()
        running.result()

    def _run_script(self, script: Callable[[], None]) -> None:
        try:
            script()
        except BaseException:
            self._stop()
            raise

    def _stop(self) -> None:
        for counter in self.counters.values():
            counter.stop()

    def _over(self) -> bool:
        return all(counter.over for counter in self.counters.values())

    def _describe(self) -> str:
        return "   ".join(f"{name}: {_progress(counter)}" for name, counter in self.counters.items())


def _progress(counter: CallCounter) -> str:
    return f"{counter.ended:4} calls, {counter.failed:3} failed"
