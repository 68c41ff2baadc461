"""A refused call on asyncio sends the second time what it would have sent the first time."""

from __future__ import annotations

import asyncio
import contextvars
import json
from typing import Any

import grpc
import pytest

import grpcpool.aio
from grpcpool import PoolConfig, isolated
from grpcpool.testing import ManualClock
from refusals.test_calls import STEP
from support.aio_pools import at_rest, pool_over
from support.aio_ways import WAYS, Way
from support.loops import in_loop, until
from support.refusing_server import RefusingServer
from support.waiting import LONG

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("pauses")]

ONE_REQUEST = tuple(way for way in WAYS if not way.streams_in)
EACH_WAY = pytest.mark.parametrize("way", ONE_REQUEST, ids=str)
# With interceptors, gRPC's old releases do not report what `read` returns at the end.
WAYS_OF_INTERCEPTORS = pytest.mark.parametrize("way", [way for way in ONE_REQUEST if way.takes != "read"], ids=str)

_WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


def _text(answer: Any) -> str:
    """The first response of an answer of any kind."""
    first = answer[0] if isinstance(answer, list) else answer
    return bytes(first).decode()


def _headers(answer: Any) -> dict[str, str]:
    return dict(json.loads(_text(answer)))


@pytest.mark.parametrize("kind", ["iterator", "list", "Metadata"])
@EACH_WAY
@in_loop
async def test_metadata(refusing: RefusingServer, clock: ManualClock, way: Way, kind: str) -> None:
    """Metadata is sent again as it was at first, whatever form it was given in."""
    entries = [("color", "green"), ("size", "9")]
    given: Any = {"iterator": iter(entries), "list": entries, "Metadata": grpc.aio.Metadata(*entries)}[kind]
    async with pool_over(refusing.aio_channel, max_size=1) as pool:
        await pool.open()
        refusing.begin(next=1)
        call = way.begin(pool, "metadata", metadata=given)
        await until(lambda: pool.stats().waiting == 1)
        entries[0] = ("color", "red")
        if kind == "Metadata":
            given["color"] = "red"
        clock.advance(STEP)
        headers = _headers(await way.take(call))
        assert (headers["color"], headers["size"]) == ("green", "9")


@EACH_WAY
@in_loop
async def test_a_request_that_is_changed_meanwhile(refusing: RefusingServer, clock: ManualClock, way: Way) -> None:
    """As with gRPC's own calls, a change of the request after it was sent has no effect."""
    async with pool_over(refusing.aio_channel, max_size=1) as pool:
        await pool.open()
        refusing.begin(next=2)
        request = {"text": "the one"}
        multicallable: Any = getattr(pool, way.maker)(way.method, lambda request: request["text"].encode())
        call = multicallable(request, timeout=LONG)
        for text in ("another", "yet another"):
            await until(lambda: pool.stats().waiting == 1)
            request["text"] = text
            clock.advance(STEP)
        assert _text(await way.take(call)) == "the one"
        assert refusing.report().handled == {"the one": 1}


class _IntroducesUnary(grpc.aio.UnaryUnaryClientInterceptor):
    """Adds the caller's name to the metadata, and counts."""

    def __init__(self) -> None:
        self.seen = 0

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        self.seen += 1
        return await continuation(_introduced(client_call_details), request)


class _IntroducesStream(grpc.aio.UnaryStreamClientInterceptor):
    """Same as `_IntroducesUnary`, for streams of responses."""

    def __init__(self) -> None:
        self.seen = 0

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        self.seen += 1
        return await continuation(_introduced(client_call_details), request)


def _introduced(details: Any) -> Any:
    metadata = grpc.aio.Metadata(*(details.metadata or ()), ("who", _WHO.get()))
    return details._replace(metadata=metadata)


def _interceptors() -> list[Any]:
    return [_IntroducesUnary(), _IntroducesStream()]


@WAYS_OF_INTERCEPTORS
@in_loop
async def test_the_context_is_that_of_the_call(refusing: RefusingServer, clock: ManualClock, way: Way) -> None:
    """An interceptor in the factory's channels, run for each attempt, sees the caller's context variables."""
    interceptors = _interceptors()

    def factory() -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(refusing.target, isolated(), interceptors=interceptors)

    async with pool_over(factory, max_size=1) as pool:
        await pool.open()
        refusing.begin(next=1)
        _WHO.set("the caller")
        call = way.begin(pool, "metadata")
        _WHO.set("another caller")
        # For streams the reading task runs them.
        answer = await _answer(pool, clock, way, call)
        assert _headers(answer)["who"] == "the caller"
        assert sum(each.seen for each in interceptors) == 2
        await at_rest(pool)


async def _answer(pool: Any, clock: ManualClock, way: Way, call: Any) -> Any:
    task = asyncio.create_task(way.take(call))
    await until(lambda: pool.stats().waiting == 1)
    clock.advance(STEP)
    return await task


@WAYS_OF_INTERCEPTORS
@in_loop
async def test_an_interceptor_of_the_pools_sees_one_call(
    refusing: RefusingServer, clock: ManualClock, way: Way
) -> None:
    """An interceptor around the pool sees no refusals."""
    interceptors = _interceptors()
    config = PoolConfig(max_size=1)
    async with grpcpool.aio.insecure_channel(refusing.target, config=config, interceptors=interceptors) as pool:
        await pool.open()
        refusing.begin(next=1)
        call = way.begin(pool, "metadata")
        assert _headers(await _answer(pool, clock, way, call))["who"] == "nobody"
        assert sum(each.seen for each in interceptors) == 1
        assert pool.stats().refused_streams == 1
        await at_rest(pool)


@EACH_WAY
@in_loop
async def test_a_custom_codec(refusing: RefusingServer, way: Way) -> None:
    """The answer has gone through the call's own serializer and deserializer."""
    async with pool_over(refusing.aio_channel, min_size=2, max_size=2) as pool:
        await pool.open()
        refusing.begin(next=1)
        call = way.begin(pool, "hello", serializer=lambda text: text[::-1], deserializer=lambda text: text.upper())
        assert _text(await way.take(call)) == "OLLEH"


@EACH_WAY
@in_loop
async def test_what_is_left_of_the_deadline(refusing: RefusingServer, clock: ManualClock, way: Way) -> None:
    """A call that is sent again has the rest of its time, not all of it."""
    async with pool_over(refusing.aio_channel, max_size=1) as pool:
        await pool.open()
        refusing.begin(next=1)
        call = way.begin(pool, "metadata", timeout=20)
        await until(lambda: pool.stats().waiting == 1)
        clock.advance(12.0)
        text = _headers(await way.take(call))["grpc-timeout"]
        left = int(text[:-1]) * {"S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}[text[-1]]
        # gRPC rounds up.
        assert 7 < left < 8.1
