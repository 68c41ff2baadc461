"""Fixtures for the tests of elasticity and resilience."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from resilience.tasks import LoopThread, Tasks
from resilience.threads import Threads
from resilience.worlds import World
from support.connections import connections_to
from support.pools import pool_threads
from support.servers import Server
from support.waiting import eventually


@pytest.fixture(params=["threads", "asyncio"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """Each world in turn; in the end no thread or task of a pool is left."""
    before = pool_threads()
    if request.param == "threads":
        yield Threads()
    else:
        with LoopThread() as loop:
            yield Tasks(loop)
    eventually(lambda: pool_threads() <= before, timeout=5)


@pytest.fixture
def mortal() -> Iterator[Server]:
    """A server of the test's own; when the test is over, no connection to it is left."""
    with Server() as server:
        yield server
        # Calls that errors still refer to keep gRPC's connections open.
        gc.collect()
        eventually(lambda: connections_to(server.port) == 0, timeout=5)
