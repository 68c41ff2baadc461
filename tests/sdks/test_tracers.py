"""Under Sentry, ddtrace and OpenTelemetry, with pools in the place of gRPC's channels, each call has one span of each.

`contrib.test_tracers` has more about OpenTelemetry alone.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator

import pytest

from contrib.test_tracers import BOTH_WORLDS
from support.call_server import CallServer
from support.programs import started_python

pytestmark = pytest.mark.timeout(120)

Spans = Callable[[str], list[list[int]]]

TRACERS = {"sentry": "sentry_sdk", "ddtrace": "ddtrace"}


@pytest.fixture(scope="module")
def server() -> Iterator[CallServer]:
    """A server."""
    with CallServer() as server:
        yield server


@pytest.fixture(scope="module")
def program() -> Iterator[subprocess.Popen[str]]:
    """The program that forks a process for each task."""
    with started_python("-W", "ignore", "-m", "sdks.traced_program") as program:
        yield program


@pytest.fixture
def spans(program: subprocess.Popen[str], server: CallServer, world: str) -> Spans:
    """Does the steps; returns, for each channel, the spans of two calls: OpenTelemetry's, and those of each tracer."""

    def run(steps: str) -> list[list[int]]:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.write(json.dumps([world, "insecure", server.target, *steps.split()]) + "\n")
        program.stdin.flush()
        code, written = json.loads(program.stdout.readline())
        assert code == 0, written
        return [counts for _, *counts in json.loads(written)]

    return run


@BOTH_WORLDS
@pytest.mark.parametrize("how", ["patch", "replace"])
@pytest.mark.parametrize("tracer", TRACERS)
def test_one_span_a_call(spans: Spans, tracer: str, how: str) -> None:
    """In whatever order they are applied, and by whichever name the pool is created, each call has one span."""
    pytest.importorskip(TRACERS[tracer])
    for steps in (f"{tracer} {how} make pool", f"{how} {tracer} make pool", f"{how} {tracer} {how} make pool"):
        assert spans(steps) == [[0, 2]] * 2, steps


@BOTH_WORLDS
def test_several_tracers(spans: Spans) -> None:
    """Each of three tracers counts each call once, and also after a patch among them is taken back."""
    for module in TRACERS.values():
        pytest.importorskip(module)
    for steps in (
        "trace sentry ddtrace patch make pool",
        "patch trace sentry ddtrace make pool",
        "trace patch sentry ddtrace make pool",
        "trace replace sentry ddtrace make pool",
        "sentry patch trace ddtrace unpatch make pool",
    ):
        assert spans(steps) == [[2, 2, 2]] * 2, steps
