"""How well clients balance that know only their own calls: a simulation of 1, 5 and 25 of them over four servers.

Each client has a pool, with a connection to each server, that counts this client's calls and no others. The least
loaded connection by that count, which the pool's own state machine picks, is compared with round robin, in which each
client uses the servers in turn. Each server works on two calls at a time, the others queue. Calls arrive at random
moments (a Poisson process), at 70 % of what the servers can do together, divided equally among the clients. The work
of a call varies (exponentially), 20 ms on average; on a slow server it takes five times as long. A call has 5 s.

Nothing is measured: time is simulated, there are no sockets, and the figures depend on the seeds alone.
"""

from __future__ import annotations

import abc
import collections
import dataclasses
import heapq
import itertools
import random
import statistics
import sys
from collections.abc import Callable

from _common import footer
from _results import Row, keep
from grpcpool import PoolConfig
from grpcpool._demo.screen import Screen
from grpcpool._machine.addresses import Addressing
from grpcpool._machine.machine import PoolMachine
from grpcpool._machine.openers import OpenWaiter
from grpcpool._machine.places import Holding

_CLIENTS = (1, 5, 25)
_SEEDS = range(3)
_SECONDS = 60.0
_AT_ONCE = 2
_WORK = 0.02
_LOAD = 0.7
_PATIENCE = 5.0

# How many times as long each server takes.
_EQUAL = (1.0, 1.0, 1.0, 1.0)
_ONE_SLOW = (1.0, 1.0, 1.0, 5.0)


@dataclasses.dataclass(eq=False, slots=True)
class Call:
    """One call.

    Attributes:
        came: When it began.
        release: Its client learns that it is over.
        over: Whether it is over.
        runs: Whether the server works on it.
    """

    came: float
    release: Callable[[float], object]
    over: bool = False
    runs: bool = False


class Client(abc.ABC):
    """Chooses a server for each of its calls."""

    @abc.abstractmethod
    def choose(self) -> tuple[int, Callable[[float], object]]:
        """The number of a server, and what is to be called with the time when the call is over."""


class LeastLoaded(Client):
    """A pool, as far as it decides."""

    def __init__(self, servers: int, seed: int) -> None:
        """Opens one connection to each."""
        addresses = [f"10.0.0.{number}:50051" for number in range(servers)]
        self._numbers = {address: number for number, address in enumerate(addresses)}
        self._machine = PoolMachine(
            PoolConfig(min_size=servers, max_size=servers, idle_timeout=None),
            name="pool",
            random=_dice(seed).random,
            addressing=Addressing(addresses=addresses, seed=seed),
        )
        self._machine.open(OpenWaiter(since=0.0, deadline=_PATIENCE), 0.0)
        opens = self._machine.outbox.opens
        while opens:
            self._machine.opened(opens.popleft().slot, object(), 0.0)

    def choose(self) -> tuple[int, Callable[[float], object]]:
        """The least loaded, by this client's calls."""
        holder = Holding()
        slot = self._machine.places.acquire(1, holder)
        if slot is None:
            raise RuntimeError("more calls at once than the pool has room for")
        number = self._numbers[str(slot.address)]
        return number, lambda now: self._machine.release(slot, 1, holder, now)


class RoundRobin(Client):
    """The servers in turn, from any of them on."""

    def __init__(self, servers: int, seed: int) -> None:
        """Knows how many there are."""
        first = _dice(seed).randrange(servers)
        self._turns = itertools.cycle([*range(first, servers), *range(first)])

    def choose(self) -> tuple[int, Callable[[float], object]]:
        """The next one."""
        return next(self._turns), _forget


def _forget(now: float) -> None:
    """It does not matter when the call is over."""
    del now


_POLICIES: dict[str, Callable[[int, int], Client]] = {"round robin": RoundRobin, "least loaded": LeastLoaded}


