"""Calls completed under load: a pool of up to eight connections against eight channels with the threads dealt out.

400 threads make calls of 50 ms; the server, the demonstration's, allows 100 streams a connection. Dealing out by hand
is the best that one can do without a pool: it knows beforehand how many threads there will be. Both sides run in
turn, on one server.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import sys
import threading
from collections import Counter
from collections.abc import Sequence

import grpc

import grpcpool
from _common import footer, isolated_channel
from grpcpool._demo.calls import CONNECTIONS, THREADS, Tally, keep_calling
from grpcpool._demo.process import running_server
from grpcpool._demo.screen import Screen
from grpcpool._demo.server import METHOD

_ROUNDS = 7
_BOUND = 0.95


def load(channels: Sequence[grpc.Channel]) -> Tally:
    """Has the threads, dealt out to `channels`, make calls for a while."""
    calls: list[grpc.UnaryUnaryMultiCallable[bytes, bytes]] = [channel.unary_unary(METHOD) for channel in channels]
    tally = Tally()
    dealt = itertools.islice(itertools.cycle(calls), THREADS)
    threads = [threading.Thread(target=keep_calling, args=(call, tally), daemon=True) for call in dealt]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally


def report(ours: Sequence[Tally], dealt: Sequence[Tally]) -> None:
    """Prints a table, and how to repeat it."""
    rows = [("goodput", "completed", "failed", "failed with")]
    for name, tallies in (("pool", ours), (f"{CONNECTIONS} channels", dealt)):
        failures = Counter(failure for tally in tallies for failure in tally.failures)
        completed = sum(len(tally.latencies) for tally in tallies)
        rows.append((name, str(completed), str(failures.total()), ", ".join(failures)))
    ratio = statistics.median(len(one.latencies) / len(other.latencies) for one, other in zip(ours, dealt, strict=True))
    screen = Screen(sys.stdout)
    screen.table(rows, align="<>><")
    verdict = "met" if ratio >= _BOUND else "MISSED"
    screen.write(f"median of {_ROUNDS} ratios {ratio:.3f}, bound {_BOUND}: {verdict}\n{footer()}")


def main() -> None:
    """Measures and reports."""
    config = grpcpool.PoolConfig(min_size=1, max_size=CONNECTIONS)
    with running_server() as port, contextlib.ExitStack() as stack:
        target = f"127.0.0.1:{port}"
        pool = stack.enter_context(grpcpool.ChannelPool(lambda: isolated_channel(target), config))
        channels = [stack.enter_context(isolated_channel(target)) for _ in range(CONNECTIONS)]
        pairs = [(load([pool]), load(channels)) for _ in range(_ROUNDS)]
    ours, dealt = zip(*pairs, strict=True)
    report(ours, dealt)


if __name__ == "__main__":
    main()
