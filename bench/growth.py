"""The cost of growth: what more connections and more addresses cost a call, and what each thing that is held costs.

Picking and releasing a place happens on the pool's state machine alone, without gRPC, a lock or a clock. Memory is what
Python allocates, as `tracemalloc` counts it, and for connections also the growth of the process (its resident set), in
processes of their own. Times to open connections are elapsed times, all others are CPU time.
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import psutil

import grpcpool.aio
from _common import ECHO, Block, Measured, compare, fast_server, isolated_channel, print_rows, rows_of
from _results import Row, keep
from grpcpool import testing
from grpcpool._machine.addresses import Addressing
from grpcpool._machine.machine import PoolMachine
from grpcpool._machine.openers import OpenWaiter
from grpcpool._machine.places import Holding

# Connections and addresses.
_BASE = (4, 1)
_SIZES = ((1, 1), (16, 1), (64, 1), (256, 1), (1024, 1), (64, 8), (64, 64), (1024, 8), (1024, 64))
_TIMES, _ROUNDS = 2000, 60
_BOUND = 1.2
_MOST_CALLS = 50

_IDLE, _MEMORY_ROUNDS = 128, 5
_HELD = 1000
_OPENED, _OPEN_ROUNDS = (1, 8, 64), 5
_SNAPSHOTS, _SNAPSHOT_ROUNDS = 5, 20
_PATIENCE = 60.0


# --- picking ----------------------------------------------------------------------------------------------------


def machine(connections: int, addresses: int) -> PoolMachine:
    """Returns a machine with this many open connections, dealt out over the addresses."""
    made = PoolMachine(
        grpcpool.PoolConfig(min_size=connections, max_size=connections, idle_timeout=None),
        name="pool",
        random=random.Random(0).random,  # noqa: S311 -- no secret
        addressing=Addressing(addresses=[f"10.0.0.{number}:50051" for number in range(addresses)]),
    )
    made.open(OpenWaiter(since=0.0, deadline=_PATIENCE), 0.0)
    opens = made.outbox.opens
    while opens:
        made.opened(opens.popleft().slot, object(), 0.0)
    if made.fleet.slots.ready != connections:
        raise RuntimeError(f"{made.fleet.slots.ready} of {connections} connections are open")
    return made


def picking(of: PoolMachine) -> Block:
    """A block that takes and releases a place this many times, as calls do."""
    take, release = of.places.take, of.places.release
    holder = Holding()

    def block() -> None:
        for _ in range(_TIMES):
            slot = take(holder)
            if slot is None or release(slot, 1, 0.0, holder):
                raise RuntimeError("a place was not simply taken and released")

    return block


def busy(of: PoolMachine) -> PoolMachine:
    """Puts one to fifty calls on each connection, another number on each."""
    dice = random.Random(1)  # noqa: S311 -- no secret
    for slot in list(of.fleet.slots):
        of.places.acquire(dice.randint(1, _MOST_CALLS), Holding(), slot)
    return of


def picks() -> list[Row]:
    """Measures all sizes, each beside the base."""
    base = picking(machine(*_BASE))
    measured = {_named(*size): compare(base, picking(machine(*size)), rounds=_ROUNDS) for size in _SIZES}
    few, many = (picking(busy(machine(number, 1))) for number in (_BASE[0], 1024))
    of_busy = {"1,024 busy connections": compare(few, many, rounds=_ROUNDS)}
    return [*_picked(measured, base=_named(*_BASE)), *_picked(of_busy, base=f"{_BASE[0]} busy connections")]


def _picked(measured: dict[str, Measured], *, base: str) -> list[Row]:
    bounds = [_BOUND] * len(measured)
    return rows_of(
        measured, panel="growth", title="take + release", per=_TIMES, base=base, ours="machine", bounds=bounds
    )


def _named(connections: int, addresses: int) -> str:
    plural = "" if connections == 1 else "s"
    of_addresses = f", {addresses} addresses" if addresses > 1 else ""
    return f"{connections:,} connection{plural}{of_addresses}"


# --- memory -----------------------------------------------------------------------------------------------------


def allocated() -> int:
    """Bytes that Python has allocated since `tracemalloc.start()`."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def resident() -> int:
    """Bytes of the process."""
    gc.collect()
    return int(psutil.Process().memory_info().rss)


