"""Programs with real SDKs that make many calls at once; run by `test_sdks`, which counts their connections.

``python -m sdks.clients NAME WAY TARGET``: with ``plain`` as the way, the SDK's channels are gRPC's; with ``patched``,
they are pools under `grpcpool.patched`; with ``channel``, the SDK takes a pool as an argument.

The output, as JSON, is how many calls were completed, the errors of the others, how many seconds all took, and on how
many connections.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpcpool
from support.connections import connections_to

CALLS = 150
CONFIG = grpcpool.PoolConfig(max_size=4)
# etcd and Milvus answer at once, so that few calls are in flight.
CONFIG_OF_QUICK = grpcpool.PoolConfig(min_size=3, max_size=4)
QUICK = ("etcd", "etcd_aio", "milvus", "milvus_aio")

Call = Callable[[], Any]
_PATIENCE = 10


@contextlib.contextmanager
def otlp(target: str, way: str) -> Iterator[Call]:
    """OpenTelemetry's exporter of spans."""
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 -- one of many
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 -- as above
    from opentelemetry.sdk.trace.export import SpanExportResult  # noqa: PLC0415

    span: Any = TracerProvider().get_tracer("test").start_span("test")
    span.end()
    exporter = OTLPSpanExporter(endpoint=target, insecure=True)

    def call() -> None:
        assert exporter.export([span]) is SpanExportResult.SUCCESS

    yield call
    exporter.shutdown()


@contextlib.contextmanager
def qdrant(target: str, way: str) -> Iterator[Call]:
    """Qdrant's client."""
    from qdrant_client import QdrantClient  # noqa: PLC0415

    port = int(target.rpartition(":")[2])
    client = QdrantClient("127.0.0.1", grpc_port=port, prefer_grpc=True, check_compatibility=False)

    def call() -> None:
        assert client.count("orders").count == 7

    yield call
    client.close()


@contextlib.asynccontextmanager
async def qdrant_aio(target: str, way: str) -> AsyncIterator[Call]:
    """Qdrant's asyncio client."""
    from qdrant_client import AsyncQdrantClient  # noqa: PLC0415

    port = int(target.rpartition(":")[2])
    client = AsyncQdrantClient("127.0.0.1", grpc_port=port, prefer_grpc=True, check_compatibility=False)

    async def call() -> None:
        assert (await client.count("orders")).count == 7

    yield call
    await client.close()


def _triton_input(module: Any) -> Any:
    import numpy as np  # noqa: PLC0415

    given = module.InferInput("x", [1], "INT32")
    given.set_data_from_numpy(np.array([7], dtype=np.int32))
    return given


@contextlib.contextmanager
def triton(target: str, way: str) -> Iterator[Call]:
    """Triton's client."""
    import tritonclient.grpc as module  # noqa: PLC0415

    client, given = module.InferenceServerClient(target), _triton_input(module)

    def call() -> None:
        assert client.infer("doubler", [given]).as_numpy("y").tolist() == [14]

    yield call
    client.close()


@contextlib.asynccontextmanager
async def triton_aio(target: str, way: str) -> AsyncIterator[Call]:
    """Triton's asyncio client."""
    import tritonclient.grpc as inputs  # noqa: PLC0415
    import tritonclient.grpc.aio as module  # noqa: PLC0415

    client, given = module.InferenceServerClient(target), _triton_input(inputs)

    async def call() -> None:
        assert (await client.infer("doubler", [given])).as_numpy("y").tolist() == [14]

    yield call
    await client.close()


@contextlib.contextmanager
def _google_channel(target: str, way: str) -> Iterator[Any]:
    """A channel for a transport of Google's: a pool, or one of gRPC's."""
    import grpc  # noqa: PLC0415

    if way == "channel":
        with grpcpool.insecure_channel(target, config=CONFIG) as pool:
            yield pool
    else:
        with grpc.insecure_channel(target) as channel:
            yield channel


@contextlib.contextmanager
def pubsub(target: str, way: str) -> Iterator[Call]:
    """Publishes to Google Pub/Sub."""
    from google.pubsub_v1 import PublisherClient, PubsubMessage  # noqa: PLC0415
    from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport  # noqa: PLC0415

    with _google_channel(target, way) as channel:
        client = PublisherClient(transport=PublisherGrpcTransport(channel=channel))

        def call() -> None:
            topic, messages = "projects/shop/topics/orders", [PubsubMessage(data=b"1")]
            assert client.publish(topic=topic, messages=messages, timeout=_PATIENCE).message_ids == ["7"]

        yield call


