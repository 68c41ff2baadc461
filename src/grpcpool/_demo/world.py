"""The interface of the two worlds, threads with `grpc` and tasks with `grpc.aio`, that the demonstration uses."""

from __future__ import annotations

import abc
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from grpcpool import PoolConfig

from .burst import Burst
from .call_counter import CallCounter, Phase

Options = Sequence[tuple[str, Any]]

PATIENCE: Final = 30.0
"""Seconds for what takes milliseconds, except on a machine that is very busy."""


@dataclasses.dataclass(frozen=True)
class Load:
    """Callers that make one call after the other on a channel or pool, until their counter has enough calls."""

    create: Callable[[], Any]
    counter: CallCounter
    callers: int
    seconds: float
    """How long the server takes for a call."""
    deadline: float = PATIENCE
    """Seconds within which a call must be answered."""
    each: int | None = None
    """The calls that each caller makes; `None`: as long as the counter needs some."""

    def phases(self) -> Iterator[Phase]:
        """Yields the phase of each call of one caller, when it begins."""
        return itertools.islice(iter(self.counter.take, None), self.each)


class World(abc.ABC):
    """Threads with `grpc`, or tasks with `grpc.aio`."""

    workers: str
    """The name of what makes the calls."""

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
    def make_calls(self, loads: Sequence[Load]) -> int:
        """Connects, makes the calls of all loads at the same time, and closes the channels and pools.

        Returns:
            The number of the pools' own workers that are left.
        """
