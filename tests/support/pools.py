"""Makes pools for tests, records their events, and checks that they are at rest."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import grpc
import pytest

from grpcpool import ChannelPool, Listener, PoolStats
from grpcpool._aio import shared as aio_shared
from grpcpool._shared.driver import Driver
from grpcpool._sync import shared
from grpcpool.events import PoolEvent
from support.waiting import eventually

HOOKS = tuple(name for name in vars(Listener) if not name.startswith("_"))
"""The names of a listener's hooks, one for each kind of event."""


def linger_shortly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shared pools end soon after their last handle, so that a test can wait for that."""
    for module in (shared, aio_shared):
        monkeypatch.setattr(module, "LINGERS_FOR", 0.1)


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
    """Records events."""

    def __init__(self) -> None:
        """Starts with no events."""
        self.told: list[PoolEvent] = []

    def of(self, kind: type[PoolEvent]) -> list[Any]:
        """The events of one kind, in order."""
        return [event for event in self.told if type(event) is kind]


for _hook in HOOKS:
    setattr(Recorder, _hook, lambda self, event: self.told.append(event))


def pool_threads() -> set[threading.Thread]:
    """The threads of all pools in this process."""
    return {thread for thread in threading.enumerate() if thread.name.startswith("grpcpool-")}


def assert_at_rest(pool: ChannelPool) -> None:
    """The pool carries nothing, and nothing waits; what was dropped has been collected."""
    gc.collect()
    eventually(lambda: pool.stats().in_flight == 0, timeout=5)
    assert_carries_nothing(pool.stats())


def assert_carries_nothing(stats: PoolStats) -> None:
    """Nothing is in flight on any connection, nothing waits, and the size is within its bound."""
    assert stats.in_flight == 0
    assert stats.waiting == 0
    assert 0 <= stats.size <= stats.max_size
    assert all(channel.in_flight == 0 for channel in stats.channels)


def is_collected(name: str) -> bool:
    """Whether nothing is left of the dropped pool of that name.

    A weak reference would not see that: it is gone also if a finalizer has brought back what it referred to.
    """
    for _ in range(3):
        gc.collect()
    return not [each for each in gc.get_objects() if isinstance(each, Driver) and each.name == name]
