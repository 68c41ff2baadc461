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

from .burst import CONFIG, TIMEOUT, TIMEOUTS, Burst
from .call_counter import CALL_TIMEOUT, CallCounter
from .server import METHOD
from .world import Options, World

_Call = grpc.UnaryUnaryMultiCallable


class Threads(World):
    """Workers are threads."""

    workers = "threads"
    channel_type = "grpc.Channel"

    def channel(self, target: str, options: Options = ()) -> grpc.Channel:
        """Creates a plain gRPC channel."""
        return grpc.insecure_channel(target, options)

    def pool(self, target: str, config: PoolConfig, name: str) -> ChannelPool:
        """Creates a pool."""
        return ChannelPool(lambda: grpc.insecure_channel(target, isolated()), config, name=name)

    def run_leases(self, burst: Burst, name: str) -> int:
        """Runs the burst."""
        with self.pool(burst.target, CONFIG, name) as pool, burst.watch(pool):
            pool.open(TIMEOUT)
            _run((partial(_use_lease, pool, timeout, burst) for timeout in TIMEOUTS), pool.close)
            for seconds in burst.until_idle(pool):
                time.sleep(seconds)
        return _threads_left(name)

    def run_calls(self, create: Callable[[], Any], workers: int, counter: CallCounter) -> int:
        """Makes the calls from threads."""
        before = _threads_left("")
        with create() as channel:
            call_on([channel], workers, counter)
            counter.record_stats(channel)
        return _threads_left("") - before


def _use_lease(pool: ChannelPool, timeout: float, burst: Burst) -> None:
    """Acquires a connection for one call."""
    with burst.request(), pool.acquire(timeout=timeout) as lease:
        lease.unary_unary(METHOD)(b"", timeout=TIMEOUT)


def call_on(channels: Sequence[grpc.Channel], workers: int, counter: CallCounter) -> None:
    """Makes calls from `workers` threads, spread over the channels, while the counter is running."""
    calls: list[_Call[bytes, bytes]] = [channel.unary_unary(METHOD) for channel in channels]

    def stop() -> None:
        counter.stopped = True
        for channel in channels:
            channel.close()

    _run((partial(_keep_calling, call, counter) for call in itertools.islice(itertools.cycle(calls), workers)), stop)


def _keep_calling(call: _Call[bytes, bytes], counter: CallCounter) -> None:
    while counter.running():
        with counter.call():
            call(b"", timeout=CALL_TIMEOUT)


def _run(functions: Iterable[Callable[[], None]], stop: Callable[[], object]) -> None:
    """Runs each function on a thread, and waits for all. After an interruption, calls `stop` to end them."""
    threads = [threading.Thread(target=function, daemon=True) for function in functions]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:
        stop()
        for thread in threads:
            if thread.ident is not None:
                thread.join(TIMEOUT)
        raise


def _threads_left(pool: str) -> int:
    """Returns the number of running threads of the pool with that name."""
    return sum(thread.name.startswith(f"grpcpool-{pool}") for thread in threading.enumerate())
