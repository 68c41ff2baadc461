"""Measures many concurrent calls over one channel, over several equal channels, and over a pool.

``python docs/experiments/one_channel.py`` measures, writes ``one_channel.csv`` and draws it; with ``--draw`` it only
draws the existing file. A server in its own process, gRPC's Python server with a pool of threads, answers each call
after 50 ms and allows 100 streams per connection. One task per concurrent call makes one call after another. Each way,
at each load, starts with a new server and new channels.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import dataclasses
import itertools
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import psutil

import grpcpool.aio
from grpcpool._demo.process import running_server
from grpcpool._demo.server import METHOD

DATA = pathlib.Path(__file__).with_suffix(".csv")
LOADS = (1, 25, 50, 75, 100, 125, 150, 200, 300, 400)
ROUNDS = 3
MOST = 8
WARM_UP, MEASURED, PATIENCE = 1.0, 3.0, 30.0

Channels = Sequence[grpc.aio.Channel]
Way = Callable[[str], Channels]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One way at one load, in one round: the calls that ended within the measured time."""

    way: str
    concurrent: int
    round: int
    completed: int
    failed: int
    p50_ms: float
    p99_ms: float
    connections: int


# --- the ways ---------------------------------------------------------------------------------------------------------


def one_channel(target: str) -> Channels:
    """Returns one channel, as most programs use it."""
    return [grpc.aio.insecure_channel(target)]


def equal_channels(target: str) -> Channels:
    """Returns several equal channels, which look as if they would help."""
    return [grpc.aio.insecure_channel(target) for _ in range(MOST)]


def scaling(target: str) -> Channels:
    """Returns one channel with gRPC's own connection scaling, available since 1.84."""
    config = {"connectionScaling": {"maxConnectionsPerSubchannel": MOST}}
    return [grpc.aio.insecure_channel(target, [("grpc.service_config", json.dumps(config))])]


def pool(target: str) -> Channels:
    """Returns a pool with the defaults, except for the same bound on connections as the others."""
    return [grpcpool.aio.insecure_channel(target, config=grpcpool.PoolConfig(max_size=MOST))]


WAYS: dict[str, Way] = {
    "one channel": one_channel,
    f"{MOST} equal channels": equal_channels,
    "gRPC's scaling": scaling,
    "grpcpool": pool,
}


# --- measuring --------------------------------------------------------------------------------------------------------


class Tally:
    """Counts calls that end within the measured time, and the peak number of connections."""

    def __init__(self, port: int) -> None:
        """Starts the warm-up."""
        self.begins = time.monotonic() + WARM_UP
        self.ends = self.begins + MEASURED
        self.latencies: list[float] = []
        self.failed = 0
        self.connections = 0
        self._port = port

    async def call_on(self, channel: grpc.aio.Channel) -> None:
        """Makes one call after another."""
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        while (began := time.monotonic()) < self.ends:
            failed = False
            try:
                await call(b"", timeout=PATIENCE)
            except grpc.RpcError:
                failed = True
            now = time.monotonic()
            if self.begins <= now < self.ends:
                self.failed += failed
                if not failed:
                    self.latencies.append(now - began)

    async def watch_connections(self) -> None:
        """Counts the connections of this process, as the operating system reports them."""
        this = psutil.Process()
        while time.monotonic() < self.ends:
            connections = [one for one in this.net_connections("tcp") if one.status == psutil.CONN_ESTABLISHED]
            self.connections = max(self.connections, sum(one.raddr[1:] == (self._port,) for one in connections))
            await asyncio.sleep(0.2)


async def measure(way: Way, concurrent: int) -> Tally:
    """Measures one way at one load."""
    async with contextlib.AsyncExitStack() as stack:
        port = stack.enter_context(running_server())
        channels = [await stack.enter_async_context(channel) for channel in way(f"127.0.0.1:{port}")]
        tally = Tally(port)
        async with asyncio.TaskGroup() as group:
            group.create_task(tally.watch_connections())
            for channel in itertools.islice(itertools.cycle(channels), concurrent):
                group.create_task(tally.call_on(channel))
        return tally


