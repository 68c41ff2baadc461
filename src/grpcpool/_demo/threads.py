"""The world of threads and `grpc`."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import grpc

from grpcpool import ChannelPool, PoolConfig, isolated

from .burst import CONFIG, PATIENCE, PATIENCES, Burst
from .server import METHOD
from .tally import CALL_TIMEOUT, Tally
from .world import Options, World

_Call = grpc.UnaryUnaryMultiCallable


class Threads(World):
    """Workers are threads."""

    workers = "threads"
    channel_type = "grpc.Channel"

    def channel(self, target: str, options: Options = ()) -> grpc.Channel:
        """Makes one channel of gRPC's own."""
        return grpc.insecure_channel(target, options)

    def pool(self, target: str, config: PoolConfig, name: str) -> ChannelPool:
        """Makes a pool."""
        return ChannelPool(lambda: grpc.insecure_channel(target, isolated()), config, name=name)

    def lease(self, burst: Burst, name: str) -> int:
        """Plays the burst."""
        with self.pool(burst.target, CONFIG, name) as pool, burst.watch(pool):
            pool.open(PATIENCE)
            _run((partial(_ask, pool, patience, burst) for patience in PATIENCES), pool.close)
            for pause in burst.rests(pool):
                time.sleep(pause)
        return _threads_left(name)

    def call(self, make: Callable[[], Any], workers: int, tally: Tally) -> int:
        """Has threads call."""
        before = _threads_left("")
        with make() as channel:
            call_on([channel], workers, tally)
            tally.note(channel)
        return _threads_left("") - before


def _ask(pool: ChannelPool, patience: float, burst: Burst) -> None:
    """Leases a connection for one call."""
    with burst.ask(), pool.acquire(timeout=patience) as lease:
        lease.unary_unary(METHOD)(b"", timeout=PATIENCE)


def call_on(channels: Sequence[grpc.Channel], workers: int, tally: Tally) -> None:
    """Has so many threads, dealt out to the channels, call as long as the tally says."""
    calls: list[_Call[bytes, bytes]] = [channel.unary_unary(METHOD) for channel in channels]

    def stop() -> None:
        tally.stopped = True
        for channel in channels:
            channel.close()

    _run((partial(_keep_calling, call, tally) for call in itertools.islice(itertools.cycle(calls), workers)), stop)


def _keep_calling(call: _Call[bytes, bytes], tally: Tally) -> None:
    while tally.running():
        with tally.call():
            call(b"", timeout=CALL_TIMEOUT)


def _run(works: Iterable[Callable[[], None]], stop: Callable[[], object]) -> None:
    """Has each done by a thread, and waits for all. Should it be interrupted, `stop` is to end them."""
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:
        stop()
        for thread in threads:
            if thread.ident is not None:
                thread.join(PATIENCE)
        raise


def _threads_left(pool: str) -> int:
    """How many threads of the pool of that name run."""
    return sum(thread.name.startswith(f"grpcpool-{pool}") for thread in threading.enumerate())
