"""Part 1: a burst of threads leases whole connections; then the pool comes to rest, and gives back what it opened."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import grpc

from grpcpool import ChannelPool, PoolConfig, PoolStats, PoolTimeoutError, isolated

from .process import running_server
from .remains import connections_left, threads_left
from .screen import Screen, bar
from .server import METHOD
from .tcp import count_connections

CONFIG = PoolConfig(min_size=2, max_size=8, idle_timeout=1.0, max_age=2.5, age_jitter=0.2)
ASKS = 200
PATIENCE = 10.0

# Every fifth has not enough patience for its turn: eight at a time take 50 ms, so the last has to wait for 1.25 s.
HURRY = 0.25
HURRIED = 5

_GLANCE = 0.05
_QUIET = 6.0
_DONE, _TIMED_OUT = "done", "timed out"


@dataclasses.dataclass(frozen=True)
class Findings:
    """What was seen of the pool, from within and from outside."""

    outcomes: Counter[str]
    stats: PoolStats
    peak: int | None
    at_end: int | None
    connections_left: int
    threads_left: int

    @property
    def lost(self) -> int:
        """Leases that were granted and did not come back, and what was left after the close."""
        returned = sum(count for outcome, count in self.outcomes.items() if outcome != _TIMED_OUT)
        held = max(abs(self.stats.acquired - returned), self.stats.in_flight)
        return held + self.connections_left + self.threads_left


class _Watch:
    """Looks at the pool from within and from outside, and shows both."""

    def __init__(self, pool: ChannelPool, port: int, screen: Screen) -> None:
        self._pool = pool
        self._port = port
        self._screen = screen
        self.peak: int | None = None

    def until(self, met: Callable[[PoolStats], bool], seconds: float) -> None:
        """Watches until the condition is met, for so many seconds at most."""
        deadline = time.monotonic() + seconds
        while not met(self._look()) and time.monotonic() < deadline:
            time.sleep(_GLANCE)

    def _look(self) -> PoolStats:
        stats = self._pool.stats()
        counted = count_connections(self._port)
        if counted is not None:
            self.peak = max(self.peak or 0, counted)
        drawing = bar(used=stats.in_flight, idle=stats.idle, size=CONFIG.max_size)
        text = f"{drawing}  in use {stats.in_flight}  waiting {stats.waiting:3}  TCP connections {_told(counted)}"
        self._screen.live(text)
        return stats


def show_leases(screen: Screen) -> list[str]:
    """Shows part 1; returns what went wrong."""
    screen.write(
        f"Leases: {ASKS} threads ask at once, each for a whole connection, for one call of 50 ms.\n"
        f"The pool keeps {CONFIG.min_size} to {CONFIG.max_size} connections; every fifth thread "
        f"waits no longer than {HURRY} s.\n"
    )
    with running_server() as port:
        findings = _observe(port, screen)
    _show(findings, screen)
    return _wrong(findings)


def _observe(port: int, screen: Screen) -> Findings:
    outcomes: Counter[str] = Counter()
    with ChannelPool(lambda: grpc.insecure_channel(f"127.0.0.1:{port}", isolated()), CONFIG, name="leases") as pool:
        pool.open(PATIENCE)
        watch = _Watch(pool, port, screen)
        with _burst(pool, outcomes):
            watch.until(lambda _: outcomes.total() == ASKS, 2 * PATIENCE)
        watch.until(_is_at_rest, _QUIET)
        stats, at_end = pool.stats(), count_connections(port)
    left = connections_left(port), threads_left(pool.name)
    return Findings(outcomes, stats, watch.peak, at_end, *left)


def _is_at_rest(stats: PoolStats) -> bool:
    """Whether what idles has been closed and what is left has been replaced at least once."""
    rested = stats.size == CONFIG.min_size == stats.ready
    return rested and stats.closed["idle"] > 0 and stats.closed["age"] >= CONFIG.min_size


@contextmanager
def _burst(pool: ChannelPool, outcomes: Counter[str]) -> Iterator[None]:
    """Runs the threads; in the end all have ended. Should it be interrupted, the pool is closed, which ends them."""
    guard = threading.Lock()

    def run(patience: float) -> None:
        outcome = _ask(pool, patience)
        with guard:
            outcomes[outcome] += 1

    patiences = [HURRY if number % HURRIED == 0 else PATIENCE for number in range(1, ASKS + 1)]
    threads = [threading.Thread(target=run, args=(patience,), daemon=True) for patience in patiences]
    try:
        for thread in threads:
            thread.start()
        yield
    except BaseException:
        pool.close()
        raise
    finally:
        for thread in threads:
            if thread.ident is not None:
                thread.join(PATIENCE)


def _ask(pool: ChannelPool, patience: float) -> str:
    """Leases a connection for one call; tells how that went."""
    try:
        with pool.acquire(timeout=patience) as lease:
            lease.unary_unary(METHOD)(b"", timeout=PATIENCE)
    except PoolTimeoutError:
        return _TIMED_OUT
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is told
        return f"{type(error).__name__}: {error}"
    return _DONE


def _show(findings: Findings, screen: Screen) -> None:
    stats = findings.stats
    opened, shrunk = stats.opened, stats.closed["shrink"]
    rows: Sequence[tuple[str, str, str]] = [
        ("leases", "", ""),
        ("acquired", str(stats.acquired), "leases granted; each made its call"),
        ("waited", str(stats.waited), "of them queued first"),
        ("timed out", str(stats.timeouts), f"asks that would not wait beyond {HURRY} s"),
        ("connections opened", str(opened), "successors of aged ones included"),
        ("open at peak", _told(findings.peak), "TCP connections, counted from outside"),
        ("reused", str(stats.acquired - opened), "leases that needed no new connection"),
        ("closed as idle", str(stats.closed["idle"] + shrunk), f"unused for {CONFIG.idle_timeout} s, or one too many"),
        ("closed as aged", str(stats.closed["age"]), f"replaced before they were {CONFIG.max_age} s old"),
        ("open at the end", _told(findings.at_end), f"TCP connections; min_size is {CONFIG.min_size}"),
        ("lost", str(findings.lost), "leases not returned; connections, threads left"),
    ]
    screen.table(rows, align="<><")


def _told(count: int | None) -> str:
    return "?" if count is None else str(count)


def _wrong(findings: Findings) -> list[str]:
    """What should not be, in words."""
    stats, outcomes = findings.stats, findings.outcomes
    wrong = [f"{count} asks: {outcome}" for outcome, count in outcomes.items() if outcome not in (_DONE, _TIMED_OUT)]
    expectations = {
        f"{outcomes.total()} of {ASKS} asks had an outcome": outcomes.total() == ASKS,
        f"{stats.acquired} acquired, {outcomes[_DONE]} done": stats.acquired == outcomes[_DONE],
        f"{stats.timeouts} timeouts, {outcomes[_TIMED_OUT]} told": stats.timeouts == outcomes[_TIMED_OUT],
        f"{stats.in_flight} in flight and {stats.waiting} waiting at rest": not stats.in_flight + stats.waiting,
        f"{findings.connections_left} connections left after close()": not findings.connections_left,
        f"{findings.threads_left} threads left after close()": not findings.threads_left,
    }
    return wrong + [text for text, met in expectations.items() if not met]
