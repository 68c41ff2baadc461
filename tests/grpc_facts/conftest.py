"""Fixtures for the tests of what the pool depends on in gRPC."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from grpc_facts.programs import end_template
from grpcpool._grpc import interceptor_chain, missing
from support.call_server import CallServer
from support.refusing_server import RefusingServer


@pytest.fixture(scope="session", autouse=True)
def _template_ends() -> Iterator[None]:
    yield
    end_template()


@pytest.fixture(scope="session")
def _facts_server() -> Iterator[CallServer]:
    with CallServer() as server:
        yield server


@pytest.fixture
def calls(_facts_server: CallServer) -> CallServer:
    """A server that a test does not kill."""
    return _facts_server


@pytest.fixture(scope="session")
def _refusing_facts_server() -> Iterator[RefusingServer]:
    with RefusingServer() as server:
        yield server


@pytest.fixture
def refusing(_refusing_facts_server: RefusingServer) -> RefusingServer:
    """A server that refuses nothing unless a test says so."""
    _refusing_facts_server.begin()
    return _refusing_facts_server


@pytest.fixture(autouse=True)
def _nothing_warned_of() -> Iterator[None]:
    """Each test looks for missing names, and warns about them, as if it were the first."""
    missing.warned.clear()
    yield
    missing.warned.clear()
    interceptor_chain._chains.cache_clear()
