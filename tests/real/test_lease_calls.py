"""However a call through a lease ends on a real connection, its place is released."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from grpc.experimental import ChannelOptions

from grpcpool import Lease, isolated
from support.pools import PoolMaker
from support.servers import CHAT, COLLECT, COUNT, ECHO, FAIL, SLOW, Server
from support.waiting import LONG, background, eventually

pytestmark = pytest.mark.timeout(60)


def _refuse(_: object) -> bytes:
    raise TypeError("cannot be serialized")


def _three() -> Iterator[bytes]:
    return iter([b"0", b"1", b"2"])


def _ignored(call: Callable[[], Any]) -> None:
    """Runs a call that must fail."""
    with pytest.raises((grpc.RpcError, grpc.FutureCancelledError)):
        call()


def _cancelled(call: Any) -> None:
    call.cancel()


def _read_half(stream: Any) -> None:
    assert next(iter(stream)) == b"0"


# The stubs have no type for a multicallable without serializers: channels are `Any` here.
_OUTCOMES: dict[str, Callable[[Any], object]] = {
    "unary result": lambda ch: ch.unary_unary(ECHO)(b"a", timeout=LONG),
    "unary with_call": lambda ch: ch.unary_unary(ECHO).with_call(b"a", timeout=LONG),
    "unary error": lambda ch: _ignored(lambda: ch.unary_unary(FAIL)(b"ABORTED", timeout=LONG)),
    "unary deadline": lambda ch: _ignored(lambda: ch.unary_unary(SLOW)(b"300", timeout=0.05)),
    "unary serializer": lambda ch: _ignored(lambda: ch.unary_unary(ECHO, _refuse)(b"", timeout=LONG)),
    "unary deserializer": lambda ch: _ignored(lambda: ch.unary_unary(ECHO, None, _refuse)(b"", timeout=LONG)),
    "future result": lambda ch: ch.unary_unary(ECHO).future(b"a", timeout=LONG).result(),
    "future error": lambda ch: _ignored(ch.unary_unary(FAIL).future(b"ABORTED", timeout=LONG).result),
    "future cancel": lambda ch: _cancelled(ch.unary_unary(SLOW).future(b"300", timeout=LONG)),
    "future deadline": lambda ch: _ignored(ch.unary_unary(SLOW).future(b"300", timeout=0.05).result),
    "future dropped": lambda ch: ch.unary_unary(SLOW).future(b"100", timeout=LONG) and None,
    "stream read": lambda ch: list(ch.unary_stream(COUNT)(b"3,0", timeout=LONG)) and None,
    "stream half read": lambda ch: _read_half(ch.unary_stream(COUNT)(b"1000,5", timeout=LONG)),
    "stream never read": lambda ch: ch.unary_stream(COUNT)(b"1000,5", timeout=LONG) and None,
    "stream cancel": lambda ch: _cancelled(ch.unary_stream(COUNT)(b"1000,5", timeout=LONG)),
    "stream deadline": lambda ch: _ignored(lambda: list(ch.unary_stream(COUNT)(b"1000,5", timeout=0.05))),
    "stream serializer": lambda ch: _ignored(lambda: list(ch.unary_stream(COUNT, _refuse)(b"", timeout=LONG))),
    "collect result": lambda ch: ch.stream_unary(COLLECT)(_three(), timeout=LONG),
    "collect with_call": lambda ch: ch.stream_unary(COLLECT).with_call(_three(), timeout=LONG),
    "collect future": lambda ch: ch.stream_unary(COLLECT).future(_three(), timeout=LONG).result(),
    "collect cancel": lambda ch: _cancelled(ch.stream_unary(COLLECT).future(_three(), timeout=LONG)),
    "chat read": lambda ch: list(ch.stream_stream(CHAT)(_three(), timeout=LONG)) and None,
    "chat half read": lambda ch: _read_half(ch.stream_stream(CHAT)(_three(), timeout=LONG)),
    "chat never read": lambda ch: ch.stream_stream(CHAT)(_three(), timeout=LONG) and None,
    "chat cancel": lambda ch: _cancelled(ch.stream_stream(CHAT)(_three(), timeout=LONG)),
}


@pytest.mark.parametrize("outcome", _OUTCOMES.values(), ids=_OUTCOMES)
def test_released_before_or_after_the_call_its_place_comes_back(
    server: Server, make_pool: PoolMaker, outcome: Callable[[Any], object]
) -> None:
    """Once the call is over and the lease is released, in flight is 0, and the connection can be leased again."""
    pool = make_pool(server.channel, max_size=1)
    for _ in range(2):
        with pool.acquire(timeout=LONG) as lease:
            outcome(lease)
        del lease
        gc.collect()
        eventually(lambda: pool.stats().in_flight == 0)
    assert pool.stats().opened == 1


@pytest.mark.parametrize("kind", ["future", "stream", "collect", "chat", "with_call"])
def test_a_call_that_runs_at_the_release_keeps_the_place(server: Server, make_pool: PoolMaker, kind: str) -> None:
    """A call that runs at the release keeps its place until it ends, and ends normally."""
    pool = make_pool(server.channel, max_size=1)
    lease = pool.acquire()
    channel: Any = lease
    if kind == "future":
        result: Callable[[], Any] = channel.unary_unary(SLOW).future(b"200", timeout=LONG).result
        expected: object = b"200"
    elif kind == "stream":
        stream = channel.unary_stream(COUNT)(b"2,100", timeout=LONG)
        result, expected = (lambda: list(stream)), [b"0", b"1"]
    elif kind == "collect":
        result, expected = channel.stream_unary(COLLECT).future(_three(), timeout=LONG).result, b"0,1,2"
    elif kind == "chat":
        chat = channel.stream_stream(CHAT)(_three(), timeout=LONG)
        result, expected = (lambda: list(chat)), [b"0", b"1", b"2"]
    else:
        running = background(lambda: channel.unary_unary(SLOW).with_call(b"200", timeout=LONG)[0])
        eventually(lambda: lease._calls == 1)
        result, expected = (lambda: running.result(LONG)), b"200"
    lease.release()
    if kind != "collect":  # which may be over by now
        assert pool.stats().in_flight == 1
    assert result() == expected
    eventually(lambda: pool.stats().in_flight == 0)


def test_a_half_read_stream_that_is_dropped_is_cancelled(server: Server, make_pool: PoolMaker) -> None:
    """A dropped half-read stream releases its place long before it would have ended."""
    pool = make_pool(server.channel, max_size=1)
    channel: Any = pool.acquire()
    stream = channel.unary_stream(COUNT)(b"100000,10", timeout=1000)
    assert next(stream) == b"0"
    lease: Lease = channel
    lease.release()
    assert pool.stats().in_flight == 1
    del stream, channel
    gc.collect()
    eventually(lambda: pool.stats().in_flight == 0)


def test_single_threaded_streams_release_their_places(server: Server, make_pool: PoolMaker) -> None:
    """With `SingleThreadedUnaryStream`, a stream releases its place when it is read or dropped."""
    options = isolated([(ChannelOptions.SingleThreadedUnaryStream, 1)])
    pool = make_pool(lambda: grpc.insecure_channel(server.target, options), max_size=1)
    for messages in (3, 1):
        channel: Any = pool.acquire(timeout=LONG)
        stream = channel.unary_stream(COUNT)(b"3,0", timeout=LONG)
        channel.release()
        for _ in range(messages):
            next(stream)
        if messages == 3:
            assert list(stream) == []
        del stream, channel
        gc.collect()
        eventually(lambda: pool.stats().in_flight == 0)
