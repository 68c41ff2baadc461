"""Latency while one of four servers is five times slower: the pool beside gRPC's `round_robin`, in interleaved rounds.

Each server works on two calls at a time, for 20 ms each; the slow one takes 100 ms. Calls come at random moments, at 70
% of what the four can do together, whether earlier ones have been answered or not. A quarter of them is more than the
slow server can do. A call has 5 s; the latency of one that fails is the time until it failed. Both worlds.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import grpc
import grpc.aio

import grpcpool
import grpcpool.aio
from _common import footer
from _results import Row, keep
from _sick_servers import METHOD, aio_round_robin, servers, sync_round_robin
from grpcpool._demo.screen import Screen

_ROUNDS = 3
_SECONDS = 8.0
_SERVERS = 4
_AT_ONCE = 2
_WORK = 0.02
_SLOWER = 5.0
_CAPACITY = (_SERVERS - 1 + 1 / _SLOWER) * _AT_ONCE / _WORK
_RATE = 0.7 * _CAPACITY
_PATIENCE = 5.0

_MOST_P99 = 0.5
_LEAST_GOODPUT = 1.0


@dataclasses.dataclass
class Result:
    """How long calls took, and how many were answered."""

    latencies: list[float] = dataclasses.field(default_factory=list)
    answered: int = 0

    def note(self, came: float, *, well: bool) -> None:
        """A call that came at that moment has ended."""
        self.latencies.append(time.monotonic() - came)
        self.answered += well

    def percentile(self, number: int) -> float:
        """In seconds."""
        return statistics.quantiles(self.latencies, n=100)[number - 1]


def arrivals(seed: int) -> Iterator[float]:
    """When calls come: a Poisson process, the same for the same seed."""
    dice = random.Random(seed)  # noqa: S311 -- no secret
    moment = 0.0
    while (moment := moment + dice.expovariate(_RATE)) < _SECONDS:
        yield moment


def with_threads(make: Callable[[list[str]], grpc.Channel], targets: list[str], seed: int) -> Result:
    """One round, with futures."""
    result = Result()
    with make(targets) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        grpc.channel_ready_future(channel).result(10)
        began = time.monotonic()
        left = threading.Semaphore(0)

        def begin(came: float) -> None:
            def over(future: grpc.Future[bytes]) -> None:
                result.note(came, well=future.exception() is None)
                left.release()

            call.future(str(_WORK).encode(), timeout=_PATIENCE).add_done_callback(over)

        moments = [*arrivals(seed)]
        for moment in moments:
            time.sleep(max(0.0, began + moment - time.monotonic()))
            begin(began + moment)
        for _ in moments:
            left.acquire()
    return result


def with_tasks(make: Callable[[list[str]], grpc.aio.Channel], targets: list[str], seed: int) -> Result:
    """One round, in a loop of its own."""
    return asyncio.run(_with_tasks(make, targets, seed))


async def _with_tasks(make: Callable[[list[str]], grpc.aio.Channel], targets: list[str], seed: int) -> Result:
    result = Result()
    async with make(targets) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
        await channel.channel_ready()
        began = time.monotonic()

        async def one(came: float) -> None:
            try:
                await call(str(_WORK).encode(), timeout=_PATIENCE)
            except grpc.RpcError:
                result.note(came, well=False)
            else:
                result.note(came, well=True)

        tasks = []
        for moment in arrivals(seed):
            await asyncio.sleep(max(0.0, began + moment - time.monotonic()))
            tasks.append(asyncio.create_task(one(began + moment)))
        await asyncio.gather(*tasks)
    return result


def sync_pool(targets: list[str]) -> grpc.Channel:
    """A pool over the servers' addresses."""
    return grpcpool.insecure_channel("ipv4:" + ",".join(targets))


def aio_pool(targets: list[str]) -> grpc.aio.Channel:
    """As `sync_pool`, for asyncio."""
    return grpcpool.aio.insecure_channel("ipv4:" + ",".join(targets))


Run = Callable[[list[str], int], Result]


def compare(pool: Run, plain: Run) -> Iterator[tuple[Result, Result]]:
    """Measures both in turn, each on servers of its own."""
    for number in range(_ROUNDS):
        # Which is first changes.
        order = (pool, plain) if number % 2 == 0 else (plain, pool)
        results = {run: _on_servers(run, number) for run in order}
        yield results[pool], results[plain]


def _on_servers(run: Run, seed: int) -> Result:
    with servers(_SERVERS) as all_of_them:
        for server in all_of_them[1:]:
            server.fall_sick(at_once=_AT_ONCE)
        all_of_them[0].fall_sick(at_once=_AT_ONCE, slower=_SLOWER)
        return run([server.target for server in all_of_them], seed)


def rows(world: str, pairs: list[tuple[Result, Result]]) -> Iterator[tuple[str, ...]]:
    """A row for each side of each round."""
    for number, pair in enumerate(pairs, start=1):
        for name, result in zip(("pool", "round_robin"), pair, strict=True):
            times = (f"{1000 * result.percentile(percent):.0f} ms" for percent in (50, 99))
            failed = len(result.latencies) - result.answered
            yield f"{world}, round {number}", name, *times, str(result.answered), str(failed)


def results(world: str, pairs: list[tuple[Result, Result]]) -> list[Row]:
    """The ratios of the rounds together, with their bounds."""
    p99 = [(ours.percentile(99), plain.percentile(99)) for ours, plain in pairs]
    answered = [(ours.answered, plain.answered) for ours, plain in pairs]
    return [
        _row(f"{world}, one slow server of four, p99", p99, unit="ms", per=0.001, bound=_MOST_P99, at_least=False),
        _row(
            f"{world}, one slow server of four, goodput",
            answered,
            unit="calls/s",
            per=_SECONDS,
            bound=_LEAST_GOODPUT,
            at_least=True,
        ),
    ]


def _row(
    what: str, pairs: Sequence[tuple[float, float]], *, unit: str, per: float, bound: float, at_least: bool
) -> Row:
    ratios = [ours / plain for ours, plain in pairs]
    ours, plain = (statistics.mean(side) / per for side in zip(*pairs, strict=True))
    return Row(
        panel="load",
        what=what,
        ours="pool",
        our_value=ours,
        unit=unit,
        base="round_robin",
        base_value=plain,
        ratio=ours / plain if at_least else statistics.median(ratios),
        low=min(ratios),
        high=max(ratios),
        rounds=len(pairs),
        bound=bound,
        at_least=at_least,
    )


def _words(row: Row) -> str:
    return f"{row.what}: {row.ratio:.3f} of {row.base}'s, bound {row.bound}: {row.verdict}\n"


def main() -> None:
    """Measures and reports."""
    measured = {
        "threads": list(
            compare(
                lambda targets, seed: with_threads(sync_pool, targets, seed),
                lambda targets, seed: with_threads(sync_round_robin, targets, seed),
            )
        ),
        "asyncio": list(
            compare(
                lambda targets, seed: with_tasks(aio_pool, targets, seed),
                lambda targets, seed: with_tasks(aio_round_robin, targets, seed),
            )
        ),
    }
    screen = Screen(sys.stdout)
    header = ("one of four servers five times slower", "", "p50", "p99", "answered", "failed")
    screen.table([header, *(row for world, pairs in measured.items() for row in rows(world, pairs))], align="<<>>>>")
    kept = [row for world, pairs in measured.items() for row in results(world, pairs)]
    screen.write("".join(map(_words, kept)) + footer())
    keep(kept)


if __name__ == "__main__":
    main()
