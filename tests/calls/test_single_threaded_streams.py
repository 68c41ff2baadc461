"""Streams of channels with the option `SingleThreadedUnaryStream`, which only their reader watches.

Google's libraries set the option. gRPC itself (1.60 to 1.85.3) leaves the connection of such a stream open until the
process ends if the stream is dropped early or cancelled, or if its reader has not taken all of its events; a pool does
not.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

import grpc
import pytest
from grpc.experimental import ChannelOptions

import grpcpool
from grpcpool import ChannelPool, PoolConfig
from grpcpool._grpc.left_events import take_when_dropped
from support.call_server import CallServer, new_tag
from support.connections import assert_no_connections
from support.pools import assert_at_rest
from support.signals import RaisesAt, TimeLimitError
from support.waiting import LONG, background, eventually
from support.ways import WAYS

pytestmark = pytest.mark.timeout(60)

OPTIONS = [(ChannelOptions.SingleThreadedUnaryStream, 1)]
STREAM = next(way for way in WAYS if way.maker == "unary_stream")


@pytest.fixture
def single_threaded(calls: CallServer) -> Iterator[ChannelPool]:
    """A pool with one place, over channels with the option; afterwards no connection is left."""
    config = PoolConfig(max_size=1, max_streams=1)
    with grpcpool.insecure_channel(calls.target, OPTIONS, config=config) as pool:
        pool.open()
        yield pool
        assert_at_rest(pool)


def test_the_option_selects_grpcs_other_class(single_threaded: ChannelPool) -> None:
    """The option gives calls of gRPC's other class; if gRPC renames it, the pool must learn the new name."""
    assert type(STREAM.begin(single_threaded)._stage.native).__name__ == "_SingleThreadedRendezvous"


def test_read(single_threaded: ChannelPool) -> None:
    """A stream read to its end releases its place, although it is still held; so does one that fails."""
    for _ in range(3):
        call = STREAM.begin(single_threaded)
        assert list(call) == [b"0", b"1", b"2"]
        assert single_threaded.stats().in_flight == 0
        failing = STREAM.begin(single_threaded, "fail")
        with pytest.raises(grpc.RpcError):
            list(failing)
        assert single_threaded.stats().in_flight == 0


@pytest.mark.parametrize("read", [0, 1])
def test_dropped(calls: CallServer, single_threaded: ChannelPool, read: int) -> None:
    """A stream dropped unread, or half read, releases its place and ends on the server."""
    tag = new_tag()
    call = STREAM.begin(single_threaded, f"hold:{tag}")
    for _ in range(read):
        assert next(call) == b"0"
    calls.wait_until_held(tag)
    assert single_threaded.stats().in_flight == 1
    del call
    gc.collect()
    eventually(lambda: single_threaded.stats().in_flight == 0, timeout=5)
    calls.wait_until_let_go(tag)


@pytest.mark.parametrize("then", ["iterated", "dropped"])
@pytest.mark.parametrize("read", [0, 1])
def test_cancelled(calls: CallServer, single_threaded: ChannelPool, read: int, then: str) -> None:
    """A cancelled stream releases its place when it is iterated again, or dropped."""
    tag = new_tag()
    call = STREAM.begin(single_threaded, f"hold:{tag}")
    for _ in range(read):
        assert next(call) == b"0"
    call.cancel()
    calls.wait_until_let_go(tag)
    if then == "iterated":
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert caught.value.code() is grpc.StatusCode.CANCELLED
    else:
        del call
        gc.collect()
    eventually(lambda: single_threaded.stats().in_flight == 0, timeout=5)


def test_after_a_wait(single_threaded: ChannelPool) -> None:
    """A stream that had to wait for its place can be read, and then releases the place."""
    with single_threaded.acquire():
        call = STREAM.begin(single_threaded)
        reading = background(lambda: list(call))
        eventually(lambda: single_threaded.stats().waiting == 1)
    assert reading.result(LONG) == [b"0", b"1", b"2"]
    eventually(lambda: single_threaded.stats().in_flight == 0, timeout=5)


def test_needs_no_thread(single_threaded: ChannelPool) -> None:
    """Under a pool, too, a stream with this option uses no thread of gRPC's."""
    before = set(threading.enumerate())
    call = STREAM.begin(single_threaded)
    assert next(call) == b"0"
    assert set(threading.enumerate()) <= before
    assert list(call) == [b"1", b"2"]


# --- what is left of the connection of one that ends early ------------------------------------------------------------


def _dropped(channel: grpc.Channel) -> None:
    assert next(STREAM.begin(channel, f"hold:{new_tag()}")) == b"0"


