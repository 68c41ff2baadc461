"""Fixtures for the tests of calls."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from calls.full import Full, MakeFull
from grpcpool import ChannelPool
from support.call_server import CallServer
from support.connections import assert_no_connections
from support.pools import PoolMaker, assert_at_rest


@pytest.fixture(scope="session")
def _call_server() -> Iterator[CallServer]:
    with CallServer() as server:
        yield server


@pytest.fixture
def calls(_call_server: CallServer) -> Iterator[CallServer]:
    """A server that no test kills; after each test, no connection to it is left."""
    yield _call_server
    assert_no_connections(_call_server.port)


@pytest.fixture
def single(calls: CallServer, make_pool: PoolMaker) -> ChannelPool:
    """A pool with room for one call, connected."""
    pool = make_pool(calls.channel, max_size=1, max_streams=1)
    pool.open()
    return pool


@pytest.fixture(scope="session")
def plain_server() -> Iterator[CallServer]:
    """The server of `plain`: before 1.80, gRPC may keep the connection of a channel whose call ended as it began."""
    with CallServer() as server:
        yield server


@pytest.fixture
def plain(plain_server: CallServer) -> Iterator[grpc.Channel]:
    """The reference: gRPC's own channel to a server like that of the pools."""
    with plain_server.channel() as channel:
        yield channel


@pytest.fixture
def full(single: ChannelPool) -> Iterator[Full]:
    """A full pool; afterwards it is at rest."""
    made = Full(single)
    yield made
    made.make_room()
    assert_at_rest(single)


@pytest.fixture
def make_full(calls: CallServer, make_pool: PoolMaker) -> Iterator[MakeFull]:
    """Makes full pools with a test's configuration; afterwards they are at rest."""
    with contextlib.ExitStack() as stack:

        def make(**config: Any) -> Full:
            pool = make_pool(calls.channel, max_size=1, max_streams=1, **config)
            pool.open()
            full = Full(pool)
            stack.callback(assert_at_rest, pool)
            stack.callback(full.make_room)
            return full

        yield make
