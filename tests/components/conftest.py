"""Fixtures for the tests with servers and proxies of other projects."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, Protocol

import pytest

import grpcpool
from components.programs import Program
from grpcpool import ChannelPool, PoolConfig
from support.waiting import eventually

# So that a lost connection soon reconnects.
RECONNECT_SOON = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200)]


class PoolOpener(Protocol):
    """Creates a pool over a program that serves."""

    def __call__(self, served: Program, **config: Any) -> ChannelPool:
        """Creates a pool; `config` are fields of `PoolConfig`."""


def _pool_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("grpcpool-")}


@pytest.fixture
def pool_of() -> Iterator[PoolOpener]:
    """Creates pools and closes them after the test: in the end no call is in flight, and no thread is left."""
    pools: list[ChannelPool] = []
    before = _pool_threads()

    with contextlib.ExitStack() as stack:

        def make(served: Program, **config: Any) -> ChannelPool:
            pool = grpcpool.insecure_channel(served.target, RECONNECT_SOON, config=PoolConfig(**config))
            stack.callback(pool.close)
            pools.append(pool)
            return pool

        yield make
        for pool in pools:
            eventually(lambda pool=pool: pool.stats().in_flight == 0 == pool.stats().waiting, timeout=5)  # type: ignore[misc]
    eventually(lambda: _pool_threads() <= before, timeout=5)
