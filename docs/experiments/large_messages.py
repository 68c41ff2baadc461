"""Measures large messages over a link with delay and losses, by the number of connections.

``python docs/experiments/large_messages.py`` measures, writes ``large_messages.csv`` and draws it; with ``--draw`` it
only draws the existing file. It needs root on Linux, for two network namespaces and the link between them
(`slow_link.py`); where that is not permitted it says so and measures nothing. Eight tasks each send one message after
another to a server that answers each with an empty one.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import grpc
from experiment import chunks, main, markdown, pyplot, read
from slow_link import SERVER_ADDRESS, Link, link, why_not

import grpcpool.aio

DATA = pathlib.Path(__file__).with_suffix(".csv")
METHOD, PORT = "/large.Server/Take", 50051
RATE = 100e6 / 8
SIZES, ROUND_TRIPS, LOSSES, CONNECTIONS = (1, 10), (20, 50), (0.0, 0.1, 1.0), (1, 2, 4, 8)
ROUNDS, TASKS, WARM_UP, MEASURED = 1, 8, 1.5, 5.0
MEGABYTE = 1_000_000
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One number of connections on one link; the megabytes that crossed the link in the measured time."""

    size_mb: int
    round_trip_ms: int
    loss_percent: float
    connections: int
    round: int
    mb_per_second: float
    messages: int


async def serve() -> None:
    """Takes messages until it is killed."""

    async def take(request: bytes, _: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        del request
        return b""

    server = grpc.aio.server(options=UNLIMITED)
    server.add_insecure_port(f"{SERVER_ADDRESS}:{PORT}")
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {"Take": grpc.unary_unary_rpc_method_handler(take)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("large.Server", handlers),))
    await server.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await server.wait_for_termination()


def sent() -> int:
    """Returns the bytes that this namespace has sent over the link, headers included."""
    lines = pathlib.Path("/proc/thread-self/net/dev").read_text(encoding="ascii").splitlines()
    (fields,) = (line.partition(":")[2].split() for line in lines if line.strip().startswith("link0:"))
    return int(fields[8])


async def send(size_mb: int, connections: int) -> None:
    """Sends messages, and prints the figures."""
    config = grpcpool.PoolConfig(min_size=connections, max_size=connections)
    async with grpcpool.aio.insecure_channel(f"{SERVER_ADDRESS}:{PORT}", UNLIMITED, config=config) as pool:
        await pool.open(10)
        take: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = pool.unary_unary(METHOD)
        message = bytes(size_mb * MEGABYTE)
        messages = 0

        async def work() -> None:
            nonlocal messages
            while True:
                await take(message)
                messages += 1

        tasks = [asyncio.create_task(work()) for _ in range(TASKS)]
        await asyncio.sleep(WARM_UP)
        began, sent_before, messages_before = time.monotonic(), sent(), messages
        await asyncio.sleep(MEASURED)
        seconds = time.monotonic() - began
        figures = {
            "mb_per_second": round((sent() - sent_before) / seconds / MEGABYTE, 2),
            "messages": messages - messages_before,
        }
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    sys.stdout.write(json.dumps(figures))


def _inside(namespace: str, code: str) -> list[str]:
    return ["ip", "netns", "exec", namespace, sys.executable, "-c", f"import asyncio, large_messages as m; {code}"]


def measure(size_mb: int, round_trip_ms: int, loss_percent: float, connections: int, number: int) -> Row:
    """Measures one number of connections on a new link."""
    how = Link(RATE, round_trip_ms / 2000, loss_percent / 100)
    with link(how, seed=number) as (server, client), contextlib.ExitStack() as stack:
        folder = DATA.parent
        serving = subprocess.Popen(  # noqa: S603 (ours)
            _inside(server, "asyncio.run(m.serve())"), cwd=folder, stdout=subprocess.PIPE
        )
        stack.enter_context(serving)
        stack.callback(serving.kill)
        if serving.stdout is None or not serving.stdout.readline():
            raise RuntimeError("the server did not start")
        code = f"asyncio.run(m.send({size_mb}, {connections}))"
        done = subprocess.run(  # noqa: S603 (ours)
            _inside(client, code), cwd=folder, check=True, stdout=subprocess.PIPE, timeout=60
        )
    return Row(
        size_mb=size_mb,
        round_trip_ms=round_trip_ms,
        loss_percent=loss_percent,
        connections=connections,
        round=number,
        **json.loads(done.stdout),
    )


def rows() -> Iterator[Row]:
    """Measures everything."""
    reason = why_not()
    if reason is not None:
        sys.exit(f"not measured: {reason}")
    everything = itertools.product(range(1, ROUNDS + 1), SIZES, ROUND_TRIPS, LOSSES, CONNECTIONS)
    for number, size, round_trip, loss, connections in everything:
        yield measure(size, round_trip, loss, connections, number)


# --- drawing ----------------------------------------------------------------------------------------------------------


def medians() -> Iterator[tuple[tuple[str, str, str], list[float]]]:
    """Yields size, round trip and loss, and the megabytes a second by the number of connections."""
    for (size, round_trip, loss), of_link in chunks(read(DATA), "size_mb", "round_trip_ms", "loss_percent"):
        by_connections = [values for _, values in chunks(of_link, "connections")]
        yield (
            (size, round_trip, loss),
            [statistics.median(float(row["mb_per_second"]) for row in values) for values in by_connections],
        )


def draw() -> None:
    """Draws the file into ``large_messages.svg``."""
    plt = pyplot(DATA.stem)
    figure, axes = plt.subplots(len(SIZES), len(ROUND_TRIPS), figsize=(9, 6), sharey=True, layout="constrained")
    for number, ((size, round_trip, loss), values) in enumerate(medians()):
        axis = axes.flat[number // len(LOSSES)]
        axis.plot(CONNECTIONS, values, ("o-", "s--", "D:")[number % len(LOSSES)], label=f"loss {float(loss):g} %")
        axis.set(title=f"{size} MB, round trip {round_trip} ms", xlabel="connections", ylabel="MB/s")
        axis.set(xticks=CONNECTIONS)
        axis.grid(alpha=0.3)
    axes[0, 0].set(ylim=(0, 13.5))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=len(LOSSES))
    figure.savefig(DATA.with_suffix(".svg"), metadata={"Date": None})


def table() -> str:
    """Returns the table of the page."""
    lines = [
        [f"{size} MB", f"{round_trip} ms", f"{float(loss):g} %", *(f"{value:.1f}" for value in values)]
        for (size, round_trip, loss), values in medians()
    ]
    columns = ["1 connection", *(f"{number} connections" for number in CONNECTIONS[1:])]
    return markdown(["message", "round trip", "loss", *columns], lines)


if __name__ == "__main__":
    main("Measures large messages over a slow link.", DATA, rows, draw, table)
