"""Failed calls while one of three servers is sick: the pool beside gRPC's `round_robin`, in interleaved rounds.

Both worlds, closed loop (callers that make one call after the other) and open loop (calls at a rate, whatever becomes
of them). The last column is the limit that the project has set itself. Where it does not depend on `round_robin`, which
fails about a third of the calls in any round, that is measured in the first round only.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import grpc.aio

import grpcpool
import grpcpool.aio
from _results import Row, keep
from _sick_servers import METHOD, Server, aio_round_robin, servers, sync_round_robin

_ROUNDS = 3
_SECONDS = 5.0
_WELL_FOR = 0.5
_CALLERS = 30
_MORE_THAN_PLAIN = 2.0

Result = collections.Counter[str]


def _config(connections: int) -> grpcpool.PoolConfig:
    return grpcpool.PoolConfig(min_size=connections, max_size=connections)


def sync_pool(targets: list[str], connections: int = 3) -> grpc.Channel:
    """A pool whose connections go to the targets in turn."""
    turn = itertools.cycle(targets)
    return grpcpool.ChannelPool(lambda: grpc.insecure_channel(next(turn), grpcpool.isolated()), _config(connections))


def aio_pool(targets: list[str], connections: int = 3) -> grpc.aio.Channel:
    """As `sync_pool`, for asyncio."""
    turn = itertools.cycle(targets)
    return grpcpool.aio.ChannelPool(
        lambda: grpc.aio.insecure_channel(next(turn), grpcpool.isolated()), _config(connections)
    )


def _outcome(error: grpc.RpcError | None, answer: bytes = b"") -> str:
    return answer.decode() if error is None else error.code().name


def closed_loop_of_threads(channel: grpc.Channel, work: float, timeout: float) -> Result:
    """Threads that each make one call after the other."""
    call: Any = channel.unary_unary(METHOD)
    until = time.monotonic() + _SECONDS
    results: list[Result] = []

    def caller() -> None:
        mine: Result = collections.Counter()
        results.append(mine)
        while time.monotonic() < until:
            try:
                mine[_outcome(None, call(str(work).encode(), timeout=timeout))] += 1
            except grpc.RpcError as error:
                mine[_outcome(error)] += 1

    threads = [threading.Thread(target=caller) for _ in range(_CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(results, collections.Counter())


async def _one(call: Any, work: float, patience: float, results: Result) -> None:
    try:
        results[_outcome(None, await call(str(work).encode(), timeout=patience))] += 1
    except grpc.RpcError as error:
        results[_outcome(error)] += 1


async def closed_loop_of_tasks(channel: grpc.aio.Channel, work: float, patience: float) -> Result:
    """Tasks that each make one call after the other."""
    call: Any = channel.unary_unary(METHOD)
    until = time.monotonic() + _SECONDS
    results: Result = collections.Counter()

    async def caller() -> None:
        while time.monotonic() < until:
            await _one(call, work, patience, results)

    await asyncio.gather(*[caller() for _ in range(_CALLERS)])
    return results


async def open_loop(channel: grpc.aio.Channel, work: float, patience: float, rate: float) -> Result:
    """Calls at a rate."""
    call: Any = channel.unary_unary(METHOD)
    results: Result = collections.Counter()
    began = time.monotonic()
    tasks: set[asyncio.Task[None]] = set()
    for number in range(int(rate * _SECONDS)):
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        task = asyncio.create_task(_one(call, work, patience, results))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    return results


def failed(result: Result) -> float:
    """The share of calls that failed."""
    bad = sum(count for outcome, count in result.items() if not outcome.isdigit())
    return bad / max(1, result.total())


def imbalance(result: Result) -> float:
    """The answers of the server that gave most, by the mean."""
    counts = [count for outcome, count in result.items() if outcome.isdigit()]
    return max(counts) / statistics.mean(counts) if counts else 0.0


Run = Callable[[list[str]], Result]


def _run_threads(make: Callable[[list[str]], grpc.Channel], work: float, timeout: float) -> Run:
    def run(targets: list[str]) -> Result:
        with make(targets) as channel:
            grpc.channel_ready_future(channel).result(10)
            return closed_loop_of_threads(channel, work, timeout)

    return run


def _run_tasks(make: Callable[[list[str]], grpc.aio.Channel], work: float, timeout: float, rate: float | None) -> Run:
    async def body(targets: list[str]) -> Result:
        async with make(targets) as channel:
            await channel.channel_ready()
            if rate is None:
                return await closed_loop_of_tasks(channel, work, timeout)
            return await open_loop(channel, work, timeout, rate)

    return lambda targets: asyncio.run(body(targets))


@dataclasses.dataclass(frozen=True)
class Case:
    """What is compared, and what is done to the servers meanwhile."""

    what: str
    sicken: Callable[[list[Server]], None]
    pool: Run
    plain: Run
    must: str
    most: float | None = None
    """What may fail on the pool, in percent."""

    def measure(self) -> Row:
        """Measures in interleaved rounds, and prints a line; returns the row to keep."""
        shares: dict[Run, list[float]] = {self.pool: [], self.plain: []}
        spread = 0.0
        with servers(3) as all_of_them:
            for number in range(_ROUNDS):
                for run, failures in shares.items():
                    if run is self.plain and number and self.most is not None:
                        continue
                    timer = threading.Timer(_WELL_FOR, self.sicken, [all_of_them])
                    timer.start()
                    result = run([server.target for server in all_of_them])
                    timer.join()
                    heal(all_of_them)
                    failures.append(failed(result))
                    spread = max(spread, imbalance(result)) if run is self.pool else spread
        pool, plain = (" ".join(f"{100 * share:5.2f}" for share in failures) for failures in shares.values())
        print(f"{self.what:58} {pool} %   {plain} %   {spread:5.2f}   {self.must}", flush=True)
        ours, base = (100 * statistics.mean(failures) for failures in shares.values())
        most = base + _MORE_THAN_PLAIN if self.most is None else self.most
        return Row(
            panel="load",
            what=f"failed, {self.what}",
            ours="pool",
            our_value=ours,
            unit="%",
            base="round_robin",
            base_value=base,
            rounds=_ROUNDS,
            bound=round(most, 2),
        )


def heal(all_of_them: list[Server]) -> None:
    """All servers are well again."""
    all_of_them[0].freeze(frozen=False)
    for server in all_of_them:
        server.fall_sick()


def freeze_one(all_of_them: list[Server]) -> None:
    """One server answers nothing."""
    all_of_them[0].freeze(frozen=True)


def fail_one(code: str) -> Callable[[list[Server]], None]:
    """One server fails its calls with `code`, at once."""
    return lambda all_of_them: all_of_them[0].fall_sick(code=code)


def fail_half(all_of_them: list[Server]) -> None:
    """All servers fail half of their calls."""
    for server in all_of_them:
        server.fall_sick(code="UNAVAILABLE", share=0.5)


def of_threads(work: float) -> tuple[Run, Run]:
    """The pool and the channel, in a closed loop of threads."""
    return _run_threads(sync_pool, work, 5), _run_threads(sync_round_robin, work, 5)


def of_tasks(work: float, timeout: float, rate: float | None) -> tuple[Run, Run]:
    """The pool and the channel, with tasks: in a closed loop, or at a rate."""
    return _run_tasks(aio_pool, work, timeout, rate), _run_tasks(aio_round_robin, work, timeout, rate)


def cases() -> Iterator[Case]:
    """All cases."""
    for code in ("UNAVAILABLE", "INTERNAL", "RESOURCE_EXHAUSTED"):
        yield Case(f"{code}, {_CALLERS} threads, others 20 ms", fail_one(code), *of_threads(0.02), "5 %", 5.0)
        yield Case(f"{code}, {_CALLERS} tasks, others 20 ms", fail_one(code), *of_tasks(0.02, 5, None), "5 %", 5.0)
    for rate, work in itertools.product((50.0, 200.0, 400.0), (0.02, 0.2)):
        what = f"UNAVAILABLE, {rate:.0f} calls a second, others {1000 * work:.0f} ms"
        yield Case(what, fail_one("UNAVAILABLE"), *of_tasks(work, 5, rate), "5 %", 5.0)
    frozen = "frozen, 150 calls a second, deadlines of 1 s"
    yield Case(frozen, freeze_one, *of_tasks(0.01, 1, 150.0), "1 %", 1.0)
    half = "all three fail half of their calls"
    yield Case(half, fail_half, *of_tasks(0.02, 5, None), "as round_robin + 2; 1.2")


def main() -> None:
    """Measures and reports."""
    print(f"{'failed calls, in rounds':58} {'pool':>17}     {'round_robin':>17}     busiest/mean  must")
    keep([case.measure() for case in cases()])


if __name__ == "__main__":
    main()
