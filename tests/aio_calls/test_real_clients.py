"""Clients from other projects work on a pool as on a `grpc.aio.Channel`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from google.api_core import exceptions
from google.pubsub_v1 import PubsubMessage
from google.pubsub_v1.services.publisher import PublisherAsyncClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcAsyncIOTransport
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # type: ignore[import-untyped]
from opentelemetry.instrumentation.grpc import GrpcAioInstrumentorClient, aio_client_interceptors
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import grpcpool
from aio_calls.support import Full, World, world
from aio_calls.support_interceptors import Counting, append
from grpcpool import PoolConfig
from grpcpool.aio import ChannelPool
from support.aio_pools import at_rest
from support.aio_ways import STREAM, UNARY, WAYS, Way, each, outcome_of
from support.call_server import CallServer, new_tag
from support.loops import in_loop, settle, until
from support.waiting import LONG

pytestmark = pytest.mark.timeout(60)

SERVING = health_pb2.HealthCheckResponse.SERVING
TOPIC = "projects/p/topics/t"


# --- generated stubs: health and reflection -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def services() -> Iterator[CallServer]:
    """A server with a health and a reflection service."""
    with CallServer("--services") as server:
        yield server


@in_loop
async def test_health_check(services: CallServer) -> None:
    """A generated stub gets the health of services, also while all places are taken."""
    async with world(services) as at:
        pool = await at.pool(max_size=2, max_streams=2)
        stub = health_pb2_grpc.HealthStub(pool)
        request = health_pb2.HealthCheckRequest(service="orders")
        assert (await stub.Check(request, timeout=LONG)).status == SERVING
        answers = await asyncio.gather(*(stub.Check(request, timeout=LONG) for _ in range(50)))
        assert [answer.status for answer in answers] == [SERVING] * 50
        unknown = stub.Check(health_pb2.HealthCheckRequest(service="unknown"), timeout=LONG)
        assert (await outcome_of(unknown))[:2] == ("error", grpc.StatusCode.NOT_FOUND)
        del unknown
        await at_rest(pool)


@in_loop
async def test_health_watch(services: CallServer) -> None:
    """A watch, which never ends by itself, keeps its place until it is cancelled."""
    async with world(services) as at:
        pool = await at.pool()
        watch = health_pb2_grpc.HealthStub(pool).Watch(health_pb2.HealthCheckRequest(service="orders"), timeout=LONG)
        async for response in watch:
            assert response.status == SERVING
            assert pool.stats().in_flight == 1
            watch.cancel()
            break
        await at_rest(pool)


@in_loop
async def test_reflection(services: CallServer) -> None:
    """A stub can ask by a stream of requests, iterated or written, at once and after a wait."""
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    async with world(services) as at:
        pool = await at.pool()
        stub = reflection_pb2_grpc.ServerReflectionStub(pool)
        answers = [answer async for answer in stub.ServerReflectionInfo(each(question, question), timeout=LONG)]
        full = await Full.of(pool)
        talk = stub.ServerReflectionInfo(timeout=LONG)
        asking = asyncio.create_task(talk.write(question))
        await settle(10)
        full.make_room()
        await asking
        answers.append(await talk.read())
        await talk.done_writing()
        assert await talk.read() is grpc.aio.EOF
        names = [[service.name for service in answer.list_services_response.service] for answer in answers]
        assert names == [names[0]] * 3
        assert "grpc.health.v1.Health" in names[0]
        await at_rest(pool)


# --- Google's clients -----------------------------------------------------------------------------------------------


async def _publish(client: Any, number: int) -> list[str]:
    messages = [PubsubMessage(data=str(number).encode())] * 3
    answer = await client.publish(topic=TOPIC, messages=messages, timeout=LONG)
    return list(answer.message_ids)


@in_loop
async def test_a_generated_google_client(calls: CallServer) -> None:
    """The transport uses the pool as its channel; many calls at once go through a few streams."""
    async with world(calls) as at:
        pool = await at.pool(max_size=2, max_streams=2)
        transport: Any = PublisherGrpcAsyncIOTransport(channel=pool)
        client = PublisherAsyncClient(transport=transport)
        # It adds an interceptor of its own.
        assert pool._unary_unary_interceptors
        answers = await asyncio.gather(*(_publish(client, i) for i in range(50)))
        assert answers == [["id-0", "id-1", "id-2"]] * 50
        stats = pool.stats()
        assert stats.acquired == 50
        await at_rest(pool)
        await transport.close()
        assert pool.closed


@in_loop
async def test_a_google_client_whose_server_fails(calls: CallServer) -> None:
    """The client converts errors into its own, as with any channel; its retries are ordinary calls."""
    async with world(calls) as at:
        pool = await at.pool()
        client: Any = PublisherAsyncClient(transport=PublisherGrpcAsyncIOTransport(channel=pool))
        with pytest.raises(exceptions.MethodNotImplemented):
            await client.get_topic(topic=TOPIC, timeout=LONG)
        full = await Full.of(pool)
        with pytest.raises(exceptions.DeadlineExceeded):
            await client.get_topic(topic=TOPIC, timeout=0.1, retry=None)
        full.make_room()
        await at_rest(pool)


# --- OpenTelemetry --------------------------------------------------------------------------------------------------


_Instrumentor: Any = GrpcAioInstrumentorClient
_interceptors: Any = aio_client_interceptors


@pytest.fixture(scope="module")
def exporter() -> tuple[TracerProvider, InMemorySpanExporter]:
    """Where the spans of these tests go."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider, exporter


