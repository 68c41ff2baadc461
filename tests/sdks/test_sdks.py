"""150 calls at once of real SDKs: over their own channels on one connection, over pools on several, and none fails."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from typing import Any

import pytest

from components.etcd import Etcd
from components.programs import Program
from examples.programs import Watch
from sdks.clients import CALLS, CONFIG, CONFIG_OF_QUICK
from support.programs import run_python
from support.servers import forked_server

pytestmark = pytest.mark.timeout(120)

_RUN = "import sys; from sdks.clients import main; main(*sys.argv[1:])"


def run(name: str, way: str, target: str) -> dict[str, Any]:
    """Runs a client; returns what it printed."""
    with Watch(target) as watch:
        # What the SDKs warn of is not of interest here.
        done = run_python(_RUN, name, way, target, options=("-W", "ignore"), environment={"GRPC_VERBOSITY": "NONE"})
    watch.wait_until_nothing_is_left()
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


class MilvusLite(Program):
    """Milvus in its small form, a server in Python."""

    name = "python"

    def __init__(self) -> None:
        """Does not start it yet."""
        super().__init__()
        self._path = sys.executable

    def command(self) -> list[str]:
        """Its data are in its folder."""
        return ["-m", "milvus_lite", "server", "--data-dir=data", "--host=127.0.0.1", f"--port={self.port}"]


@pytest.mark.parametrize(
    ("name", "module", "program"),
    [
        ("etcd", "pyetcd", Etcd),
        ("etcd_aio", "aetcd", Etcd),
        ("milvus", "pymilvus", MilvusLite),
        ("milvus_aio", "pymilvus", MilvusLite),
    ],
)
def test_real_server(name: str, module: str, program: type[Program]) -> None:
    """So it is with real servers. These answer at once, so the pool has a minimum of connections, which it uses."""
    if find_spec(module) is None or (program is MilvusLite and find_spec("milvus_lite") is None):
        pytest.skip(f"{module}, or its server, is not installed")
    with program() as server:
        plain = run(name, "plain", server.target)
        report = run(name, "patched", server.target)
    assert plain["connections"] == 1
    assert report["errors"] == []
    assert report["done"] == CALLS
    assert CONFIG_OF_QUICK.min_size <= report["connections"] <= CONFIG_OF_QUICK.max_size


@pytest.mark.parametrize(
    ("name", "module", "way"),
    [
        ("otlp", "opentelemetry.exporter.otlp.proto.grpc", "patched"),
        ("qdrant", "qdrant_client", "patched"),
        ("qdrant_aio", "qdrant_client", "patched"),
        ("triton", "tritonclient.grpc", "patched"),
        ("triton_aio", "tritonclient.grpc", "patched"),
        ("pubsub", "google.pubsub_v1", "channel"),
        ("pubsub", "google.pubsub_v1", "patched"),
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
        plain = run(name, "plain", f"127.0.0.1:{port}")
        report = run(name, way, f"127.0.0.1:{port}")
    assert plain["connections"] == 1
    assert report["errors"] == []
    assert report["done"] == CALLS
    assert 2 <= report["connections"] <= CONFIG.max_size
