"""Measures calls while one of three servers is sick, over channels of gRPC and over pools.

``python docs/experiments/sick_server.py`` measures, writes ``sick_server.csv`` and draws it; with ``--draw`` it only
draws the existing file. Calls start at random moments, 100 a second, whether earlier ones have ended or not. A server
works on four calls at a time, 20 ms each; others queue. One of three is sick from second 10 to second 40 of 50. All
ways run at the same time, in processes of their own, each with its own servers.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import pathlib
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from experiment import BENCH, chunks, main, markdown, percentile, pyplot, read, side_by_side

import grpcpool.aio

sys.path.append(str(BENCH))

from _sick_servers import METHOD, Server, servers

DATA = pathlib.Path(__file__).with_suffix(".csv")
SERVERS = 3
RATE, SECONDS, SICK_FROM, SICK_TO = 100.0, 50, 10, 40
WORK, AT_ONCE, PATIENCE = 0.02, 4, 1.0
FLAP = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """The calls that were due to start within one second; times run from when they were due to when they ended."""

    round: int
    kind: str
    way: str
    second: int
    calls: int
    failed: int
    p50_ms: float
    p99_ms: float


# --- the ways ---------------------------------------------------------------------------------------------------------

Way = Callable[[str], grpc.aio.Channel]


def _channel(target: str, **service_config: Any) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(target, [("grpc.service_config", json.dumps(service_config))])


def one_channel(target: str) -> grpc.aio.Channel:
    """Returns one channel with gRPC's default policy, `pick_first`."""
    return grpc.aio.insecure_channel(target)


def scaling(target: str) -> grpc.aio.Channel:
    """Returns one channel with gRPC's connection scaling (A105)."""
    return _channel(target, connectionScaling={"maxConnectionsPerSubchannel": 8})


def round_robin(target: str) -> grpc.aio.Channel:
    """Returns one channel that uses the servers in turn."""
    return _channel(target, loadBalancingConfig=[{"round_robin": {}}])


def outlier_detection(target: str) -> grpc.aio.Channel:
    """Returns `round_robin` that ejects a server when half of its calls fail; gRPC's defaults need five servers."""
    policy = {
        "interval": "1s",
        "baseEjectionTime": "5s",
        "failurePercentageEjection": {"threshold": 50, "minimumHosts": 3, "requestVolume": 10},
        "childPolicy": [{"round_robin": {}}],
    }
    return _channel(target, loadBalancingConfig=[{"outlier_detection_experimental": policy}])


def pool(target: str) -> grpc.aio.Channel:
    """Returns a pool with the defaults."""
    return grpcpool.aio.insecure_channel(target)


WAYS: dict[str, Way] = {
    "one channel": one_channel,
    "gRPC's scaling": scaling,
    "round_robin": round_robin,
    "outlier detection": outlier_detection,
    "grpcpool": pool,
}


# --- the kinds of sickness --------------------------------------------------------------------------------------------


def fails(server: Server, sick: bool) -> None:
    """Fails calls at once."""
    server.fall_sick(at_once=AT_ONCE, **({"code": "UNAVAILABLE"} if sick else {}))


def slow(server: Server, sick: bool) -> None:
    """Works ten times as long on each call."""
    server.fall_sick(at_once=AT_ONCE, slower=10 if sick else 1)


def frozen(server: Server, sick: bool) -> None:
    """Answers nothing; its connections stay open."""
    server.freeze(frozen=sick)


KINDS: dict[str, Callable[[Server, bool], None]] = {
    "fails at once": fails,
    "ten times slower": slow,
    "frozen": frozen,
    "flapping": fails,
}


def turns(kind: str) -> Iterator[tuple[float, bool]]:
    """Yields when the server turns sick, or well."""
    if kind != "flapping":
        yield from ((SICK_FROM, True), (SICK_TO, False))
        return
    moments = itertools.takewhile(lambda at: at < SICK_TO, itertools.count(SICK_FROM, FLAP))
    yield from zip(moments, itertools.cycle((True, False)), strict=False)
    yield SICK_TO, False


async def sicken(server: Server, kind: str, began: float) -> None:
    """Makes the server sick and well when it is time."""
    for at, sick in turns(kind):
        await asyncio.sleep(began + at - time.monotonic())
        await asyncio.to_thread(KINDS[kind], server, sick)


# --- measuring --------------------------------------------------------------------------------------------------------


def moments(seed: int) -> Iterator[float]:
    """Yields when calls start: a Poisson process."""
    dice = random.Random(seed)  # noqa: S311 (not a secret)
    at = 0.0
    while (at := at + dice.expovariate(RATE)) < SECONDS:
        yield at


