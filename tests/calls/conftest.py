"""Fixtures for the tests of calls."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest

from grpcpool import ChannelPool
from support.call_server import CallServer
from support.connections import assert_no_connections
from support.pools import PoolMaker


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


@pytest.fixture
def plain(calls: CallServer) -> Iterator[grpc.Channel]:
    """The reference: gRPC's own channel to the same server."""
    with calls.channel() as channel:
        yield channel
