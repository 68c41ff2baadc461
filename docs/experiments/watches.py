"""Measures short calls beside idle watches: on one channel, with gRPC's connection scaling, and on a pool.

``python docs/experiments/watches.py`` measures, writes ``watches.csv`` and draws it; with ``--draw`` it only draws the
existing file. A server in its own process allows 100 streams per connection. A watch is a stream that stays open and
says nothing after its first message. Once the watches are open, or after two seconds, short calls start at random
moments, 50 a second, with a deadline of one second.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import pathlib
import random
import statistics
import time
from collections.abc import Callable, Iterator

import grpc
from experiment import chunks, main, markdown, percentile, pyplot, read, side_by_side
from watch_server import SERVICE, SHORT, WATCH

import grpcpool.aio
from grpcpool._demo.process import running_server

DATA = pathlib.Path(__file__).with_suffix(".csv")
SERVER = DATA.with_name("watch_server.py")
WATCHES = (0, 50, 90, 99, 150)
ROUNDS, SECONDS, RATE, PATIENCE = 3, 5.0, 50.0, 1.0
OPENING = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One way beside a number of watches, in one round; the time of a failed call is the time until it failed."""

    watches: int
    way: str
    round: int
    open_watches: int
    calls: int
    failed: int
    p50_ms: float
    p99_ms: float


def one_channel(target: str) -> grpc.aio.Channel:
    """Returns one channel, as most programs use it."""
    return grpc.aio.insecure_channel(target)


def scaling(target: str) -> grpc.aio.Channel:
    """Returns one channel with gRPC's connection scaling (A105)."""
    config = {"connectionScaling": {"maxConnectionsPerSubchannel": 8}}
    return grpc.aio.insecure_channel(target, [("grpc.service_config", json.dumps(config))])


def pool(target: str) -> grpc.aio.Channel:
    """Returns a pool with the defaults."""
    return grpcpool.aio.insecure_channel(target)


WAYS: dict[str, Callable[[str], grpc.aio.Channel]] = {
    "one channel": one_channel,
    "gRPC's scaling": scaling,
    "grpcpool": pool,
}


async def watching(channel: grpc.aio.Channel, opened: asyncio.Event) -> None:
    """Keeps one watch open, and sets the event while it is."""
    call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(f"/{SERVICE}/{WATCH}")
    with contextlib.suppress(grpc.RpcError):
        async for _ in call(b""):
            opened.set()
    opened.clear()


async def short_calls(channel: grpc.aio.Channel, seed: int) -> list[tuple[float, bool]]:
    """Makes the short calls, and returns of each how long it took, and whether it failed."""
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{SERVICE}/{SHORT}")
    dice = random.Random(seed)  # noqa: S311 (not a secret)
    began = time.monotonic()

    async def one(due: float) -> tuple[float, bool]:
        failed = False
        try:
            await call(b"", timeout=PATIENCE)
        except grpc.RpcError:
            failed = True
        return time.monotonic() - began - due, failed

    tasks = []
    due = 0.0
    while (due := due + dice.expovariate(RATE)) < SECONDS:
        await asyncio.sleep(began + due - time.monotonic())
        tasks.append(asyncio.create_task(one(due)))
    return await asyncio.gather(*tasks)


async def measure(way: str, watches: int, number: int) -> Row:
    """Measures one way beside a number of watches."""
    with running_server([str(SERVER)]) as port:
        async with WAYS[way](f"127.0.0.1:{port}") as channel:
            await channel.channel_ready()
            opened = [asyncio.Event() for _ in range(watches)]
            tasks = [asyncio.create_task(watching(channel, event)) for event in opened]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*[event.wait() for event in opened]), OPENING)
            calls = await short_calls(channel, seed=number)
            open_at_the_end = sum(event.is_set() for event in opened)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    p50, p99 = (round(1000 * percentile([took for took, _ in calls], percent), 1) for percent in (50, 99))
    failed = sum(failed for _, failed in calls)
    return Row(
        watches=watches,
        way=way,
        round=number,
        open_watches=open_at_the_end,
        calls=len(calls),
        failed=failed,
        p50_ms=p50,
        p99_ms=p99,
    )


def _measure(watches: int, number: int, way: str) -> Row:
    return asyncio.run(measure(way, watches, number))


def rows() -> Iterator[Row]:
    """Measures everything."""
    return side_by_side(_measure, WAYS, ((watches, number) for number in range(1, ROUNDS + 1) for watches in WATCHES))


# --- drawing ----------------------------------------------------------------------------------------------------------


def summary() -> list[tuple[int, str, dict[str, float]]]:
    """Returns, by watches and way, medians of the rounds and the failed calls of all rounds in percent."""
    result = []
    for (watches, way), rounds in chunks(sorted(read(DATA), key=lambda row: int(row["watches"])), "watches", "way"):
        names = ("open_watches", "p50_ms", "p99_ms")
        figures = {name: statistics.median(float(row[name]) for row in rounds) for name in names}
        failed, calls = (sum(int(row[name]) for row in rounds) for name in ("failed", "calls"))
        result.append((int(watches), way, {**figures, "failed": 100 * failed / calls}))
    return result


def draw() -> None:
    """Draws the file into ``watches.svg``."""
    plt = pyplot(DATA.stem)
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    found = summary()
    for way, style in zip(WAYS, ("o-", "^-", "D-"), strict=True):
        for axis, name in zip(axes, ("failed", "p99_ms"), strict=True):
            axis.plot(WATCHES, [figures[name] for _, one, figures in found if one == way], style, label=way)
    axes[0].set(title="failed short calls, %", ylim=(0, None))
    axes[1].set(title="p99 of the short calls, ms", yscale="log")
    for axis in axes:
        axis.set(xlabel="watches")
        axis.axvline(100, color="grey", linewidth=0.8, linestyle=":")
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(WAYS))
    figure.savefig(DATA.with_suffix(".svg"), metadata={"Date": None})


def table() -> str:
    """Returns the table of the page."""
    lines = [
        [
            str(watches),
            way,
            f"{figures['open_watches']:.0f}",
            f"{figures['failed']:.1f}",
            f"{figures['p50_ms']:.0f}",
            f"{figures['p99_ms']:.0f}",
        ]
        for watches, way, figures in summary()
    ]
    return markdown(["watches", "way", "of them open", "failed, %", "p50, ms", "p99, ms"], lines)


if __name__ == "__main__":
    main("Measures short calls beside idle watches.", DATA, rows, draw, table)