async def call_all(channel: grpc.aio.Channel, began: float, seed: int) -> list[tuple[float, float, bool]]:
    """Makes the calls, and returns of each when it was due, how long it took, and whether it failed."""
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)

    async def one(due: float) -> tuple[float, float, bool]:
        failed = False
        try:
            await call(str(WORK).encode(), timeout=PATIENCE)
        except grpc.RpcError:
            failed = True
        return due, time.monotonic() - began - due, failed

    tasks = []
    for due in moments(seed):
        await asyncio.sleep(began + due - time.monotonic())
        tasks.append(asyncio.create_task(one(due)))
    return await asyncio.gather(*tasks)


async def measure(way: str, kind: str, number: int) -> list[Row]:
    """Measures one way, with one kind of sickness; the sick server is another one in each round."""
    with servers(SERVERS) as started:
        for server in started:
            server.fall_sick(at_once=AT_ONCE)
        async with WAYS[way]("ipv4:" + ",".join(server.target for server in started)) as channel:
            await channel.channel_ready()
            await asyncio.sleep(1)
            began = time.monotonic()
            illness = asyncio.create_task(sicken(started[number - 1], kind, began))
            calls = await call_all(channel, began, seed=number)
            await illness
    result = []
    for second in range(SECONDS):
        here = [(took, failed) for due, took, failed in calls if second <= due < second + 1]
        p50, p99 = (round(1000 * percentile([took for took, _ in here], percent), 1) for percent in (50, 99))
        failed = sum(failed for _, failed in here)
        result.append(
            Row(round=number, kind=kind, way=way, second=second, calls=len(here), failed=failed, p50_ms=p50, p99_ms=p99)
        )
    return result


def _measure(kind: str, number: int, way: str) -> list[Row]:
    return asyncio.run(measure(way, kind, number))


def rows() -> Iterator[Row]:
    """Measures everything."""
    settings = ((kind, number) for number in range(1, SERVERS + 1) for kind in KINDS)
    return itertools.chain.from_iterable(side_by_side(_measure, WAYS, settings))


# --- drawing ----------------------------------------------------------------------------------------------------------


def sick_rows() -> list[dict[str, str]]:
    """Returns the rows of the seconds in which a server was sick."""
    return [row for row in read(DATA) if SICK_FROM <= int(row["second"]) < SICK_TO]


def failed_percent(of_rows: list[dict[str, str]]) -> float:
    """Returns the share of failed calls in percent."""
    return 100 * sum(int(row["failed"]) for row in of_rows) / sum(int(row["calls"]) for row in of_rows)


def draw() -> None:
    """Draws the file into ``sick_server.svg``."""
    plt = pyplot(DATA.stem)
    figure, axes = plt.subplots(2, len(KINDS), figsize=(15, 7), sharex=True, sharey="row", layout="constrained")
    styles = ("-", "--", "-", "--", "-")
    colours = ("tab:red", "tab:pink", "tab:orange", "tab:brown", "tab:blue")
    for number, ((kind, way), of_both) in enumerate(chunks(read(DATA), "kind", "way")):
        column, look = divmod(number, len(WAYS))
        seconds = [values for _, values in chunks(of_both, "second")]
        p99 = [statistics.median(float(row["p99_ms"]) for row in second) for second in seconds]
        style = {"linestyle": styles[look], "color": colours[look], "label": way}
        axes[0, column].plot([failed_percent(second) for second in seconds], **style)
        axes[1, column].plot(p99, **style)
        axes[0, column].set(title=kind, ylabel="failed calls, %" if column == 0 else "")
        axes[1, column].set(xlabel="second", ylabel="p99, ms" if column == 0 else "", yscale="log")
    axes[0, 0].set(ylim=(0, None))
    for axis in axes.flat:
        axis.axvspan(SICK_FROM, SICK_TO, color="grey", alpha=0.15, linewidth=0)
        axis.grid(alpha=0.3)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(WAYS))
    figure.savefig(DATA.with_suffix(".svg"), metadata={"Date": None})


def table() -> str:
    """Returns the table of the page: the seconds in which a server was sick."""
    lines = []
    for (kind, way), of_both in chunks(sick_rows(), "kind", "way"):
        rounds = [values for _, values in chunks(of_both, "round")]
        by_round = " / ".join(f"{failed_percent(values):.1f}" for values in rounds)
        times = (
            " / ".join(f"{statistics.median(float(row[name]) for row in values):.0f}" for values in rounds)
            for name in ("p50_ms", "p99_ms")
        )
        lines.append([kind, way, f"{failed_percent(of_both):.1f}", by_round, *times])
    return markdown(["kind", "way", "failed, %", "by round", "p50 by round, ms", "p99 by round, ms"], lines)


if __name__ == "__main__":
    main("Measures calls while one of three servers is sick.", DATA, rows, draw, table)
