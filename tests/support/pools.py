"""What tests make pools with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import grpc

from grpcpool import ChannelPool, Listener
from grpcpool._listener import HOOKS
from grpcpool.events import PoolEvent


class PoolMaker(Protocol):
    """Makes a pool that is closed, without grace, when the test is over."""

    def __call__(
        self,
        factory: Callable[[], grpc.Channel],
        *,
        name: str | None = None,
        listeners: Iterable[Listener] = (),
        **config: Any,
    ) -> ChannelPool:
        """Makes one; `config` are fields of `PoolConfig`."""


class Recorder(Listener):
    """Writes down what it is told."""

    def __init__(self) -> None:
        """Has been told nothing yet."""
        self.told: list[PoolEvent] = []

    def of(self, kind: type[PoolEvent]) -> list[Any]:
        """What it was told of one kind, in order."""
        return [event for event in self.told if type(event) is kind]


for _hook in HOOKS.values():
    setattr(Recorder, _hook, lambda self, event: self.told.append(event))
