"""Measures calls over servers of unequal speed, by load: `round_robin` and a pool.

``python docs/experiments/unequal_servers.py`` measures, writes ``unequal_servers.csv`` and draws it; with ``--draw`` it
only draws the existing file. Each of three servers works on four calls at a time; others queue. The work of a call
varies (exponentially), 40 ms on average, and takes three times as long on the third server. Calls start at random
moments, whether earlier ones have ended or not. Both ways run at the same time, in processes of their own, each with
its own servers, on the same calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pathlib
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import grpc
from experiment import BENCH, chunks, main, markdown, percentile, pyplot, read, side_by_side

import grpcpool.aio

sys.path.append(str(BENCH))

from _sick_servers import METHOD, aio_round_robin, servers

DATA = pathlib.Path(__file__).with_suffix(".csv")
SLOWER = (1.0, 1.0, 3.0)
LOADS = (30, 50, 70, 90)
ROUNDS, SECONDS, PATIENCE = 3, 20.0, 5.0
WORK, AT_ONCE = 0.04, 4
CAPACITY = sum(AT_ONCE / (WORK * slower) for slower in SLOWER)
PERCENTS = {"p50_ms": 50, "p99_ms": 99, "p999_ms": 99.9}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One way at one load, in one round; the time of a failed call is the time until it failed."""

    load_percent: int
    way: str
    round: int
    calls: int
    failed: int
    slow_percent: float
    p50_ms: float
    p99_ms: float
    p999_ms: float


def pool(targets: list[str]) -> grpc.aio.Channel:
    """Returns a pool with the defaults."""
    return grpcpool.aio.insecure_channel("ipv4:" + ",".join(targets))


WAYS: dict[str, Callable[[list[str]], grpc.aio.Channel]] = {"round_robin": aio_round_robin, "grpcpool": pool}


def arrivals(load: int, seed: int) -> Iterator[tuple[float, float]]:
    """Yields when calls start, and the seconds of work of each: a Poisson process."""
    dice = random.Random(seed)  # noqa: S311 (not a secret)
    at = 0.0
    while (at := at + dice.expovariate(CAPACITY * load / 100)) < SECONDS:
        yield at, dice.expovariate(1 / WORK)


@dataclasses.dataclass(frozen=True)
class Call:
    """How long a call took, and which server answered, if any."""

    took: float
    server: str | None


async def call_all(channel: grpc.aio.Channel, load: int, seed: int) -> list[Call]:
    """Makes the calls."""
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
    began = time.monotonic()

    async def one(due: float, work: float) -> Call:
        server = None
        with contextlib.suppress(grpc.RpcError):
            server = (await call(str(work).encode(), timeout=PATIENCE)).decode()
        return Call(time.monotonic() - began - due, server)

    tasks = []
    for due, work in arrivals(load, seed):
        await asyncio.sleep(began + due - time.monotonic())
        tasks.append(asyncio.create_task(one(due, work)))
    return await asyncio.gather(*tasks)


async def measure(way: str, load: int, number: int) -> Row:
    """Measures one way at one load."""
    with servers(len(SLOWER)) as started:
        for server, slower in zip(started, SLOWER, strict=True):
            server.fall_sick(at_once=AT_ONCE, slower=slower)
        async with WAYS[way]([server.target for server in started]) as channel:
            await channel.channel_ready()
            await asyncio.sleep(1)
            calls = await call_all(channel, load, seed=number)
    slow = started[-1].target.partition(":")[2]
    answered = [call.server for call in calls if call.server is not None]
    took = [call.took for call in calls]
    p50, p99, p999 = (round(1000 * percentile(took, percent), 1) for percent in PERCENTS.values())
    return Row(
        load_percent=load,
        way=way,
        round=number,
        calls=len(calls),
        failed=len(calls) - len(answered),
        slow_percent=round(100 * answered.count(slow) / len(answered), 1),
        p50_ms=p50,
        p99_ms=p99,
        p999_ms=p999,
    )


def _measure(load: int, number: int, way: str) -> Row:
    return asyncio.run(measure(way, load, number))


def rows() -> Iterator[Row]:
    """Measures everything."""
    return side_by_side(_measure, WAYS, ((load, number) for number in range(1, ROUNDS + 1) for load in LOADS))


# --- drawing ----------------------------------------------------------------------------------------------------------


def draw() -> None:
    """Draws the file into ``unequal_servers.svg``."""
    plt = pyplot(DATA.stem)
    figure, axes = plt.subplots(1, len(PERCENTS), figsize=(10, 3.6), sharey=True, layout="constrained")
    for axis, name in zip(axes, PERCENTS, strict=True):
        for (way,), of_way in chunks(read(DATA), "way"):
            middle = [
                statistics.median(float(row[name]) for row in values) for _, values in chunks(of_way, "load_percent")
            ]
            axis.plot(LOADS, middle, "D-" if way == "grpcpool" else "o--", label=way)
        axis.set(title=f"p{PERCENTS[name]:g}", xlabel="load, % of capacity", yscale="log", xticks=LOADS)
        axis.grid(alpha=0.3)
    axes[0].set(ylabel="ms")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(WAYS))
    figure.savefig(DATA.with_suffix(".svg"), metadata={"Date": None})


def table() -> str:
    """Returns the table of the page: medians of the rounds, and the failed calls of all rounds together."""
    lines = []
    by_load = sorted(read(DATA), key=lambda row: int(row["load_percent"]))
    for (load, way), rounds in chunks(by_load, "load_percent", "way"):
        failed = 100 * sum(int(row["failed"]) for row in rounds) / sum(int(row["calls"]) for row in rounds)
        names = ("slow_percent", *PERCENTS)
        middle = (f"{statistics.median(float(row[name]) for row in rounds):.0f}" for name in names)
        lines.append([f"{load} %", way, f"{failed:.1f}", *middle])
    return markdown(
        ["load", "way", "failed, %", "answered by the slow server, %", "p50, ms", "p99, ms", "p99.9, ms"], lines
    )


if __name__ == "__main__":
    main("Measures calls over servers of unequal speed.", DATA, rows, draw, table)
