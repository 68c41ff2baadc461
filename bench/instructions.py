"""What calls and leases cost in instructions of the client's process, as valgrind counts them.

Each measurement is a process of its own under ``valgrind --tool=callgrind``, with a native server beside it. Counting
begins when its imports are complete and its connections are open, because the start would take longer than all else.
Then it warms up and runs blocks of the same work. A call of `os.getppid` between the blocks makes callgrind write what
it has counted, in all threads. ``PYTHONPATH`` chooses another source tree to measure.

The figure is the least of the blocks. Leases repeat to a quarter of a hundredth, but one more import in this file,
which lays out memory otherwise, changed them by up to a hundredth. Calls wait for the server, and gRPC's threads wake
up meanwhile: on a busy machine calls differed by up to five hundredths from run to run. So compare two source trees
only where the machine is equally busy, and more than once.

The hash seed is fixed unless ``PYTHONHASHSEED`` is set. Other seeds gave the same figures, within those bounds.

Without asyncio the clock of the pool stands still. Compared with calls and leases, time passes fifty times faster under
valgrind. The pool would check its connections after every hundred calls instead of every 0.4 s, and each of them before
every lease. On asyncio its timer costs each turn of the loop, and so each call, something: there the clock goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import copy
import dataclasses
import itertools
import os
import pathlib
import re
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import grpc

import grpcpool.aio
from _common import COUNT, ECHO, fast_server, floor, footer, isolated_aio_channel, isolated_channel, leasing
from _results import Row, keep
from grpcpool import testing
from grpcpool._demo.screen import Screen

_BLOCKS = 15
_MESSAGES = 10

# Under valgrind everything takes fifty times as long.
_PATIENCE = 600.0
_CONFIG = grpcpool.PoolConfig(
    min_size=1, max_size=1, connect_timeout=_PATIENCE, acquire_timeout=_PATIENCE, idle_timeout=None
)

Mark = Callable[[], object]
"""Ends a block."""


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What is measured: `run` does the work in blocks of `times`, and marks each block."""

    title: str
    times: int
    run: Callable[[str, int], None]
    base: str | None = None
    """The name of the measurement that this is compared with."""
    bound: float | None = None
    """What the ratio may be at most."""


def _mark() -> None:
    os.getppid()