def _dropped_unread(channel: grpc.Channel) -> None:
    STREAM.begin(channel, f"hold:{new_tag()}")


def _cancelled(channel: grpc.Channel) -> None:
    call = STREAM.begin(channel, f"hold:{new_tag()}")
    assert next(call) == b"0"
    assert call.cancel()


def _cancelled_and_read(channel: grpc.Channel) -> None:
    call = STREAM.begin(channel, f"hold:{new_tag()}")
    assert call.cancel()
    with pytest.raises(grpc.RpcError, match="CANCELLED"):
        list(call)


def _out_of_time(channel: grpc.Channel) -> None:
    call = STREAM.begin(channel, f"hold:{new_tag()}", timeout=0.05)
    assert next(call) == b"0"
    with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
        next(call)


def _unreadable(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError, match="Exception deserializing response!"):
        next(STREAM.begin(channel, f"hold:{new_tag()}", deserializer=_raise))


def _in_a_cycle(channel: grpc.Channel) -> None:
    call = STREAM.begin(channel, f"hold:{new_tag()}")
    call.add_done_callback(lambda _: call)
    assert next(call) == b"0"


def _raise(value: Any) -> NoReturn:
    raise ArithmeticError("a deserializer failed, as the test wants")


_ENDS = (_dropped, _dropped_unread, _cancelled, _cancelled_and_read, _out_of_time, _unreadable, _in_a_cycle)


@pytest.mark.parametrize("end", _ENDS)
@pytest.mark.parametrize("leased", [False, True], ids=["pool", "lease"])
def test_no_connection_is_left(
    calls: CallServer, single_threaded: ChannelPool, end: Callable[[grpc.Channel], None], leased: bool
) -> None:
    """However the stream ends, its place is free, and the close of the pool closes its connection."""
    if leased:
        with single_threaded.acquire() as lease:
            end(lease)
    else:
        end(single_threaded)
    assert_at_rest(single_threaded)
    single_threaded.close()
    assert_no_connections(calls.port)


@pytest.mark.parametrize("read", [0, 1])
def test_dropped_after_the_close(calls: CallServer, single_threaded: ChannelPool, read: int) -> None:
    """Nor is it left when the stream is dropped later than that."""
    call = STREAM.begin(single_threaded, f"hold:{new_tag()}")
    for _ in range(read):
        assert next(call) == b"0"
    single_threaded.close()
    del call
    assert_no_connections(calls.port)


@pytest.mark.parametrize("leased", [False, True], ids=["pool", "lease"])
def test_dropped_after_the_close_with_the_pool(calls: CallServer, leased: bool) -> None:
    """Nor is anything left of its pool."""
    pool = grpcpool.insecure_channel(calls.target, OPTIONS)
    channel = pool.acquire() if leased else pool
    call = STREAM.begin(channel, f"hold:{new_tag()}")
    assert next(call) == b"0"
    if isinstance(channel, grpcpool.Lease):
        channel.release()
    pool.close()
    gone = weakref.ref(pool)
    del channel, call, pool
    eventually(lambda: gc.collect() >= 0 and gone() is None, timeout=5)


def _locks_channel(frame: FrameType) -> bool:
    """Whether gRPC, which has got an event, locks the channel to take note of it."""
    within = frame.f_back
    locks = frame.f_code is threading.Condition.__enter__.__code__
    return locks and within is not None and within.f_code.co_name == "_consume_next_event"


def test_dropped_when_an_event_has_been_lost(calls: CallServer, single_threaded: ChannelPool) -> None:
    """A stream that gRPC never frees, because a signal handler raised within gRPC, keeps no other from being taken."""
    with CallServer() as server, grpc.insecure_channel(server.target, OPTIONS) as channel:
        lost = STREAM.begin(channel)
        take_when_dropped(lost)
        handler = RaisesAt(1, _locks_channel)
        sys.setprofile(handler)
        with contextlib.suppress(TimeLimitError):
            next(lost)
        assert handler.raised
        del lost
        _dropped(single_threaded)
        single_threaded.close()
        assert_no_connections(calls.port)


def test_many_dropped_at_once(calls: CallServer) -> None:
    """Of many streams that are dropped at once, none keeps a connection."""
    with grpcpool.insecure_channel(calls.target, OPTIONS, config=PoolConfig(max_size=2)) as pool:
        held = [STREAM.begin(pool, f"hold:{new_tag()}") for _ in range(100)]
        for call in held:
            assert next(call) == b"0"
        del call
        held.clear()
        assert_at_rest(pool)
    assert_no_connections(calls.port)