def traced(create: Callable[[], object], times: int) -> float:
    """Bytes that Python has allocated after `create`, for one of `times`."""
    gc.collect()
    tracemalloc.start()
    before = allocated()
    create()
    used = allocated() - before
    tracemalloc.stop()
    return used / times


def connections(target: str) -> Iterator[Row]:
    """The memory of an idle connection: in a pool, and as a bare channel."""
    for what, measure in (("allocated by Python", "allocated"), ("growth of the process", "resident")):
        found: dict[str, list[float]] = {"channel": [], "pool": []}
        for number in range(_MEMORY_ROUNDS):
            # Which is first changes.
            for side in list(found)[:: 1 if number % 2 else -1]:
                command = [sys.executable, __file__, measure, side, target]
                done = subprocess.run(command, capture_output=True, check=True, text=True)  # noqa: S603 -- our own
                found[side].append(float(done.stdout))
        yield _memory(
            f"an idle connection, {what}",
            statistics.median(found["pool"]),
            base=statistics.median(found["channel"]),
            rounds=_MEMORY_ROUNDS,
        )


def memory_of_connections(measure: Callable[[], int], side: str, target: str) -> float:
    """Bytes of an idle connection in this process."""
    ways = {"channel": _open_channels, "pool": _open_pool}
    # What the first few load is not counted.
    close_first = ways[side](target, 4)
    if measure is allocated:
        tracemalloc.start()
    before = measure()
    close = ways[side](target, _IDLE)
    used = measure() - before
    close()
    close_first()
    return used / _IDLE


def _opened(target: str, size: int) -> grpcpool.ChannelPool:
    config = grpcpool.PoolConfig(min_size=size, max_size=size, connect_timeout=_PATIENCE, idle_timeout=None)
    pool = grpcpool.ChannelPool(lambda: isolated_channel(target), config)
    pool.open()
    return pool


def _memory(what: str, ours: float, *, base: float | None = None, rounds: int = _HELD) -> Row:
    return Row(
        panel="memory",
        what=what,
        ours="pool",
        our_value=ours / 1000,
        unit="kB",
        base="" if base is None else "channel",
        base_value=None if base is None else base / 1000,
        ratio=None if base is None else ours / base,
        rounds=rounds,
    )


