"""However a call ends, its place is released once, and its caller sees what plain gRPC shows.

Each way of calling (four kinds, in all their forms) is brought to each possible end: once with a place at once, once
after waiting for a place, and, for comparison, on gRPC's own channel.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import grpc
import pytest

from grpcpool import ChannelPool, PoolClosedError, PoolTimeoutError
from support.call_server import UU, CallServer, new_tag
from support.pools import PoolMaker, assert_at_rest
from support.waiting import background, eventually
from support.ways import NOT_BLOCKING, WAYS, Way, outcome_of

pytestmark = pytest.mark.timeout(60)

Outcome = tuple[Any, ...]
Ending = Callable[[CallServer, grpc.Channel, Way], Outcome]


# --- how a call can end; each function runs on a pool and on gRPC's own channel -------------------------------------


def _ok(calls: CallServer, channel: grpc.Channel, way: Way) -> Outcome:
    return outcome_of(lambda: way.finish(way.begin(channel)))


def _status_error(calls: CallServer, channel: grpc.Channel, way: Way) -> Outcome:
    return outcome_of(lambda: way.finish(way.begin(channel, "fail")))


def _unknown_method(calls: CallServer, channel: grpc.Channel, way: Way) -> Outcome:
    return outcome_of(lambda: way.finish(way.begin(channel, method="/calls.Test/Nothing")))


def _deadline(calls: CallServer, channel: grpc.Channel, way: Way) -> Outcome:
    tag = new_tag()
    outcome = outcome_of(lambda: way.finish(way.begin(channel, f"hold:{tag}", timeout=0.15)))
    calls.wait_until_let_go(tag)
    # The text differs between two deadlines of gRPC's own: "Stream removed (Deadline Exceeded)".
    return outcome[:2]


def _raise(value: Any) -> NoReturn:
    raise ArithmeticError("a codec failed, as the test wants")


def _serializer_raises(calls: CallServer, channel: grpc.Channel, way: Way) -> Outcome:
    called: list[object] = []

    def serializer(request: object) -> bytes:
        called.append(request)
        return _raise(request)

    return (*outcome_of(lambda: way.finish(way.begin(channel, serializer=serializer))), called)


def _deserializer_raises(calls: CallServer, channel: grpc.Channel, way: Way) -> Outcome:
    return outcome_of(lambda: way.finish(way.begin(channel, deserializer=_raise, timeout=None)))


def _bad_requests(*, first: int) -> Iterator[bytes]:
    yield from itertools.repeat(b"ok", first)
    raise ArithmeticError("a request iterator failed, as the test wants")


def _requests_raise_at_once(calls: CallServer, channel: grpc.Channel, way: Way) -> Outcome:
    return outcome_of(lambda: way.finish(way.begin(channel, requests=_bad_requests(first=0))))


def _cancelled_while_running(calls: CallServer, channel: grpc.Channel, way: Way) -> Outcome:
    tag = new_tag()
    call = way.begin(channel, f"hold:{tag}")
    calls.wait_until_held(tag)
    assert call.cancel()
    calls.wait_until_let_go(tag)
    return (outcome_of(lambda: way.finish(call)), call.code(), call.cancelled(), call.done())


def _dropped_unread(calls: CallServer, channel: grpc.Channel, way: Way) -> Outcome:
    tag = new_tag()
    call = way.begin(channel, f"hold:{tag}")
    calls.wait_until_held(tag)
    del call
    calls.wait_until_let_go(tag)
    return ()


def _dropped_half_read(calls: CallServer, channel: grpc.Channel, way: Way) -> Outcome:
    tag = new_tag()
    call = way.begin(channel, f"hold:{tag}")
    first = next(call)
    calls.wait_until_held(tag)
    del call
    calls.wait_until_let_go(tag)
    return (first,)


def _dropped_when_answered(calls: CallServer, channel: grpc.Channel, way: Way) -> Outcome:
    call = way.begin(channel)
    return tuple(call.initial_metadata())


def _closed_meanwhile(calls: CallServer, channel: grpc.Channel, way: Way) -> Outcome:
    tag = new_tag()
    begun = threading.Event()

    def run() -> Any:
        call = way.begin(channel, f"hold:{tag}")
        if way.streams_out:
            next(call)  # before its first response a stream ends with other details, on gRPC's own channel as well
            begun.set()
        return way.finish(call)

    running = background(lambda: outcome_of(run))
    calls.wait_until_held(tag)
    assert not way.streams_out or begun.wait(20)
    channel.close()
    return running.result(20)


_STREAMS_IN = tuple(way for way in WAYS if way.streams_in)
_STREAMS_OUT = tuple(way for way in WAYS if way.streams_out)

_ENDINGS: dict[Ending, tuple[Way, ...]] = {
    _ok: WAYS,
    _status_error: WAYS,
    _unknown_method: WAYS,
    _deadline: WAYS,
    _serializer_raises: WAYS,
    _deserializer_raises: WAYS,
    _requests_raise_at_once: _STREAMS_IN,
    _cancelled_while_running: NOT_BLOCKING,
    _dropped_unread: NOT_BLOCKING,
    _dropped_half_read: _STREAMS_OUT,
    _dropped_when_answered: NOT_BLOCKING,
    _closed_meanwhile: WAYS,
}
_PRODUCT = [
    pytest.param(ending, way, id=f"{ending.__name__.strip('_')}-{way}")
    for ending, ways in _ENDINGS.items()
    for way in ways
]
# A request that cannot be serialized is refused at once, as by gRPC, before it waits for a place.
_WAITING = [
    each
    for each in _PRODUCT
    if each.values[0] is not _serializer_raises or each.values[1] not in NOT_BLOCKING or each.values[1] in _STREAMS_IN
]


@contextmanager
def _crowded(pool: ChannelPool) -> Iterator[None]:
    """The pool's one place is taken until a call waits for it."""
    multicallable: Any = pool.unary_unary(UU)
    blocker = multicallable.future(f"hold:{new_tag()}".encode(), timeout=20)

    def make_room() -> None:
        eventually(lambda: pool.stats().waiting == 1)
        blocker.cancel()

    making = background(make_room)
    try:
        yield
    finally:
        blocker.cancel()
    making.result(20)


