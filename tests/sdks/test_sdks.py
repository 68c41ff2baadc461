"""150 calls at once of real SDKs: over their own channels on one connection, over pools on several, and none fails."""

from __future__ import annotations

import json
from typing import Any

import pytest

from examples.programs import Watch
from sdks.clients import CALLS, CONFIG
from support.programs import run_python
from support.servers import forked_server

pytestmark = pytest.mark.timeout(120)

_RUN = "import sys; from sdks.clients import main; main(*sys.argv[1:])"


def run(name: str, way: str, target: str) -> tuple[dict[str, Any], list[int]]:
    """Runs a client; returns what it printed, and the most connections of each process that had any."""
    with Watch(target) as watch:
        # What the SDKs warn of is not of interest here.
        done = run_python(_RUN, name, way, target, options=("-W", "ignore"), environment={"GRPC_VERBOSITY": "NONE"})
    watch.wait_until_nothing_is_left()
    return json.loads(done.stdout.splitlines()[-1]), list(watch.most.values())


@pytest.mark.parametrize(
    ("name", "module", "way"),
    [
        ("otlp", "opentelemetry.exporter.otlp.proto.grpc", "patched"),
        ("qdrant", "qdrant_client", "patched"),
        ("qdrant_aio", "qdrant_client", "patched"),
        ("triton", "tritonclient.grpc", "patched"),
        ("triton_aio", "tritonclient.grpc", "patched"),
        ("pubsub", "google.pubsub_v1", "channel"),
        ("pubsub_pull", "google.pubsub_v1", "channel"),
        ("firestore", "google.cloud.firestore_v1", "patched"),
        ("firestore_aio", "google.cloud.firestore_v1", "patched"),
    ],
)
def test_sdk(name: str, module: str, way: str) -> None:
    """The SDK's own channels have one connection, the pool has several, on which all calls are completed."""
    pytest.importorskip(module)
    server = name.removesuffix("_aio").removesuffix("_pull")
    with forked_server("sdks.answering_server", server) as port:
        _, plain = run(name, "plain", f"127.0.0.1:{port}")
        report, pooled = run(name, way, f"127.0.0.1:{port}")
    assert plain == [1]
    assert report["errors"] == []
    assert report["done"] == CALLS
    (connections,) = pooled
    assert 2 <= connections <= CONFIG.max_size
