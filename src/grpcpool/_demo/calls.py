"""Part 2: many threads call at once, on one channel, on gRPC's own connection scaling, and on a pool.

The pool is used as a `grpc.Channel`; that it is a pool is one changed line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

import grpc

from grpcpool import ChannelPool, PoolConfig, isolated

from .process import running_server
from .remains import connections_left, threads_left
from .screen import Screen
from .server import METHOD, STREAMS
from .tcp import count_connections

THREADS: Final = 400
WARM_UP: Final = 0.6
MEASURED: Final = 1.6
CONNECTIONS: Final = 8

_POOL = "calls"
_CALL_TIMEOUT = 10.0
_GLANCE = 0.05
_SCALING_SINCE = (1, 84)


def bare(target: str) -> grpc.Channel:
    """One channel, which is one connection."""
    return grpc.insecure_channel(target)


def scaling(target: str) -> grpc.Channel | None:
    """One channel that may open more connections by itself; `None` if this grpcio cannot."""
    if tuple(int(part) for part in grpc.__version__.split(".")[:2]) < _SCALING_SINCE:
        return None
    config = json.dumps({"connectionScaling": {"maxConnectionsPerSubchannel": CONNECTIONS}})
    return grpc.insecure_channel(target, [("grpc.service_config", config)])


def pooled(target: str) -> grpc.Channel:
    """A pool, which is a channel, too."""
    config = PoolConfig(min_size=1, max_size=CONNECTIONS)
    return ChannelPool(lambda: grpc.insecure_channel(target, isolated()), config, name=_POOL)


WAYS: dict[str, Callable[[str], grpc.Channel | None]] = {
    "one grpc.Channel": bare,
    "gRPC's scaling": scaling,
    "grpcpool": pooled,
}


class Tally:
    """Counts the calls that end within the time measured, from any thread."""

    def __init__(self) -> None:
        """Begins with the warm-up."""
        self.begins = time.monotonic() + WARM_UP
        self.ends = self.begins + MEASURED
        self.stopped = False
        self.latencies: list[float] = []
        self.failures: list[str] = []

    def running(self) -> bool:
        """Whether to make another call."""
        return not self.stopped and time.monotonic() < self.ends

    def ended(self, began: float, failure: str | None) -> None:
        """A call that began then is over. Takes no lock: to append to a list is safe for threads."""
        now = time.monotonic()
        if not self.begins <= now < self.ends:
            return
        if failure is None:
            self.latencies.append(now - began)
        else:
            self.failures.append(failure)


@dataclasses.dataclass(frozen=True)
class Result:
    """What one way of calling came to."""

    tally: Tally
    connections: int | None

    def cells(self) -> tuple[str, ...]:
        """The row of the table, without the name."""
        latencies, failures = self.tally.latencies, self.tally.failures
        percentiles = statistics.quantiles(latencies, n=100) if len(latencies) > 1 else [0.0] * 99
        return (
            str(len(latencies)),
            str(len(failures)),
            f"{len(latencies) / MEASURED:.0f}",
            f"{1000 * percentiles[49]:.0f} ms",
            f"{1000 * percentiles[98]:.0f} ms",
            "?" if self.connections is None else str(self.connections),
            ", ".join(failure for failure, _ in Counter(failures).most_common(2)),
        )


def show_calls(screen: Screen) -> list[str]:
    """Shows part 2; returns what went wrong. That gRPC by itself fails calls is not ours to mend."""
    screen.write(
        f"Calls: {THREADS} threads make calls of 50 ms, one after the other, for {MEASURED} s each way.\n"
        f"The server allows {STREAMS} streams a connection; scaling and pool may have {CONNECTIONS} connections.\n"
    )
    rows: list[tuple[str, ...]] = [
        ("calls", "completed", "failed", "a second", "p50", "p99", "TCP connections", "failed with")
    ]
    wrong: list[str] = []
    for name, way in WAYS.items():
        result = _try(name, way, screen, wrong)
        rows.append((name, *(result.cells() if result else (*["-"] * 6, "not in this grpcio"))))
    screen.table(rows, align="<>>>>>><")
    return wrong


def _try(name: str, way: Callable[[str], grpc.Channel | None], screen: Screen, wrong: list[str]) -> Result | None:
    with running_server() as port:
        channel = way(f"127.0.0.1:{port}")
        if channel is None:
            return None
        with channel:
            result = _measure(channel, port, lambda text: screen.live(f"{name:17} {text}"))
            if isinstance(channel, ChannelPool):
                wrong += _wrong(channel, result)
        if isinstance(channel, ChannelPool) and (left := connections_left(port) + threads_left(_POOL)):
            wrong.append(f"{left} connections or threads left after close()")
    return result


def _measure(channel: grpc.Channel, port: int, live: Callable[[str], None]) -> Result:
    tally = Tally()
    peak: int | None = None
    with _callers(channel, tally):
        while tally.running():
            counted = count_connections(port)
            if counted is not None:
                peak = max(peak or 0, counted)
            text = f"completed {len(tally.latencies):5}  failed {len(tally.failures):5}"
            live(f"{text}  TCP connections {'?' if counted is None else counted}")
            time.sleep(_GLANCE)
    return Result(tally, peak)


@contextlib.contextmanager
def _callers(channel: grpc.Channel, tally: Tally) -> Iterator[None]:
    """Runs the threads that call; in the end all have ended. Should it be interrupted, calls are cancelled."""
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
    threads = [threading.Thread(target=keep_calling, args=(call, tally), daemon=True) for _ in range(THREADS)]
    try:
        for thread in threads:
            thread.start()
        yield
    except BaseException:
        tally.stopped = True
        channel.close()
        raise
    finally:
        for thread in threads:
            if thread.ident is not None:
                thread.join(_CALL_TIMEOUT)


def keep_calling(call: grpc.UnaryUnaryMultiCallable[bytes, bytes], tally: Tally) -> None:
    """Makes one call after the other, as long as the tally says."""
    while tally.running():
        began = time.monotonic()
        try:
            call(b"", timeout=_CALL_TIMEOUT)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is counted
            tally.ended(began, _named(error))
        else:
            tally.ended(began, None)


def _named(error: Exception) -> str:
    """A short name for what a call failed with."""
    if not isinstance(error, grpc.Call):
        return type(error).__name__
    refused = "RST_STREAM" in (error.details() or "")
    return error.code().name + (" (stream refused)" if refused else "")


def _wrong(pool: ChannelPool, result: Result) -> list[str]:
    """What should not be, in words."""
    stats, failures = pool.stats(), Counter(result.tally.failures)
    wrong = [f"{count} calls on the pool failed: {failure}" for failure, count in failures.items()]
    if not result.tally.latencies:
        wrong.append("no call on the pool was completed")
    if stats.in_flight or stats.waiting:
        wrong.append(f"{stats.in_flight} in flight and {stats.waiting} waiting at rest")
    return wrong
