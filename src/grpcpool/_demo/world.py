"""The interface of the two worlds, threads with `grpc` and tasks with `grpc.aio`, that the demonstration uses."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any

from grpcpool import PoolConfig

from .burst import Burst
from .call_counter import CallCounter

Options = Sequence[tuple[str, Any]]


class World(abc.ABC):
    """Threads with `grpc`, or tasks with `grpc.aio`."""

    workers: str
    """The name of what makes the calls."""
    channel_type: str
    """The name of gRPC's channel type."""

    @abc.abstractmethod
    def channel(self, target: str, options: Options = ()) -> Any:
        """Creates a plain gRPC channel."""

    @abc.abstractmethod
    def pool(self, target: str, config: PoolConfig, name: str) -> Any:
        """Creates a pool."""

    @abc.abstractmethod
    def run_leases(self, burst: Burst, name: str) -> int:
        """Runs the burst on a pool of that name, waits until the pool is idle, and closes it.

        Returns:
            The number of the pool's own workers that are left.
        """

    @abc.abstractmethod
    def run_calls(self, create: Callable[[], Any], workers: int, counter: CallCounter) -> int:
        """Makes calls from `workers` threads or tasks, one after the other each, on the channel that `create` returns.

        Returns:
            The number of the channel's own workers that are left after it is closed.
        """
