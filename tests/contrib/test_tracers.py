"""With the pool's constructors in the place of gRPC's, and tracers, each call has one span of each tracer.

Each test runs in a process of its own: what stood in gRPC's place, and when, is known to the process.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator

import pytest

from support.call_server import CERTIFICATE, CallServer
from support.programs import started_python

pytestmark = pytest.mark.timeout(120)

BOTH_WORLDS = pytest.mark.parametrize("world", ["sync", "aio"])

Spans = Callable[..., list[tuple[int, int]]]


@pytest.fixture(scope="module")
def server() -> Iterator[CallServer]:
    """A server without TLS."""
    with CallServer() as server:
        yield server


@pytest.fixture(scope="module")
def program() -> Iterator[subprocess.Popen[str]]:
    """The program that forks a process for each task."""
    with started_python("-m", "contrib.traced_program") as program:
        yield program


@pytest.fixture
def spans(program: subprocess.Popen[str], server: CallServer, world: str) -> Spans:
    """Does the steps; returns, for each channel, OpenTelemetry's spans of two calls, and those of another tracer."""

    def run(steps: str, kind: str = "insecure", target: str = server.target) -> list[tuple[int, int]]:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.write(json.dumps([world, kind, target, *steps.split()]) + "\n")
        program.stdin.flush()
        code, written = json.loads(program.stdout.readline())
        assert code == 0, written
        return [(otel, other) for _, otel, other in json.loads(written)]

    return run


@BOTH_WORLDS
@pytest.mark.parametrize(
    "steps",
    [
        "trace make pool",
        "trace replace make pool",
        "replace trace make pool",
        # A pool from before the tracer connects after it.
        "replace make trace make pool",
        "replace trace replace make pool",
        "trace pool replace pool make",
    ],
)
def test_one_span_a_call(spans: Spans, steps: str) -> None:
    """In whatever order they are applied, and by whichever name the pool is created, each call has one span."""
    counted = spans(steps)
    assert counted == [(2, 0)] * (steps.count("make") + steps.count("pool"))


@BOTH_WORLDS
@pytest.mark.parametrize(
    "steps",
    [
        "trace patch make pool",
        "patch trace make pool",
        "patch trace patch make pool",
        "trace patch unpatch make pool",
        "patch trace unpatch make pool",
    ],
)
def test_one_span_a_call_under_a_patch(spans: Spans, steps: str) -> None:
    """So it is under `patched`, also after that is taken back, and with the pool's own constructors."""
    assert spans(steps) == [(2, 0)] * 2


@BOTH_WORLDS
@pytest.mark.parametrize(
    "steps", ["trace wrap patch make pool", "trace patch wrap make pool", "patch trace wrap make pool"]
)
def test_two_tracers_under_a_patch(spans: Spans, steps: str) -> None:
    """Each of two tracers counts each call once, on whichever sides of the patch they are."""
    assert spans(steps) == [(2, 2)] * 2


@BOTH_WORLDS
def test_one_span_a_call_over_tls(spans: Spans) -> None:
    """So it is with the constructors that take credentials."""
    with CallServer(f"--certificate={CERTIFICATE}") as server:
        for steps in ("trace replace make pool", "replace trace make pool", "trace patch make pool"):
            assert spans(steps, "secure", f"localhost:{server.port}") == [(2, 0)] * 2


@BOTH_WORLDS
@pytest.mark.parametrize(
    "steps",
    [
        "trace wrap replace make pool",
        "trace replace wrap make pool",
        "wrap replace trace make pool",
        "replace trace wrap make pool",
    ],
)
def test_two_tracers(spans: Spans, steps: str) -> None:
    """Each of two tracers counts each call once, on whichever sides of the pool they are."""
    assert spans(steps) == [(2, 2)] * 2


@BOTH_WORLDS
def test_no_tracer(spans: Spans) -> None:
    """The replacement alone adds no span, nor does a tracer that was removed before it."""
    assert spans("replace make pool") == [(0, 0)] * 2
    assert spans("trace untrace replace make pool") == [(0, 0)] * 2
