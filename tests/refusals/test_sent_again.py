"""A refused call sends the second time what it would have sent the first time."""

from __future__ import annotations

import contextvars
import json
from typing import Any

import grpc
import pytest

from grpcpool import isolated
from grpcpool.testing import ManualClock
from refusals.conftest import PoolOpener
from refusals.test_calls import STEP
from refusals.test_waiting_again import ONE_REQUEST, RETURNED_EARLY
from support.pools import PoolMaker, assert_at_rest
from support.refusing_server import RefusingServer
from support.waiting import LONG, background, eventually
from support.ways import Way

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("pauses")]

_WHO: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


def _text(answer: Any) -> str:
    """The first response of an answer of any kind."""
    first = answer[0] if isinstance(answer, tuple | list) else answer
    return bytes(first).decode()


def _headers(answer: Any) -> dict[str, str]:
    return dict(json.loads(_text(answer)))


@pytest.mark.parametrize("way", ONE_REQUEST, ids=str)
def test_metadata_that_can_be_read_once(refusing: RefusingServer, open_pool: PoolOpener, way: Way) -> None:
    """Metadata given as an iterator is sent whole each time."""
    pool = open_pool(min_size=2, max_size=2)
    refusing.begin(next=1)
    metadata = iter((("color", "green"), ("size", "9")))
    headers = _headers(way.finish(way.begin(pool, "metadata", metadata=metadata)))
    assert (headers["color"], headers["size"]) == ("green", "9")
    assert refusing.report().all.refused == 1


@pytest.mark.parametrize("way", RETURNED_EARLY, ids=str)
def test_metadata_that_is_changed_meanwhile(
    refusing: RefusingServer, open_pool: PoolOpener, clock: ManualClock, way: Way
) -> None:
    """As with gRPC's own calls, a change of the metadata after the call was made has no effect."""
    pool = open_pool(max_size=1)
    refusing.begin(next=1)
    metadata = [("color", "green")]
    call = way.begin(pool, "metadata", metadata=metadata)
    eventually(lambda: pool.stats().waiting == 1)
    metadata[0] = ("color", "red")
    clock.advance(STEP)
    assert _headers(way.finish(call))["color"] == "green"


@pytest.mark.parametrize("way", RETURNED_EARLY, ids=str)
def test_a_request_that_is_changed_meanwhile(
    refusing: RefusingServer, open_pool: PoolOpener, clock: ManualClock, way: Way
) -> None:
    """As with gRPC's own calls, a change of the request after the call was made has no effect."""
    pool = open_pool(max_size=1)
    refusing.begin(next=1)
    request = {"text": "the one"}
    multicallable: Any = getattr(pool, way.maker)(way.method, lambda request: request["text"].encode())
    call = getattr(multicallable, way.how)(request, timeout=LONG)
    eventually(lambda: pool.stats().waiting == 1)
    request["text"] = "another"
    clock.advance(STEP)
    assert _text(way.finish(call)) == "the one"
    assert refusing.report().handled == {"the one": 1}


class _Introduces(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Adds the caller's name to the metadata, and counts."""

    def __init__(self) -> None:
        self.seen = 0

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        self.seen += 1
        metadata = (*(client_call_details.metadata or ()), ("who", _WHO.get()))
        return continuation(_With(client_call_details, metadata), request)

    intercept_unary_stream = intercept_unary_unary


class _With(grpc.ClientCallDetails):
    """A call's details with other metadata."""

    def __init__(self, details: Any, metadata: tuple[tuple[str, str], ...]) -> None:
        for name in ("method", "timeout", "credentials", "wait_for_ready", "compression"):
            setattr(self, name, getattr(details, name))
        self.metadata = metadata


@pytest.mark.parametrize("way", ONE_REQUEST, ids=str)
def test_the_context_is_that_of_the_call(
    refusing: RefusingServer, make_pool: PoolMaker, clock: ManualClock, way: Way
) -> None:
    """An interceptor in the factory's channels, run for each attempt, sees the caller's context variables."""
    interceptor = _Introduces()
    pool = make_pool(
        lambda: grpc.intercept_channel(grpc.insecure_channel(refusing.target, isolated()), interceptor), max_size=1
    )
    pool.open()
    refusing.begin(next=1)

    def begin() -> Any:
        _WHO.set("the caller")
        begun = way.begin(pool, "metadata")
        _WHO.set("another caller")
        return begun

    begun = background(lambda: contextvars.copy_context().run(begin))
    eventually(lambda: pool.stats().waiting == 1)
    clock.advance(STEP)
    assert _headers(way.finish(begun.result(20)))["who"] == "the caller"
    assert interceptor.seen == 2


@pytest.mark.parametrize("way", ONE_REQUEST, ids=str)
def test_an_interceptor_around_the_pool_sees_one_call(
    refusing: RefusingServer, open_pool: PoolOpener, way: Way
) -> None:
    """An interceptor around the pool sees no refusals."""
    interceptor = _Introduces()
    pool = open_pool(min_size=2, max_size=2)
    channel = grpc.intercept_channel(pool, interceptor)
    refusing.begin(next=1)
    assert _headers(way.finish(way.begin(channel, "metadata")))["who"] == "nobody"
    assert interceptor.seen == 1
    assert pool.stats().refused_streams == 1
    assert_at_rest(pool)


@pytest.mark.parametrize("way", ONE_REQUEST, ids=str)
def test_a_custom_codec(refusing: RefusingServer, open_pool: PoolOpener, way: Way) -> None:
    """The answer has gone through the call's own serializer and deserializer."""
    pool = open_pool(min_size=2, max_size=2)
    refusing.begin(next=1)
    begun = way.begin(pool, "hello", serializer=lambda text: text[::-1], deserializer=lambda text: text.upper())
    answer = way.finish(begun)
    assert _text(answer) == "OLLEH"
