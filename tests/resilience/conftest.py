"""Fixtures for the tests of elasticity and resilience."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from resilience.tasks import LoopThread, Tasks
from resilience.threads import Threads
from resilience.worlds import World
from support.connections import assert_no_connections
from support.pools import pool_threads
from support.servers import Server
from support.waiting import eventually


@pytest.fixture(params=["threads", "asyncio"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Each world in turn; at the end no thread or task of a pool is left."""
    before = pool_threads()
    if request.param == "threads":
        yield Threads()
    else:
        with LoopThread() as loop:
            yield Tasks(loop)
    eventually(lambda: pool_threads() <= before, timeout=5)


@pytest.fixture
def mortal() -> Iterator[Server]:
    """A server of the test's own; after the test, no connection to it is left."""
    with Server() as server:
        yield server
        assert_no_connections(server.port)