def rows() -> Iterator[Row]:
    """Measures everything; the ways alternate, so that other load on the machine affects all of them."""
    for number, concurrent, (name, way) in itertools.product(range(1, ROUNDS + 1), LOADS, WAYS.items()):
        tally = asyncio.run(measure(way, concurrent))
        percentiles = statistics.quantiles(tally.latencies, n=100)
        yield Row(
            way=name,
            concurrent=concurrent,
            round=number,
            completed=len(tally.latencies),
            failed=tally.failed,
            p50_ms=round(1000 * percentiles[49], 1),
            p99_ms=round(1000 * percentiles[98], 1),
            connections=tally.connections,
        )


def write() -> None:
    """Measures, and writes each row as soon as it is complete."""
    with DATA.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, [field.name for field in dataclasses.fields(Row)], lineterminator="\n")
        table.writeheader()
        for row in rows():
            table.writerow(dataclasses.asdict(row))
            file.flush()
            sys.stdout.write(f"{row}\n")


# --- drawing ----------------------------------------------------------------------------------------------------------


def medians() -> dict[str, list[dict[str, float]]]:
    """Returns the results by way, ordered by load: medians of the rounds, and failed calls in percent."""
    with DATA.open(encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    result: dict[str, list[dict[str, float]]] = {}
    for way, load in itertools.product(WAYS, LOADS):
        rounds = [row for row in read if row["way"] == way and row["concurrent"] == str(load)]
        names = ("p50_ms", "p99_ms", "completed")
        of_columns = {name: statistics.median(float(row[name]) for row in rounds) for name in names}
        failed, completed = (sum(int(row[name]) for row in rounds) for name in ("failed", "completed"))
        most = max(int(row["connections"]) for row in rounds)
        result.setdefault(way, []).append(
            {**of_columns, "failed": 100 * failed / (failed + completed), "connections": most}
        )
    return result


def draw() -> None:
    """Draws the file into ``one_channel.svg``."""
    import matplotlib as mpl  # noqa: PLC0415 (not needed to measure)

    mpl.use("svg")
    # The same data give the same drawing.
    mpl.rcParams["svg.hashsalt"] = DATA.stem
    from matplotlib import pyplot as plt  # noqa: PLC0415 (as above)

    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    titles = {
        "failed": "failed calls, % of all",
        "connections": "TCP connections, at most",
        "p50_ms": "p50 of those completed, ms",
        "p99_ms": "p99 of those completed, ms",
    }
    for (column, title), axis in zip(titles.items(), axes.flat, strict=True):
        for (way, points), style in zip(medians().items(), ("o-", "s--", "^-", "D-"), strict=True):
            axis.plot(LOADS, [point[column] for point in points], style, label=way, markersize=4)
        axis.set(title=title, xlabel="calls at once", ylim=(0, None))
        axis.axvline(100, color="grey", linewidth=0.8, linestyle=":")
        axis.grid(alpha=0.3)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(WAYS))
    figure.savefig(DATA.with_suffix(".svg"), metadata={"Date": None})


def table() -> str:
    """Returns the medians as a Markdown table."""
    lines = [
        "| at once | way | failed, % | completed a second | p50, ms | p99, ms | connections |",
        "|---|---|---|---|---|---|---|",
    ]
    found: dict[str, Any] = medians()
    for number, load in enumerate(LOADS):
        if load not in (50, 100, 150, 200, 300, 400):
            continue
        for way in WAYS:
            point = found[way][number]
            lines.append(
                f"| {load} | {way} | {point['failed']:.1f} | {point['completed'] / MEASURED:.0f} | "
                f"{point['p50_ms']:.0f} | {point['p99_ms']:.0f} | {point['connections']:.0f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Measures and draws, or only draws."""
    parser = argparse.ArgumentParser(description="Measures one channel against more of them and a pool.")
    parser.add_argument("--draw", action="store_true", help="only draw the existing file")
    if not parser.parse_args().draw:
        write()
    draw()
    sys.stdout.write(f"{table()}\n")


if __name__ == "__main__":
    main()
