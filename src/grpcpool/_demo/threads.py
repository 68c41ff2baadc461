"""The world of threads and `grpc`."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import grpc

import grpcpool
from grpcpool import ChannelPool, PoolConfig

from .burst import CONFIG, TIMEOUT, TIMEOUTS, Burst
from .call_counter import at_rest, stats_of
from .monitor import poll
from .server import METHOD
from .world import PATIENCE, Load, Options, World


class Threads(World):
    """Workers are threads."""

    workers = "threads"

    def channel(self, target: str, options: Options = ()) -> grpc.Channel:
        """Creates a plain gRPC channel."""
        return grpc.insecure_channel(target, options)

    def pool(self, target: str, config: PoolConfig, name: str) -> ChannelPool:
        """Creates a pool."""
        return grpcpool.insecure_channel(target, config=config, name=name)

    def run_leases(self, burst: Burst, name: str) -> int:
        """Runs the burst."""
        with self.pool(burst.target, CONFIG, name) as pool, burst.watch(pool):
            pool.open(TIMEOUT)
            _run(partial(_use_lease, pool, timeout, burst) for timeout in TIMEOUTS)
            for seconds in burst.until_idle(pool):
                time.sleep(seconds)
        return _threads_left()

    def make_calls(self, loads: Sequence[Load]) -> int:
        """Makes the calls from threads."""
        with contextlib.ExitStack() as stack:
            channels = [stack.enter_context(load.create()) for load in loads]
            for channel in channels:
                _connect(channel)
            _run(caller for load, channel in zip(loads, channels, strict=True) for caller in _callers(channel, load))
            for load, channel in zip(loads, channels, strict=True):
                for seconds in poll(partial(at_rest, channel), PATIENCE):
                    time.sleep(seconds)
                load.counter.at_rest = stats_of(channel)
        return _threads_left()


def _connect(channel: grpc.Channel) -> None:
    """Waits until the channel or pool is connected."""
    if isinstance(channel, ChannelPool):
        channel.open(PATIENCE)
    else:
        grpc.channel_ready_future(channel).result(PATIENCE)


def _callers(channel: grpc.Channel, load: Load) -> list[Callable[[], None]]:
    """Returns a function for each caller."""
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
    return [partial(_keep_calling, call, load)] * load.callers


def _keep_calling(call: grpc.UnaryUnaryMultiCallable[bytes, bytes], load: Load) -> None:
    request = str(load.seconds).encode()
    for phase in load.phases():
        with phase.call() as answer:
            answer.append(call(request, timeout=load.deadline))


def _use_lease(pool: ChannelPool, timeout: float, burst: Burst) -> None:
    """Acquires a connection for one call."""
    with burst.request(), pool.acquire(timeout=timeout) as lease:
        lease.unary_unary(METHOD)(b"", timeout=TIMEOUT)


def _run(functions: Iterable[Callable[[], None]]) -> None:
    """Runs each function on a thread, and waits for all."""
    threads = [threading.Thread(target=function, daemon=True) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _threads_left() -> int:
    """Returns the number of running threads of pools."""
    return sum(thread.name.startswith("grpcpool-") for thread in threading.enumerate())