def held() -> Iterator[Row]:
    """The memory of leases, and of calls of `future()` that wait."""
    config = grpcpool.PoolConfig(min_size=10, max_size=10, acquire_timeout=_PATIENCE)
    with grpcpool.ChannelPool(testing.FakeFactory(), config) as pool:
        pool.open()
        leases: list[Any] = []
        pool.acquire(streams=1).release()
        used = traced(lambda: leases.extend(pool.acquire(streams=1) for _ in range(_HELD // 2)), _HELD // 2)
        yield _memory("a lease of one stream", used, rounds=_HELD // 2)
        for lease in leases:
            lease.release()
    config = grpcpool.PoolConfig(min_size=1, max_size=1, max_streams=1, max_waiters=None)
    factory = testing.FakeFactory(lambda: testing.FakeChannel(holds_calls=True))
    with grpcpool.ChannelPool(factory, config) as pool:
        pool.open()
        method: Any = pool.unary_unary(ECHO)
        calls = [method.future(b"request")]
        used = traced(lambda: calls.extend(method.future(b"request") for _ in range(_HELD)), _HELD)
        yield _memory("a future() that waits for a place", used)
        for call in reversed(calls):
            call.cancel()


async def waiters() -> float:
    """The memory of a task that waits in `acquire`."""
    config = grpcpool.PoolConfig(min_size=1, max_size=1, max_waiters=None)
    async with grpcpool.aio.ChannelPool(testing.aio.FakeFactory(), config) as pool, await pool.acquire():
        gc.collect()
        tracemalloc.start()
        before = allocated()
        tasks = [asyncio.create_task(_wait(pool)) for _ in range(_HELD)]
        # Lets the tasks begin.
        await asyncio.sleep(0)
        used = allocated() - before
        tracemalloc.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return used / _HELD


async def _wait(pool: grpcpool.aio.ChannelPool) -> None:
    async with pool.acquire(timeout=None):
        pass


# --- time -------------------------------------------------------------------------------------------------------


def opening(target: str) -> Iterator[Row]:
    """The time until this many connections are ready, beside bare channels that all connect at once."""
    for number in _OPENED:
        times: dict[Callable[[str, int], object], list[float]] = {_open_channels: [], _open_pool: []}
        for turn in range(_OPEN_ROUNDS + 1):
            # Which is first changes.
            for way in list(times)[:: 1 if turn % 2 else -1]:
                began = time.perf_counter()
                close: Any = way(target, number)
                times[way].append(1000 * (time.perf_counter() - began))
                close()
        base, ours = (found[1:] for found in times.values())
        low, ratio, high = statistics.quantiles([after / before for before, after in zip(base, ours, strict=True)])
        yield Row(
            panel="growth",
            what=f"open {_named(number, 1)}",
            ours="pool",
            our_value=statistics.median(ours),
            unit="ms",
            base="channels",
            base_value=statistics.median(base),
            ratio=ratio,
            low=low,
            high=high,
            rounds=_OPEN_ROUNDS,
        )


def _open_channels(target: str, number: int) -> Callable[[], object]:
    stack = ExitStack()
    channels = [stack.enter_context(isolated_channel(target)) for _ in range(number)]
    for ready in [grpc.channel_ready_future(channel) for channel in channels]:
        ready.result(_PATIENCE)
    return stack.close


def _open_pool(target: str, number: int) -> Callable[[], object]:
    return _opened(target, number).close


def snapshots() -> list[Row]:
    """What `stats()` costs with 1,000 connections, beside 4."""

    def reading(pool: grpcpool.ChannelPool) -> Block:
        def block() -> None:
            for _ in range(_SNAPSHOTS):
                pool.stats()

        return block

    with ExitStack() as stack:
        few, many = (
            stack.enter_context(
                grpcpool.ChannelPool(
                    testing.FakeFactory(),
                    grpcpool.PoolConfig(min_size=size, max_size=size, connect_timeout=_PATIENCE),
                )
            )
            for size in (4, 1000)
        )
        for pool in (few, many):
            pool.open()
        measured = compare(reading(few), reading(many), rounds=_SNAPSHOT_ROUNDS)
    return [
        Row(
            panel="growth",
            what="stats(), 1,000 connections",
            ours="pool",
            our_value=1e6 * measured.ours / _SNAPSHOTS,
            unit="us CPU",
            base="4 connections",
            base_value=1e6 * measured.base / _SNAPSHOTS,
            rounds=measured.rounds,
        )
    ]


def main() -> None:
    """Measures and reports; with arguments, measures the memory of connections in this process."""
    if sys.argv[1:]:
        measure, side, target = sys.argv[1:]
        print(memory_of_connections({"allocated": allocated, "resident": resident}[measure], side, target))
        return
    picked = picks()
    for base in dict.fromkeys(row.base for row in picked):
        print_rows("take + release", [row for row in picked if row.base == base])
    others = [*held(), _memory("a task that waits in acquire()", asyncio.run(waiters())), *snapshots()]
    with fast_server() as target:
        others += [*opening(target), *connections(target)]
    print_rows("what it holds", others)
    keep([*picked, *others])


if __name__ == "__main__":
    main()
