"""Fixtures for the tests with programs of other makes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

import pytest

import grpcpool
from components.programs import Program
from grpcpool import ChannelPool, PoolConfig
from support.pools import pool_threads
from support.servers import RECONNECT_SOON
from support.waiting import eventually


class PoolOpener(Protocol):
    """Makes a pool over a program that serves."""

    def __call__(self, served: Program, **config: Any) -> ChannelPool:
        """Makes one; `config` are fields of `PoolConfig`."""


@pytest.fixture
def pool_of() -> Iterator[PoolOpener]:
    """Makes pools, which are closed when the test is over: in the end no call is in flight, and no thread is left."""
    pools: list[ChannelPool] = []
    before = pool_threads()

    with contextlib.ExitStack() as stack:

        def make(served: Program, **config: Any) -> ChannelPool:
            pool = grpcpool.insecure_channel(served.target, RECONNECT_SOON, config=PoolConfig(**config))
            stack.callback(pool.close)
            pools.append(pool)
            return pool

        yield make
        for pool in pools:
            eventually(lambda pool=pool: pool.stats().in_flight == 0 == pool.stats().waiting, timeout=5)  # type: ignore[misc]
    eventually(lambda: pool_threads() <= before, timeout=5)
