"""Fixtures for the tests of shared pools."""

from __future__ import annotations

import gc
import socket
from collections.abc import Iterator

import pytest

from support.call_server import CallServer
from support.connections import connections_to
from support.pools import linger_shortly, pool_threads
from support.waiting import eventually


@pytest.fixture(autouse=True)
def _pools_linger_shortly(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test waits until its pools have ended; in the tests of that they linger as long as for users."""
    if "last_close" not in request.node.name:
        linger_shortly(monkeypatch)


@pytest.fixture(scope="session")
def _call_server() -> Iterator[CallServer]:
    with CallServer() as server:
        yield server


@pytest.fixture
def calls(_call_server: CallServer) -> Iterator[CallServer]:
    """A server; soon after each test, when pools have lingered, no connection to it is left, nor one being opened."""
    yield _call_server

    def none_left() -> bool:
        gc.collect()
        return connections_to(_call_server.port) == 0 and not pool_threads()

    eventually(none_left)


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that accepts connections, and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