@pytest.fixture
def spans(exporter: tuple[TracerProvider, InMemorySpanExporter]) -> Iterator[InMemorySpanExporter]:
    """Instruments the client side of asyncio's gRPC; returns the spans since then."""
    provider, finished = exporter
    instrumentor: Any = _Instrumentor()
    instrumentor.instrument(tracer_provider=provider)
    finished.clear()
    yield finished
    instrumentor.uninstrument()


async def _instrumented(at: World, **config: Any) -> ChannelPool:
    """A pool of channels that are made after the instrumentation."""
    config = {"max_size": 1, "max_streams": 1, **config}
    pool: ChannelPool = at.enter(grpcpool.aio.insecure_channel(at.server.target, config=PoolConfig(**config)))
    await pool.open()
    return pool


# GRPC's own intercepted calls accept no requests while OpenTelemetry waits for their end before it returns them.
_TRACED = tuple(way for way in WAYS if not way.writes or way.streams_out)


@pytest.mark.parametrize("wait", [False, True], ids=["at_once", "after_a_wait"])
@pytest.mark.parametrize("way", _TRACED, ids=str)
@in_loop
async def test_one_span_a_call(calls: CallServer, spans: InMemorySpanExporter, way: Way, wait: bool) -> None:
    """Each call over a pool of instrumented channels yields one span, named after its method; the pool adds none."""
    async with world(calls) as at:
        pool = await _instrumented(at)
        for number in (1, 2):
            full = await Full.of(pool)
            if not wait:
                full.make_room()
            using = asyncio.create_task(way.whole(pool))
            await settle(10)
            assert not wait or len(spans.get_finished_spans()) == number - 1
            full.make_room()
            assert await using
            del using
            await until(lambda number=number: len(spans.get_finished_spans()) == number, timeout=5)  # type: ignore[misc]
        assert [span.name for span in spans.get_finished_spans()] == [way.method] * 2
        await at_rest(pool)


@in_loop
async def test_a_span_says_how_the_call_ended(calls: CallServer, spans: InMemorySpanExporter) -> None:
    """The span of a failed call has its status; a call that never got a place has no span."""
    async with world(calls) as at:
        pool = await _instrumented(at)
        assert (await outcome_of(UNARY.whole(pool, "fail")))[:2] == ("error", grpc.StatusCode.PERMISSION_DENIED)
        (span,) = spans.get_finished_spans()
        assert span.attributes is not None
        assert span.attributes["rpc.grpc.status_code"] == grpc.StatusCode.PERMISSION_DENIED.value[0]
        full = await Full.of(pool)
        assert (await outcome_of(UNARY.whole(pool, timeout=0.05)))[0] == "error"
        full.make_room()
        assert len(spans.get_finished_spans()) == 1
        await at_rest(pool)


@in_loop
async def test_spans_belong_to_the_callers(calls: CallServer, spans: InMemorySpanExporter, exporter: Any) -> None:
    """The span of a call that waited is a child of the span in which the call was made."""
    tracer = exporter[0].get_tracer("test")
    async with world(calls) as at:
        pool = await _instrumented(at)
        full = await Full.of(pool)
        with tracer.start_as_current_span("caller") as caller:
            call = UNARY.begin(pool)
        with tracer.start_as_current_span("another span"):
            full.make_room()
            assert await call == b"0"
        (span,) = [span for span in spans.get_finished_spans() if span.name == UNARY.method]
        assert span.parent is not None
        assert span.parent.span_id == caller.get_span_context().span_id
        del call
        await at_rest(pool)