class Server:
    """Works on some calls, and lets the others queue."""

    def __init__(self, slower: float, network: Network) -> None:
        """Is idle."""
        self._slower = slower
        self._network = network
        self._running = 0
        self._queue: collections.deque[Call] = collections.deque()

    def take(self, call: Call) -> None:
        """A call has arrived."""
        self._queue.append(call)
        self._work()

    def left(self, call: Call) -> None:
        """A call is over, done or not."""
        if call.runs:
            self._running -= 1
            self._work()

    def _work(self) -> None:
        while self._running < _AT_ONCE and self._queue:
            call = self._queue.popleft()
            if not call.over:
                self._running += 1
                call.runs = True
                lasts = self._slower * self._network.dice.expovariate(1 / _WORK)
                self._network.after(lasts, lambda call=call: self._network.end(call, self))  # type: ignore[misc]


class Network:
    """Clients, servers and the time."""

    def __init__(
        self, clients: int, slower: tuple[float, ...], policy: Callable[[int, int], Client], seed: int
    ) -> None:
        """Begins at 0."""
        self.dice = _dice(seed)
        self.latencies: list[float] = []
        self.failed = 0
        self._now = 0.0
        self._rate = _LOAD * sum(_AT_ONCE / (_WORK * each) for each in slower)
        self._servers = [Server(each, self) for each in slower]
        self._clients = [policy(len(slower), self.dice.getrandbits(32)) for _ in range(clients)]
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Plans something."""
        heapq.heappush(self._events, (self._now + seconds, next(self._numbers), action))

    def run(self) -> None:
        """Plays it all; calls that have begun by the end are completed."""
        self._arrive()
        while self._events:
            self._now, _, action = heapq.heappop(self._events)
            action()

    def _arrive(self) -> None:
        number, release = self.dice.choice(self._clients).choose()
        call, server = Call(self._now, release), self._servers[number]
        self.after(_PATIENCE, lambda: self.end(call, server))
        server.take(call)
        pause = self.dice.expovariate(self._rate)
        if self._now + pause < _SECONDS:
            self.after(pause, self._arrive)

    def end(self, call: Call, server: Server) -> None:
        """The call is done, or its time is over, whichever is first."""
        if not call.over:
            call.over = True
            call.release(self._now)
            self.latencies.append(self._now - call.came)
            self.failed += self._now >= call.came + _PATIENCE
            server.left(call)


def _dice(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 -- no secret


def _measure(clients: int, slower: tuple[float, ...], policy: str) -> tuple[float, float, float]:
    """The median and the 99th percentile in milliseconds, and the failed calls in percent."""
    latencies: list[float] = []
    failed = 0
    for seed in _SEEDS:
        network = Network(clients, slower, _POLICIES[policy], seed)
        network.run()
        latencies += network.latencies
        failed += network.failed
    percentiles = statistics.quantiles(latencies, n=100)
    return 1000 * percentiles[49], 1000 * percentiles[98], 100 * failed / len(latencies)


def _result(what: str, clients: int, ours: float, base: float) -> Row:
    return Row(
        panel="load",
        what=f"simulated, {what}, clients: {clients}, p99",
        ours="least loaded",
        our_value=ours,
        unit="ms",
        base="round robin",
        base_value=base,
        ratio=ours / base,
        rounds=len(_SEEDS),
    )


def main() -> None:
    """Simulates and reports."""
    table: list[tuple[str, ...]] = [("", "clients", "policy", "p50", "p99", "failed")]
    rows = []
    for what, slower in (("four equal servers", _EQUAL), ("one of four servers five times slower", _ONE_SLOW)):
        for clients in _CLIENTS:
            found = {policy: _measure(clients, slower, policy) for policy in _POLICIES}
            for policy, (p50, p99, failed) in found.items():
                table.append((what, str(clients), policy, f"{p50:.0f} ms", f"{p99:.0f} ms", f"{failed:.1f} %"))
            rows.append(_result(what, clients, found["least loaded"][1], found["round robin"][1]))
    screen = Screen(sys.stdout)
    screen.table(table, align="<><>>>")
    screen.write(footer())
    keep(rows)


if __name__ == "__main__":
    main()
