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
import time
from collections.abc import Callable, Iterator

import grpc

import grpcpool
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
    return Measured(statistics.median(of_base), statistics.median(of_ours), ratio, (low, high))


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


def report(title: str, measured: dict[str, Measured], *, per: int, base: str, ours: str, bounds: list[float]) -> None:
    """Prints a table and the command to repeat it; times are those of one of the `per` operations in a block."""
    rows = [(title, base, ours, "ratio", "half of them", "bound", "")]
    for (name, one), bound in zip(measured.items(), bounds, strict=True):
        times = f"{1e6 * one.base / per:.2f} us", f"{1e6 * one.ours / per:.2f} us"
        half = "{:.2f} to {:.2f}".format(*one.half)
        rows.append((name, *times, f"{one.ratio:.3f}", half, f"{bound:.2f}", verdict(met=one.ratio <= bound)))
    screen = Screen(sys.stdout)
    screen.table(rows, align="<>>>>><")
    screen.write(footer())


def verdict(*, met: bool) -> str:
    """Whether a bound was kept, in a word."""
    return "met" if met else "MISSED"


def footer() -> str:
    """The versions measured with, and the command that repeats it."""
    versions = f"Python {sys.version.split()[0]}, grpcio {grpc.__version__}, grpcpool"
    return f"{versions}; again: python bench/{pathlib.Path(sys.argv[0]).name}"
