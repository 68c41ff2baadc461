"""Many threads on few connections: nothing is lost, and no limit is ever exceeded."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Self

import pytest

from support.connections import connections_to
from support.pools import PoolMaker
from support.servers import PEER, SLOW, Server, unary
from support.waiting import LONG, background, eventually, together

pytestmark = pytest.mark.timeout(90)

THREADS, ROUNDS, CONNECTIONS = 200, 5, 5


class Watch:
    """Counts from outside the most TCP connections at once."""

    def __init__(self, port: int) -> None:
        """Watches connections to `port`."""
        self.most = 0
        self._port = port
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._over.is_set():
            self.most = max(self.most, connections_to(self._port))
            time.sleep(0.02)

    def __enter__(self) -> Self:
        """Starts to count."""
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        """Stops."""
        self._over.set()
        self._thread.join(LONG)


def test_strict_never_exceeds_its_bound_under_200_threads(server: Server, make_pool: PoolMaker) -> None:
    """Each of 1000 leases is alone on its connection, and there are never more than five connections."""
    pool = make_pool(server.channel, max_size=CONNECTIONS)
    server.take_peaks()
    guard = threading.Lock()
    holders: Counter[bytes] = Counter()
    most: Counter[bytes] = Counter()

    def work(_: int) -> int:
        done = 0
        for _ in range(ROUNDS):
            with pool.acquire(timeout=2 * LONG) as lease:
                peer = unary(lease, PEER, b"")
                with guard:
                    holders[peer] += 1
                    most[peer] = max(most[peer], holders[peer])
                unary(lease, SLOW, b"0")
                with guard:
                    holders[peer] -= 1
                done += 1
        return done

    with Watch(server.port) as watch:
        assert sum(together(THREADS, work)) == THREADS * ROUNDS
    assert len(most) <= CONNECTIONS
    assert set(most.values()) == {1}, "two had one connection at the same time"
    # As the server counted; asking it used a connection of its own.
    assert set(server.take_peaks().values()) == {1}
    assert watch.most <= CONNECTIONS
    stats = pool.stats()
    assert (stats.in_flight, stats.waiting, stats.acquired) == (0, 0, THREADS * ROUNDS)
    assert stats.timeouts == stats.open_failures == 0


def test_200_threads_are_served_in_the_order_in_which_they_came(server: Server, make_pool: PoolMaker) -> None:
    """Each free place goes to the thread that has waited longest."""
    pool = make_pool(server.channel, max_size=CONNECTIONS)
    held = [pool.acquire() for _ in range(CONNECTIONS)]
    waiting = []
    for i in range(THREADS):
        waiting.append(background(lambda: pool.acquire(timeout=None)))
        eventually(lambda i=i: pool.stats().waiting == i + 1, pause=0.001)  # type: ignore[misc]
    for i, next_one in enumerate(waiting):
        held.pop(0).release()
        held.append(next_one.result(LONG))
        assert pool.stats().waiting == THREADS - i - 1
    for lease in held:
        lease.release()


def test_streams_never_exceed_their_bound_under_200_threads(server: Server, make_pool: PoolMaker) -> None:
    """With five connections of four streams, no connection ever carries more than four calls."""
    pool = make_pool(server.channel, max_size=CONNECTIONS, max_streams=4)
    server.take_peaks()

    def work(i: int) -> int:
        done = 0
        for round_ in range(ROUNDS):
            with pool.acquire(timeout=2 * LONG, streams=1) as lease:
                assert unary(lease, SLOW, str((i + round_) % 3).encode())
                done += 1
        return done

    with Watch(server.port) as watch:
        assert sum(together(THREADS, work)) == THREADS * ROUNDS
    peaks = server.take_peaks()
    assert len(peaks) <= CONNECTIONS
    assert max(peaks.values()) <= 4
    assert watch.most <= CONNECTIONS
    stats = pool.stats()
    assert (stats.in_flight, stats.waiting, stats.acquired) == (0, 0, THREADS * ROUNDS)


def test_all_mixed_asks_are_served(server: Server, make_pool: PoolMaker) -> None:
    """Whole connections, one or several streams, releases, discards: every acquire succeeds, and nothing is left."""
    pool = make_pool(server.channel, max_size=3, max_streams=6)

    def work(i: int) -> None:
        for round_ in range(6):
            ask = (None, 1, 2, 6)[(i + round_) % 4]
            lease = pool.acquire(timeout=2 * LONG, streams=ask)
            unary(lease, PEER, b"")
            if (i * round_) % 11 == 10:
                lease.discard()
            else:
                lease.release()

    together(40, work)
    stats = pool.stats()
    assert (stats.in_flight, stats.waiting, stats.acquired) == (0, 0, 240)
    assert all(not channel.exclusive for channel in stats.channels)
