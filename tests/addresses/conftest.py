"""Fixtures for the tests of addresses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from addresses.fleet import HAS_ADDRESSES, Servers, running
from resilience.tasks import LoopThread, Tasks
from resilience.threads import Threads
from resilience.worlds import World
from support.connections import assert_no_connections
from support.dns import DnsServer, asked_by_this_process
from support.pools import pool_threads
from support.waiting import eventually

_MOST = 8


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where there is only one loopback address, servers cannot listen on several."""
    for item in items:
        if not HAS_ADDRESSES and item.path.parent.name == "addresses":
            item.add_marker(pytest.mark.skip(reason="there is only one loopback address here"))


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


@pytest.fixture(scope="session")
def _shared_servers() -> Iterator[Servers]:
    with running(_MOST) as servers:
        yield servers


@pytest.fixture
def servers(_shared_servers: Servers) -> Iterator[Servers]:
    """Servers on eight addresses that no test ends; after each test, no connection to them is left."""
    yield _shared_servers
    assert_no_connections(_shared_servers.port)


@pytest.fixture
def mortals() -> Iterator[Callable[[int], Servers]]:
    """Runs servers of the test's own on so many addresses; after the test, no connection to them is left."""
    with ExitStack() as stack:
        started: list[Servers] = []

        def run(number: int) -> Servers:
            started.append(stack.enter_context(running(number)))
            return started[-1]

        yield run
        assert_no_connections(*(servers.port for servers in started))


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    """A DNS server that this process asks for the addresses of names."""
    with DnsServer() as server, asked_by_this_process(server):
        yield server
