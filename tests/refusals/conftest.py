"""Fixtures for the tests of refused streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import grpc
import pytest
from grpc.experimental import ChannelOptions

from grpcpool import ChannelPool, isolated
from support.connections import assert_no_connections
from support.pools import PoolMaker, Recorder
from support.refusing_server import RefusingServer

FIRST_PAUSE = 0.01
"""Seconds after which a refused call is sent again for the first time, at most; each further pause is twice as long."""


class PoolOpener(Protocol):
    """Makes a connected pool over the refusing server, with the test's recorder."""

    def __call__(self, *, single_threaded: bool = False, **config: Any) -> ChannelPool:
        """Makes one; `config` are fields of `PoolConfig`, `single_threaded` is an option for streams of responses."""


@pytest.fixture(scope="session")
def _refusing_server() -> Iterator[RefusingServer]:
    with RefusingServer() as server:
        yield server


@pytest.fixture
def refusing(_refusing_server: RefusingServer) -> Iterator[RefusingServer]:
    """A server that refuses nothing until the test says so; after each test, no connection to it is left."""
    _refusing_server.begin()
    yield _refusing_server
    assert_no_connections(_refusing_server.port)


@pytest.fixture
def recorder() -> Recorder:
    """Records the events of the test's pools."""
    return Recorder()


@pytest.fixture
def pauses(request: pytest.FixtureRequest) -> Iterator[None]:
    """Refused calls pause before they are sent again, also where the clock stands still."""
    if "clock" in request.fixturenames:
        # The clock takes the pause away, so that it must come first.
        request.getfixturevalue("clock")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grpcpool._shared.driver._FIRST_PAUSE", FIRST_PAUSE)
        yield


@pytest.fixture
def open_pool(refusing: RefusingServer, make_pool: PoolMaker, recorder: Recorder) -> PoolOpener:
    """Makes pools, which are closed when the test is over."""

    def open_one(*, single_threaded: bool = False, **config: Any) -> ChannelPool:
        options = [(ChannelOptions.SingleThreadedUnaryStream, 1)] if single_threaded else []
        pool = make_pool(
            lambda: grpc.insecure_channel(refusing.target, isolated(options)), listeners=[recorder], **config
        )
        pool.open()
        return pool

    return open_one


@pytest.fixture
def plain(refusing: RefusingServer) -> Iterator[grpc.Channel]:
    """The reference: gRPC's own channel to the same server."""
    with refusing.channel() as channel:
        yield channel
