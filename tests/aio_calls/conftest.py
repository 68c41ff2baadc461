"""Fixtures for the tests of asyncio calls."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator

import pytest

from support.call_server import CallServer
from support.connections import assert_no_connections, connections_to
from support.loops import KINDS, loops_of


@pytest.fixture(scope="session", autouse=True)
def _no_tracebacks_kept() -> Iterator[None]:
    """GRPC logs what codecs raise; pytest would keep the traceback, and with it the call and its connection."""
    logger = logging.getLogger("grpc._common")
    logger.disabled = True
    yield
    logger.disabled = False


@pytest.fixture(scope="session")
def _aio_call_server() -> Iterator[CallServer]:
    with CallServer() as server:
        yield server


@pytest.fixture(params=KINDS)
def each_loop(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test in each kind of loop; the value names the kind."""
    with loops_of(request.param):
        yield request.param


_FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Notes which tests have failed."""
    report = yield
    if report.when == "call":
        item.stash[_FAILED] = report.failed
    return report


@pytest.fixture
def calls(request: pytest.FixtureRequest, _aio_call_server: CallServer) -> Iterator[CallServer]:
    """A server that a test does not kill; when the test is over, no connection to it is left."""
    server = _aio_call_server
    yield server
    # The traceback of a failed test holds what the test had.
    left = not request.node.stash.get(_FAILED, True) and not _closes(server)
    if left or connections_to(server.port):
        # The next test is to begin without what this one left.
        server.restart()
    assert not left, "connections are left"


def _closes(server: CallServer) -> bool:
    try:
        assert_no_connections(server.port)
    except AssertionError:
        return False
    return True
