"""A stream that failed for its reader releases its place, although the reader holds it and the server would go on.

gRPC keeps a stream open after its deserializer raised. If its place were taken as long, it might be taken for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import grpc
import pytest
from grpc.experimental import ChannelOptions

from grpcpool import ChannelPool, isolated
from grpcpool._grpc.failed_streams import reference
from support.call_server import SS, US, CallServer, new_tag
from support.pools import PoolMaker
from support.waiting import background, eventually
from support.ways import Way

pytestmark = pytest.mark.timeout(60)

_WAYS = (Way("unary_stream", "__call__", US), Way("stream_stream", "__call__", SS))


def _raise(value: Any) -> NoReturn:
    raise ArithmeticError("a deserializer failed, as the test wants")


def _fail_to_read(calls: CallServer, channel: grpc.Channel, way: Way, *callbacks: Callable[[Any], None]) -> Any:
    """Returns a call whose first message could not be read, after the server has noticed its end."""
    tag = new_tag()
    call = way.begin(channel, f"hold:{tag}", deserializer=_raise, timeout=None)
    for callback in callbacks:
        call.add_done_callback(callback)
    with pytest.raises(grpc.RpcError, match="Exception deserializing response!"):
        next(call)
    calls.wait_until_let_go(tag)
    assert call.code() is grpc.StatusCode.INTERNAL
    assert not call.cancelled()
    return call


@pytest.mark.parametrize("way", _WAYS, ids=str)
def test_its_place_comes_back(calls: CallServer, single: ChannelPool, way: Way) -> None:
    """The place is free although the call is held, and the next call takes it."""
    held = _fail_to_read(calls, single, way)
    eventually(lambda: single.stats().in_flight == 0)
    assert way.finish(way.begin(single))
    assert "_MultiThreadedRendezvous" in repr(held)


@pytest.mark.parametrize("way", _WAYS, ids=str)
def test_its_done_callbacks_are_called(calls: CallServer, single: ChannelPool, way: Way) -> None:
    """Its done-callback is called, and does not keep the place."""
    told: list[Any] = []
    held = _fail_to_read(calls, single, way, told.append)
    eventually(lambda: told == [held])
    assert single.stats().in_flight == 0


@pytest.mark.parametrize("way", _WAYS, ids=str)
def test_after_a_wait(calls: CallServer, single: ChannelPool, way: Way) -> None:
    """The same holds for a call that waited for its place, also if it was read before it got one."""
    lease = single.acquire(streams=1)
    reading = background(lambda: _fail_to_read(calls, single, way))
    eventually(lambda: single.stats().waiting == 1)
    lease.release()
    held = reading.result(20)
    eventually(lambda: single.stats().in_flight == 0)
    assert held.done()


@pytest.mark.parametrize("way", _WAYS, ids=str)
def test_on_a_lease(calls: CallServer, single: ChannelPool, way: Way) -> None:
    """The slot of a released lease is free, although the failed call is held."""
    with single.acquire() as lease:
        held = _fail_to_read(calls, lease, way)
    eventually(lambda: single.stats().in_flight == 0)
    assert held.done()


def test_read_by_its_reader_alone(calls: CallServer, make_pool: PoolMaker) -> None:
    """The same holds with `SingleThreadedUnaryStream`, where only the reader notices the end."""
    options = isolated([(ChannelOptions.SingleThreadedUnaryStream, 1)])
    pool = make_pool(lambda: grpc.insecure_channel(calls.target, options), max_size=1)
    told: list[Any] = []
    held = _fail_to_read(calls, pool, _WAYS[0], told.append)
    eventually(lambda: told == [held])
    assert pool.stats().in_flight == 0


@pytest.mark.parametrize("way", _WAYS, ids=str)
def test_nothing_is_left_to_do_for_a_stream_that_is_over(calls: CallServer, plain: grpc.Channel, way: Way) -> None:
    """One that is dropped wakes a thread, to be cancelled, only if it is not over."""
    woken: list[Any] = []
    for command, expected in (("ok", 0), (f"hold:{new_tag()}", 1)):
        call = way.begin(plain, command)
        known = reference(call, woken.append)
        assert next(call) == b"0"
        if not expected:
            assert list(call) == [b"1", b"2"]
        del call
        eventually(lambda: known() is None)  # noqa: B023 -- called within this turn
        assert len(woken) == expected