@pytest.mark.parametrize("read", [0, 1])
@in_loop
async def test_instrumented_streams_that_are_dropped(calls: CallServer, spans: InMemorySpanExporter, read: int) -> None:
    """An instrumented stream, unread or half read, releases its place when it is collected."""
    async with world(calls) as at:
        pool = await _instrumented(at)
        tag = new_tag()
        call = STREAM.begin(pool, f"hold:{tag}")
        for _ in range(read):
            assert await anext(aiter(call)) == b"0"
        await at.until_held(tag)
        del call
        await at_rest(pool)
        await at.until_let_go(tag)


@in_loop
async def test_opentelemetrys_interceptors_around_the_pool(calls: CallServer, exporter: Any) -> None:
    """Given to the pool's constructor, the interceptors yield one span for each call, including its wait."""
    provider, finished = exporter
    finished.clear()
    async with world(calls) as at:
        interceptors = _interceptors(tracer_provider=provider)
        config = PoolConfig(max_size=1, max_streams=1)
        pool = at.enter(grpcpool.aio.insecure_channel(calls.target, interceptors=interceptors, config=config))
        for number, way in enumerate(_TRACED, start=1):
            full = await Full.of(pool) if pool.stats().ready else None
            using = asyncio.create_task(way.whole(pool))
            await settle(10)
            if full is not None:
                full.make_room()
            assert await using
            del using
            await until(lambda number=number: len(finished.get_finished_spans()) == number, timeout=5)  # type: ignore[misc]
        assert [span.name for span in finished.get_finished_spans()] == [way.method for way in _TRACED]
        await at_rest(pool)


@in_loop
async def test_uninstrumented_there_are_no_spans(calls: CallServer, exporter: Any) -> None:
    """After uninstrumenting, new connections are plain, like those of `grpc`."""
    provider, finished = exporter
    instrumentor: Any = _Instrumentor()
    instrumentor.instrument(tracer_provider=provider)
    instrumentor.uninstrument()
    finished.clear()
    async with world(calls) as at:
        pool = await _instrumented(at)
        assert await UNARY.whole(pool) == b"0"
        assert finished.get_finished_spans() == ()
        await at_rest(pool)


# --- in place of gRPC's constructor ---------------------------------------------------------------------------------


@in_loop
async def test_a_pool_in_place_of_grpcs_constructor(calls: CallServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `grpcpool.aio.insecure_channel` in place of gRPC's, pools consist of channels, not of pools."""
    counting = Counting()
    monkeypatch.setattr(grpc.aio, "insecure_channel", grpcpool.aio.insecure_channel)
    async with grpc.aio.insecure_channel(calls.target) as pool:
        assert isinstance(pool, ChannelPool)
        append(pool, counting)
        for way in WAYS:
            assert await way.whole(pool)
        assert len(counting.methods) == len(WAYS)
        async with pool.acquire() as lease:
            assert not isinstance(lease._channel.channel, ChannelPool)
        await at_rest(pool)


async def _numbers(count: int) -> AsyncIterator[bytes]:
    for i in range(count):
        yield b"%d" % i


@in_loop
async def test_a_handwritten_stub(calls: CallServer) -> None:
    """A stub class like the generated ones works when made once and used by many tasks."""

    class Stub:
        def __init__(self, channel: grpc.aio.Channel) -> None:
            make: Any = channel
            self.uu = make.unary_unary("/calls.Test/Uu", str.encode, bytes.decode, _registered_method=True)
            self.us = make.unary_stream("/calls.Test/Us", str.encode, bytes.decode, _registered_method=True)
            self.su = make.stream_unary("/calls.Test/Su", None, bytes.decode, _registered_method=True)
            self.ss = make.stream_stream("/calls.Test/Ss", None, bytes.decode, _registered_method=True)

    async def use(stub: Stub, number: int) -> list[Any]:
        return [
            await stub.uu(f"hello {number}", timeout=LONG),
            [each async for each in stub.us(f"hello {number}", timeout=LONG)],
            await stub.su(_numbers(3), timeout=LONG),
            [each async for each in stub.ss(_numbers(1), timeout=LONG)],
        ]

    async with world(calls) as at:
        pool = await at.pool(max_size=2, max_streams=3)
        stub = Stub(pool)
        answers = await asyncio.gather(*(use(stub, i) for i in range(30)))
        assert answers == [[f"hello {i}", [f"hello {i}"], "0", ["0"]] for i in range(30)]
        assert pool.stats().acquired == 120
        await at_rest(pool)


def test_the_instrumentation_is_off() -> None:
    """None of these tests leaves gRPC instrumented."""
    assert grpc.aio.insecure_channel.__module__.startswith("grpc.")
