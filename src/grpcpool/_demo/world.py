"""What a scene is played in: threads and `grpc`, or tasks and `grpc.aio`. Of these a scene knows only what is here."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any

from grpcpool import PoolConfig

from .burst import Burst
from .tally import Tally

Options = Sequence[tuple[str, Any]]


class World(abc.ABC):
    """One of the two."""

    workers: str
    """What makes the calls."""
    channel_type: str
    """What gRPC calls a channel here."""

    @abc.abstractmethod
    def channel(self, target: str, options: Options = ()) -> Any:
        """Makes one channel of gRPC's own."""

    @abc.abstractmethod
    def pool(self, target: str, config: PoolConfig, name: str) -> Any:
        """Makes a pool."""

    @abc.abstractmethod
    def lease(self, burst: Burst, name: str) -> int:
        """Plays the burst on a pool of that name, which comes to rest and is closed then.

        Returns:
            How many workers of the pool's own are left.
        """

    @abc.abstractmethod
    def call(self, make: Callable[[], Any], workers: int, tally: Tally) -> int:
        """Has so many workers call, one call after the other, on the channel or pool that `make` makes.

        Returns:
            How many workers of the channel's own are left when it is closed.
        """