def _ready() -> None:
    """Reports that counting can begin; returns when it has begun."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    # Valgrind takes commands only while the program runs.
    while not select.select([sys.stdin], [], [], 0.005)[0]:
        pass


def _blocks(block: Callable[[], object]) -> None:
    """Runs the blocks; the first one warms up."""
    _ready()
    for _ in range(_BLOCKS + 1):
        block()
        _mark()


# --- threads ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _time_stands_still() -> Iterator[None]:
    with testing.manual_clock() as clock:
        # A function of C, as is that of the system's clock.
        clock.monotonic = itertools.repeat(clock.monotonic()).__next__
        yield


@contextlib.contextmanager
def _channel(target: str, *, pooled: bool, shared: bool = False) -> Iterator[grpc.Channel]:
    if not pooled:
        with isolated_channel(target) as channel:
            yield channel
        return
    with _time_stands_still(), grpcpool.ChannelPool(lambda: isolated_channel(target), _CONFIG) as pool:
        if not shared:
            pool.open()
            yield pool
            return
        with copy.copy(pool) as handle:
            handle.open()
            yield handle


def _unary(*, pooled: bool, shared: bool = False) -> Callable[[str, int], None]:
    def run(target: str, times: int) -> None:
        with _channel(target, pooled=pooled, shared=shared) as channel:
            call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ECHO)

            def block() -> None:
                for _ in range(times):
                    call(b"request")

            _blocks(block)

    return run


def _stream(*, pooled: bool) -> Callable[[str, int], None]:
    def run(target: str, times: int) -> None:
        with _channel(target, pooled=pooled) as channel:
            call: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(COUNT)

            def block() -> None:
                for _ in range(times):
                    for _message in call(bytes(_MESSAGES)):
                        pass

            _blocks(block)

    return run


def _lease(streams: int | None) -> Callable[[str, int], None]:
    def run(target: str, times: int) -> None:
        config = _CONFIG.replace(min_size=4, max_size=4)
        with _time_stands_still(), grpcpool.ChannelPool(lambda: isolated_channel(target), config) as pool:
            pool.open()
            _blocks(leasing(pool, streams, times))

    return run


# --- asyncio ----------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _aio_channel(target: str, *, pooled: bool, shared: bool) -> AsyncIterator[grpc.aio.Channel]:
    if not pooled:
        async with isolated_aio_channel(target) as channel:
            yield channel
        return
    async with grpcpool.aio.ChannelPool(lambda: isolated_aio_channel(target), _CONFIG) as pool:
        if not shared:
            await pool.open()
            yield pool
            return
        async with copy.copy(pool) as handle:
            await handle.open()
            yield handle


def _aio(
    work: Callable[[grpc.aio.Channel, int], Coroutine[Any, Any, None]], *, pooled: bool, shared: bool = False
) -> Any:
    async def measure(target: str, times: int) -> None:
        async with _aio_channel(target, pooled=pooled, shared=shared) as channel:
            _ready()
            for _ in range(_BLOCKS + 1):
                await work(channel, times)
                _mark()

    return lambda target, times: asyncio.run(measure(target, times))


async def _aio_unary(channel: grpc.aio.Channel, times: int) -> None:
    # As the calls of stubs do, these have a serializer and a deserializer.
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ECHO, bytes, bytes)
    for _ in range(times):
        await call(b"request")


# --- all of them ------------------------------------------------------------------------------------------------


def _floor(_: str, times: int) -> None:
    _blocks(floor(times))


_MEASUREMENTS = {
    "unary-bare": Measurement("unary call, channel", 100, _unary(pooled=False)),
    "unary-pool": Measurement("unary call, pool", 100, _unary(pooled=True), "unary-bare", 1.05),
    "unary-handle": Measurement("unary call, handle", 100, _unary(pooled=True, shared=True), "unary-pool"),
    "stream-bare": Measurement(f"stream of {_MESSAGES} messages, channel", 30, _stream(pooled=False)),
    "stream-pool": Measurement(f"stream of {_MESSAGES} messages, pool", 30, _stream(pooled=True), "stream-bare", 1.06),
    "aio-bare": Measurement("asyncio unary call, channel", 100, _aio(_aio_unary, pooled=False)),
    "aio-pool": Measurement("asyncio unary call, pool", 100, _aio(_aio_unary, pooled=True), "aio-bare", 1.10),
    "aio-handle": Measurement(
        "asyncio unary call, handle", 100, _aio(_aio_unary, pooled=True, shared=True), "aio-pool"
    ),
    "lease-floor": Measurement("acquire + release, floor", 500, _floor),
    "lease-whole": Measurement("acquire + release, a whole connection", 500, _lease(None), "lease-floor", 4.0),
    "lease-stream": Measurement("acquire + release, one stream", 500, _lease(1), "lease-floor", 4.2),
}


def _count(name: str, target: str) -> list[float]:
    """Instructions for one time of the work, block by block."""
    command = [sys.executable, __file__, "--run", name, "--target", target]
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder, "count")
        pipes = f"--vgdb-prefix={folder}/vgdb"
        options = ["--tool=callgrind", "--instr-atstart=no", "--dump-before=getppid", f"--callgrind-out-file={out}"]
        environment = {**os.environ, "PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", "0")}
        with pathlib.Path(folder, "errors").open("w+", encoding="utf-8") as errors:
            process = subprocess.Popen(  # noqa: S603 -- the command is ours
                ["valgrind", pipes, *options, *command],  # noqa: S607 -- wherever it is
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            assert process.stdout is not None  # noqa: S101 -- a pipe was asked for
            if process.stdout.readline():
                begin = ["vgdb", pipes, f"--pid={process.pid}", "instrumentation", "on"]
                subprocess.run(begin, capture_output=True, check=True)  # noqa: S603 -- as above
            process.communicate("begun\n")
            errors.seek(0)
            # The first part is the block that warms up.
            parts = [pathlib.Path(f"{out}.{number}") for number in range(2, _BLOCKS + 2)]
            if process.returncode or not all(map(pathlib.Path.exists, parts)):
                raise RuntimeError(f"{name} failed: {errors.read()}")
        return [_total(part) / _MEASUREMENTS[name].times for part in parts]


def _total(part: pathlib.Path) -> int:
    found = re.search(r"^totals: (\d+)$", part.read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"callgrind wrote no total: {part}")
    return int(found[1])


def _row(name: str, counts: dict[str, list[float]]) -> Row | None:
    """The row of a measurement; `None` if it, or its base, was not measured or has no base."""
    measurement, ours = _MEASUREMENTS[name], counts[name]
    if measurement.base not in counts:
        return None
    base = counts[measurement.base]
    low, _, high = statistics.quantiles([after / before for before, after in zip(base, ours, strict=True)])
    what, _, side = measurement.title.rpartition(", ")
    of_lease = name.startswith("lease")
    return Row(
        panel="leases" if of_lease else "calls",
        what=f"instructions, {measurement.title if of_lease else what}",
        base=_MEASUREMENTS[measurement.base].title.rpartition(", ")[2],
        ours="pool" if of_lease else side,
        unit="instructions",
        base_value=min(base),
        our_value=min(ours),
        ratio=min(ours) / min(base),
        low=low,
        high=high,
        rounds=len(ours),
        bound=measurement.bound,
    )


def _report(counts: dict[str, list[float]]) -> None:
    table = [("instructions", "least", "median", "most", "ratio", "bound", "")]
    rows = {name: _row(name, counts) for name in counts}
    for name, blocks in counts.items():
        figures = min(blocks), statistics.median(blocks), max(blocks)
        least, median, most = (f"{figure:,.0f}" for figure in figures)
        row = rows[name]
        ratio = "" if row is None else f"{row.ratio:.3f}"
        bound = "" if row is None or row.bound is None else f"{row.bound:.2f}"
        verdict = "" if row is None else row.verdict
        table.append((_MEASUREMENTS[name].title, least, median, most, ratio, bound, verdict))
    screen = Screen(sys.stdout)
    screen.table(table, align="<>>>>><")
    screen.write(footer())
    keep(row for row in rows.values() if row is not None)


def main() -> None:
    """Measures and reports; under valgrind, does the work of one measurement."""
    parser = argparse.ArgumentParser(description="Counts instructions of calls and leases.")
    parser.add_argument("names", nargs="*", help=f"what to measure, all if not given: {', '.join(_MEASUREMENTS)}")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--target", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        measurement = _MEASUREMENTS[arguments.run]
        measurement.run(arguments.target, measurement.times)
        return
    unknown = set(arguments.names) - _MEASUREMENTS.keys()
    if unknown:
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}")
    if shutil.which("valgrind") is None:
        print("Not measured: valgrind is not installed.")
        return
    names = arguments.names or list(_MEASUREMENTS)
    with fast_server() as target:
        counts = {name: _count(name, target) for name in names}
    _report(counts)


if __name__ == "__main__":
    main()
