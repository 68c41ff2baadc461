"""`xds:///`: a control plane reports where the servers are, and gRPC balances over them in each channel of a pool."""

from __future__ import annotations

import json
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from addresses import xds_stories
from addresses.fleet import Servers, running
from support.control_plane import ControlPlane
from support.programs import started_python

pytest.importorskip("envoy", reason="the control plane needs xds-protos")

pytestmark = pytest.mark.timeout(90)

_MOST = 4


@pytest.fixture(scope="module")
def _servers() -> Iterator[Servers]:
    with running(_MOST) as servers:
        yield servers


@pytest.fixture(scope="module", params=["threads", "asyncio"])
def program(request: pytest.FixtureRequest, _servers: Servers) -> Iterator[subprocess.Popen[str]]:
    """The program that has the pools, in each world in turn."""
    servers = json.dumps({server.target: str(server.pid) for server in _servers})
    with (
        ControlPlane() as plane,
        started_python(
            str(pathlib.Path(xds_stories.__file__)),
            request.param,
            plane.target,
            servers,
            environment=plane.environment,
        ) as program,
    ):
        yield program


@pytest.mark.parametrize("story", [story.__name__ for story in xds_stories.STORIES])
def test_xds(program: subprocess.Popen[str], story: str) -> None:
    """The docstring of each story states what it tests."""
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write(f"{story}\n")
    program.stdin.flush()
    answer = program.stdout.readline()
    assert answer, "the program has ended"
    error = json.loads(answer)
    assert error is None, error