@pytest.fixture
def expected(plain_server: CallServer, plain: grpc.Channel, ending: Ending, way: Way) -> Outcome:
    """How the call ends on gRPC's own channel."""
    return ending(plain_server, plain, way)


@pytest.mark.parametrize(("ending", "way"), _PRODUCT)
def test_with_a_place_at_once(
    calls: CallServer, single: ChannelPool, expected: Outcome, ending: Ending, way: Way
) -> None:
    """With a place at once, the call ends as on gRPC's own channel, and its place is released."""
    assert ending(calls, single, way) == expected
    assert_at_rest(single)
    assert single.stats().acquired == 1


@pytest.mark.parametrize(("ending", "way"), _WAITING)
def test_after_a_wait(calls: CallServer, single: ChannelPool, expected: Outcome, ending: Ending, way: Way) -> None:
    """After a wait for its place, the call ends as on gRPC's own channel, and its place is released."""
    with _crowded(single):
        assert ending(calls, single, way) == expected
    assert_at_rest(single)
    assert single.stats().waited == 1


# --- ends that only a waiting call can have -------------------------------------------------------------------------


@pytest.fixture
def full(calls: CallServer, single: ChannelPool) -> Iterator[ChannelPool]:
    """A pool whose one place is taken; afterwards the place is free and nothing waits."""
    multicallable: Any = single.unary_unary(UU)
    blocker = multicallable.future(f"hold:{new_tag()}".encode(), timeout=60)
    yield single
    assert single.stats().waiting == 0
    blocker.cancel()
    assert_at_rest(single)


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
def test_cancelled_before_its_start(plain: grpc.Channel, full: ChannelPool, way: Way) -> None:
    """A call cancelled while it waits leaves the queue, and looks as if it had been cancelled later."""
    running = way.begin(plain, f"hold:{new_tag()}")
    waiting = way.begin(full)
    assert full.stats().waiting == 1
    for call in (running, waiting):
        assert call.cancel()
        assert call.cancelled()
        assert call.done()
        assert call.code() is grpc.StatusCode.CANCELLED
    assert outcome_of(lambda: way.finish(waiting)) == outcome_of(lambda: way.finish(running))
    assert waiting.details() == running.details()
    assert full.stats().waiting == 0
    assert full.stats().acquired == 1


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_deadline_while_it_waits(plain_server: CallServer, plain: grpc.Channel, full: ChannelPool, way: Way) -> None:
    """The call fails like one whose deadline passes on a server; its cause is the pool's error."""
    expected = _deadline(plain_server, plain, way)
    with pytest.raises(grpc.RpcError) as caught:
        way.finish(way.begin(full, timeout=0.05))
    error: Any = caught.value
    assert ("error", error.code()) == expected
    assert error.details() == "Deadline Exceeded"
    assert isinstance(error.__cause__, PoolTimeoutError)
    assert full.stats().timeouts == 1


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
def test_dropped_while_it_waits(full: ChannelPool, way: Way) -> None:
    """A waiting call that is dropped leaves the queue."""
    call = way.begin(full)
    assert full.stats().waiting == 1
    del call
    eventually(lambda: full.stats().waiting == 0)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_closed_while_it_waits(full: ChannelPool, way: Way) -> None:
    """The call fails `CANCELLED`, like calls that gRPC's own close finds running; the cause says that it waited."""
    waiting = background(lambda: way.finish(way.begin(full)))
    eventually(lambda: full.stats().waiting == 1)
    full.close()
    error: Any = waiting.exception(20)
    assert isinstance(error, grpc.RpcError)
    assert error.code() is grpc.StatusCode.CANCELLED
    assert error.details() == "Channel closed!"
    assert isinstance(error.__cause__, PoolClosedError)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_server_killed_meanwhile(make_pool: PoolMaker, way: Way) -> None:
    """A running call and a waiting one both fail `UNAVAILABLE` soon; their places are released."""
    with CallServer() as mortal:
        pool = make_pool(mortal.channel, max_size=1, max_streams=1)
        tag = new_tag()
        running = background(lambda: way.finish(way.begin(pool, f"hold:{tag}")))
        mortal.wait_until_held(tag)
        waiting = background(lambda: way.finish(way.begin(pool)))
        eventually(lambda: pool.stats().waiting == 1)
        mortal.kill()
        for call in (running, waiting):
            error: Any = call.exception(10)
            assert isinstance(error, grpc.RpcError)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert_at_rest(pool)