@contextlib.contextmanager
def pubsub_pull(target: str, way: str) -> Iterator[Call]:
    """Streams from Google Pub/Sub, which stay open."""
    from google.pubsub_v1 import StreamingPullRequest, SubscriberClient  # noqa: PLC0415
    from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport  # noqa: PLC0415

    streams = []
    with _google_channel(target, way) as channel:
        client = SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))

        def call() -> None:
            request = StreamingPullRequest(subscription="projects/shop/subscriptions/orders")
            stream: Any = client.streaming_pull(iter([request]), timeout=_PATIENCE)
            (message,) = next(stream).received_messages
            assert message.message.data == b"order"
            streams.append(stream)

        yield call
        for stream in streams:
            stream.cancel()


@contextlib.asynccontextmanager
async def firestore_aio(target: str, way: str) -> AsyncIterator[Call]:
    """Google Firestore's asyncio client."""
    os.environ["FIRESTORE_EMULATOR_HOST"] = target
    from google.cloud.firestore import AsyncClient  # noqa: PLC0415

    client = AsyncClient(project="shop")

    async def call() -> None:
        assert (await client.document("orders/1").get()).to_dict() == {"number": 7}

    yield call
    client.close()


@contextlib.contextmanager
def firestore(target: str, way: str) -> Iterator[Call]:
    """Google Firestore's client."""
    os.environ["FIRESTORE_EMULATOR_HOST"] = target
    from google.cloud.firestore import Client  # noqa: PLC0415

    client = Client(project="shop")

    def call() -> None:
        assert client.document("orders/1").get().to_dict() == {"number": 7}

    yield call
    client.close()


@contextlib.contextmanager
def etcd(target: str, way: str) -> Iterator[Call]:
    """A client of etcd, etcd-sdk-python."""
    import pyetcd  # noqa: PLC0415

    client = pyetcd.client(port=int(target.rpartition(":")[2]))
    client.put("order", "7")

    def call() -> None:
        value, _ = client.get("order")
        assert value == b"7"

    yield call
    client.close()


@contextlib.asynccontextmanager
async def etcd_aio(target: str, way: str) -> AsyncIterator[Call]:
    """A client of etcd, aetcd. It has a name of its own for gRPC's constructor."""
    import aetcd  # noqa: PLC0415

    client = aetcd.Client(port=int(target.rpartition(":")[2]))
    await client.put(b"order", b"7")

    async def call() -> None:
        assert (await client.get(b"order")).value == b"7"

    yield call
    await client.close()


@contextlib.contextmanager
def milvus(target: str, way: str) -> Iterator[Call]:
    """Milvus's client."""
    from pymilvus import MilvusClient  # noqa: PLC0415

    client = MilvusClient(f"http://{target}")

    def call() -> None:
        assert client.list_collections() == []

    yield call
    client.close()


@contextlib.asynccontextmanager
async def milvus_aio(target: str, way: str) -> AsyncIterator[Call]:
    """Milvus's asyncio client."""
    from pymilvus import AsyncMilvusClient  # noqa: PLC0415

    client = AsyncMilvusClient(f"http://{target}")

    async def call() -> None:
        assert await client.list_collections() == []

    yield call
    await client.close()


def _run(work: Any, target: str) -> dict[str, Any]:
    with work as call, ThreadPoolExecutor(CALLS) as threads:
        began = time.monotonic()
        futures = [threads.submit(call) for _ in range(CALLS)]
        errors = [repr(error) for future in futures if (error := future.exception())]
        return _report(errors, began, target)


async def _run_aio(work: Any, target: str) -> dict[str, Any]:
    async with work as call:
        began = time.monotonic()
        results = await asyncio.gather(*(call() for _ in range(CALLS)), return_exceptions=True)
        return _report([repr(result) for result in results if isinstance(result, BaseException)], began, target)


def _report(errors: list[str], began: float, target: str) -> dict[str, Any]:
    return {
        "done": CALLS - len(errors),
        "errors": collections.Counter(errors).most_common(3),
        "seconds": round(time.monotonic() - began, 2),
        "connections": connections_to(int(target.rpartition(":")[2])),
    }


def main(name: str, way: str, target: str) -> None:
    """Makes the calls, and prints what has come of them."""
    work: Callable[[str, str], Any] = globals()[name]
    config = CONFIG_OF_QUICK if name in QUICK else CONFIG
    with grpcpool.patched(config) if way == "patched" else contextlib.nullcontext():
        if name.endswith("_aio"):

            async def run() -> dict[str, Any]:
                return await _run_aio(work(target, way), target)

            report = asyncio.run(run())
        else:
            report = _run(work(target, way), target)
    print(json.dumps(report))  # noqa: T201 -- the output


if __name__ == "__main__":
    main(*sys.argv[1:])
