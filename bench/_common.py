"""What the benchmarks share: a server, pools on it, and ratios of interleaved blocks.

The times of one run mean little on a machine that also does other things; ratios of consecutive blocks mean more. So
both sides run in turn, many times, in one process, and the result is the median of the ratios. Time is CPU time of this
process, all its threads included; the server is another process.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import pathlib
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import grpc

import grpcpool
from _results import Row, keep
from grpcpool._demo.process import running_server
from grpcpool._demo.screen import Screen

Block = Callable[[], object]
"""Does the work of one block."""

ECHO = "/bench.Bench/Echo"
COUNT = "/bench.Bench/Count"


@dataclasses.dataclass(frozen=True)
class Measured:
    """One comparison: median CPU seconds of a block, and the median of the ratios, with their middle half."""

    base: float
    ours: float
    ratio: float
    half: tuple[float, float]
    rounds: int


def compare(base: Block, ours: Block, *, rounds: int) -> Measured:
    """Runs both in turn; each is first every other time."""
    gc.collect()
    _cpu_seconds(base), _cpu_seconds(ours)
    pairs: list[tuple[float, float]] = []
    for number in range(rounds):
        if number % 2:
            before = _cpu_seconds(base)
            pairs.append((before, _cpu_seconds(ours)))
        else:
            after = _cpu_seconds(ours)
            pairs.append((_cpu_seconds(base), after))
    of_base, of_ours = zip(*pairs, strict=True)
    low, ratio, high = statistics.quantiles([after / before for before, after in pairs])
    return Measured(statistics.median(of_base), statistics.median(of_ours), ratio, (low, high), rounds)


def _cpu_seconds(block: Block) -> float:
    began = time.process_time()
    block()
    return time.process_time() - began


@contextlib.contextmanager
def fast_server() -> Iterator[str]:
    """Runs ``_server.py``; yields its target."""
    with running_server([str(pathlib.Path(__file__).with_name("_server.py"))]) as port:
        yield f"127.0.0.1:{port}"


def isolated_channel(target: str) -> grpc.Channel:
    """A channel with a connection of its own."""
    return grpc.insecure_channel(target, grpcpool.isolated())


def isolated_aio_channel(target: str) -> grpc.aio.Channel:
    """An asyncio channel with a connection of its own."""
    return grpc.aio.insecure_channel(target, grpcpool.isolated())


@contextlib.contextmanager
def open_pool(target: str, size: int) -> Iterator[grpcpool.ChannelPool]:
    """A pool of this many open connections."""
    config = grpcpool.PoolConfig(min_size=size, max_size=size, connect_timeout=60.0)
    with grpcpool.ChannelPool(lambda: isolated_channel(target), config) as pool:
        pool.open()
        yield pool


def leasing(pool: grpcpool.ChannelPool, streams: int | None, times: int) -> Block:
    """A block that acquires and releases this many times."""

    def block() -> None:
        acquire = pool.acquire
        for _ in range(times):
            acquire(streams=streams).release()

    return block


def floor(times: int) -> Block:
    """The least that an acquire and a release can cost: two rounds of taking a lock and moving an item in a deque."""
    lock = threading.Lock()
    free = deque(range(4))

    def block() -> None:
        for _ in range(times):
            with lock:
                free.append(free.popleft())
            with lock:
                free.append(free.popleft())

    return block


def rows_of(
    measured: dict[str, Measured],
    *,
    panel: str,
    title: str,
    per: int,
    base: str,
    ours: str,
    bounds: Sequence[float | None],
) -> list[Row]:
    """The comparisons as rows; times are those of one of the `per` operations in a block."""
    return [
        Row(
            panel=panel,
            what=f"{title}, {name}",
            base=base,
            ours=ours,
            unit="us CPU",
            base_value=1e6 * one.base / per,
            our_value=1e6 * one.ours / per,
            ratio=one.ratio,
            low=one.half[0],
            high=one.half[1],
            rounds=one.rounds,
            bound=bound,
        )
        for (name, one), bound in zip(measured.items(), bounds, strict=True)
    ]


def report(
    title: str,
    measured: dict[str, Measured],
    *,
    panel: str,
    per: int,
    base: str,
    ours: str,
    bounds: Sequence[float | None],
) -> None:
    """Prints a table and the command to repeat it, and keeps the rows; times are for one of `per` operations."""
    rows = rows_of(measured, panel=panel, title=title, per=per, base=base, ours=ours, bounds=bounds)
    print_rows(title, rows)
    keep(rows)


def print_rows(title: str, rows: list[Row]) -> None:
    """Prints rows with the same base and unit as a table, and the command to repeat it."""
    table = [(title, rows[0].base or "base", rows[0].ours, "ratio", "middle half", "bound", "")]
    for row in rows:
        base = "" if row.base_value is None else f"{row.base_value:.2f} {row.unit}"
        ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
        half = "" if row.low is None else f"{row.low:.2f} to {row.high:.2f}"
        bound = "" if row.bound is None else f"{row.bound:.2f}"
        name = row.what.removeprefix(f"{title}, ")
        table.append((name, base, f"{row.our_value:.2f} {row.unit}", ratio, half, bound, row.verdict))
    screen = Screen(sys.stdout)
    screen.table(table, align="<>>>>><")
    screen.write(footer())


def footer() -> str:
    """The versions measured with, and the command that repeats it."""
    versions = f"Python {sys.version.split()[0]}, grpcio {grpc.__version__}, grpcpool"
    return f"{versions}; again: python bench/{pathlib.Path(sys.argv[0]).name}"
