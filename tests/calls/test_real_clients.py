"""Clients from other projects work on a pool as on a channel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.cloud import pubsub_v1  # type: ignore[import-untyped]
from google.pubsub_v1 import PubsubMessage
from google.pubsub_v1.services.publisher import PublisherClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (  # type: ignore[import-untyped]
    ProtoReflectionDescriptorDatabase,
)
from opentelemetry import trace
from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import grpcpool
from grpcpool import ChannelPool, PoolConfig
from support.call_server import UU, CallServer
from support.pools import PoolMaker, assert_at_rest
from support.waiting import LONG, background, eventually, together
from support.ways import WAYS, Way

pytestmark = pytest.mark.timeout(60)


# --- health and reflection ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def services() -> Iterator[CallServer]:
    """A server with a health and a reflection service."""
    with CallServer("--services") as server:
        yield server


@pytest.fixture
def pool(services: CallServer, make_pool: PoolMaker) -> Iterator[ChannelPool]:
    """A small pool over it; afterwards it is at rest."""
    made = make_pool(services.channel, max_size=2, max_streams=2)
    yield made
    assert_at_rest(made)


def test_health_check(pool: ChannelPool) -> None:
    """A generated stub gets the health of services, directly and as a future, also while all places are taken."""
    stub = health_pb2_grpc.HealthStub(pool)
    request = health_pb2.HealthCheckRequest(service="orders")
    serving = health_pb2.HealthCheckResponse.SERVING
    assert stub.Check(request, timeout=LONG).status == serving
    futures = [stub.Check.future(request, timeout=LONG) for _ in range(50)]
    assert all(future.result().status == serving for future in futures)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="unknown"), timeout=LONG)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_health_watch(pool: ChannelPool) -> None:
    """A watch, which never ends by itself, keeps its place until it is cancelled."""
    stub = health_pb2_grpc.HealthStub(pool)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="orders"), timeout=LONG)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    assert pool.stats().in_flight == 1
    watch.cancel()


def test_reflection(pool: ChannelPool) -> None:
    """The descriptor database, which asks by a stream of requests, finds services and files."""
    database = ProtoReflectionDescriptorDatabase(pool)
    assert "grpc.health.v1.Health" in set(database.get_services())
    file = database.FindFileContainingSymbol("grpc.health.v1.Health")
    assert database.FindFileByName(file.name) == file
    with pytest.raises(KeyError):
        database.FindFileByName("unknown.proto")


# --- Google's clients -----------------------------------------------------------------------------------------------

TOPIC = "projects/p/topics/t"


def test_a_generated_google_client(calls: CallServer, make_pool: PoolMaker) -> None:
    """The transport uses the pool as its channel, and many threads publish at once through a few streams."""
    pool = make_pool(calls.channel, max_size=2, max_streams=2)
    with PublisherClient(transport=PublisherGrpcTransport(channel=pool)) as client:
        answers = together(
            20, lambda i: client.publish(topic=TOPIC, messages=[PubsubMessage(data=str(i).encode())] * 3, timeout=LONG)
        )
        assert [list(answer.message_ids) for answer in answers] == [["id-0", "id-1", "id-2"]] * 20
        assert_at_rest(pool)
    assert pool.closed


def test_the_publisher_that_batches(calls: CallServer, make_pool: PoolMaker) -> None:
    """The high-level client, with its own batches, threads and retries, publishes through a pool."""
    pool = make_pool(calls.channel, max_size=2, max_streams=2)
    settings: Any = pubsub_v1.types.BatchSettings(max_messages=10)
    client: Any = pubsub_v1.PublisherClient(batch_settings=settings, transport=PublisherGrpcTransport(channel=pool))
    futures = [client.publish(TOPIC, str(i).encode()) for i in range(20)]
    assert {"id-0", "id-1"} <= {future.result(LONG) for future in futures}
    assert_at_rest(pool)
    client.stop()


_Instrumentor: Any = GrpcInstrumentorClient


# --- OpenTelemetry --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def exporter() -> InMemorySpanExporter:
    """Where all spans go; there is one provider per process, because the instrumentation accepts no second one."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Iterator[InMemorySpanExporter]:
    """Instruments the client side of gRPC; returns the spans since then."""
    instrumentor: Any = _Instrumentor()
    instrumentor.instrument()
    exporter.clear()
    yield exporter
    instrumentor.uninstrument()


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_one_span_a_call(calls: CallServer, spans: InMemorySpanExporter, way: Way) -> None:
    """Each call over a pool of instrumented channels yields one span, named after its method; the pool adds none."""
    with grpcpool.insecure_channel(calls.target, config=PoolConfig(max_size=2, max_streams=1)) as pool:
        pool.open()
        for number in (1, 2, 3):
            assert background(lambda: way.finish(way.begin(pool))).result(5)
            eventually(lambda number=number: len(spans.get_finished_spans()) >= number, timeout=5)  # type: ignore[misc]
        assert [span.name for span in spans.get_finished_spans()] == [way.method] * 3
        assert_at_rest(pool)


def test_one_span_for_a_call_that_waits(calls: CallServer, spans: InMemorySpanExporter) -> None:
    """A call that waits for its place has its one span when it runs."""
    with grpcpool.insecure_channel(calls.target, config=PoolConfig(max_size=1, max_streams=1)) as pool:
        multicallable: Any = pool.unary_unary(UU)
        with pool.acquire():
            call = multicallable.future(b"ok", timeout=LONG)
            assert spans.get_finished_spans() == ()
        assert call.result() == b"0"
        eventually(lambda: len(spans.get_finished_spans()) == 1, timeout=5)
        assert_at_rest(pool)


def test_uninstrumented_there_are_no_spans(calls: CallServer, exporter: InMemorySpanExporter) -> None:
    """After uninstrumenting, new connections are plain, like those of `grpc`."""
    instrumentor: Any = _Instrumentor()
    instrumentor.instrument()
    instrumentor.uninstrument()
    exporter.clear()
    with grpcpool.insecure_channel(calls.target) as pool:
        assert WAYS[0].begin(pool) == b"0"
        assert exporter.get_finished_spans() == ()
