"""Whoever of gRPC's threads and the caller's is the first to hear of a refusal, the call goes on."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from grpcpool import ChannelPool, Listener
from grpcpool.events import RefusedStream
from grpcpool.testing import ManualClock
from refusals.conftest import PoolOpener
from refusals.test_calls import STEP, assert_refused
from refusals.test_waiting_again import HANDED_OUT
from refusals.uses import USES, Use
from support.pools import PoolMaker, Recorder, assert_at_rest
from support.refusing_server import RefusingServer
from support.waiting import LONG, background, eventually
from support.ways import Way

pytestmark = pytest.mark.timeout(120)

ROUNDS = 20


@pytest.fixture
def _eager_switching() -> Iterator[None]:
    """Threads take turns often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_eager_switching")
@pytest.mark.parametrize("use", USES, ids=str)
def test_again_and_again(
    refusing: RefusingServer,
    plain: grpc.Channel,
    open_pool: PoolOpener,
    recorder: Recorder,
    clock: ManualClock,
    use: Use,
) -> None:
    """Of many calls that are all refused once, each ends as if it had not been."""
    pool = open_pool(single_threaded=use.single_threaded, min_size=2, max_size=2)
    expected = use.whole(plain)
    refusing.begin()
    for _ in range(ROUNDS):
        refusing.refuse(next=1)
        assert use.whole(pool, timeout=15) == expected
        clock.advance(STEP)
    assert_at_rest(pool)
    assert_refused(pool, recorder, ROUNDS)
    assert refusing.told().handled == {use.command: ROUNDS}


# --- what happens between the refusal and the wait for another place -------------------------------------------------


class _Slow(Listener):
    """Is told of a refusal, and takes its time."""

    def __init__(self) -> None:
        self.told = threading.Event()
        self.go_on = threading.Event()

    def refused_stream(self, event: RefusedStream) -> None:
        self.told.set()
        assert self.go_on.wait(LONG)


@pytest.fixture
def slow() -> Iterator[_Slow]:
    """Holds up gRPC's thread when that has heard of a refusal, until the test goes on."""
    slow = _Slow()
    yield slow
    slow.go_on.set()


@pytest.fixture
def pool(refusing: RefusingServer, make_pool: PoolMaker, clock: ManualClock, slow: _Slow) -> ChannelPool:
    """A pool of one connection, to a server that refuses one call."""
    pool = make_pool(refusing.channel, listeners=[slow], max_size=1)
    pool.open()
    refusing.begin(next=1, held=True)
    return pool


@pytest.mark.parametrize("way", HANDED_OUT, ids=str)
def test_cancelled_in_between(
    refusing: RefusingServer, pool: ChannelPool, clock: ManualClock, slow: _Slow, way: Way
) -> None:
    """A call that is not over yet can be cancelled, also in the moment in which its refusal is being dealt with."""
    call = way.begin(pool)
    refusing.let_go("refusals")
    assert slow.told.wait(LONG)
    cancelling = background(call.cancel)
    is_cancelled = background(lambda: eventually(call.cancelled))
    # Time enough for it to be told that there is nothing to cancel, should that be its opinion.
    time.sleep(0.05)
    slow.go_on.set()
    assert cancelling.result(LONG)
    assert is_cancelled.result(LONG)
    assert call.code() is grpc.StatusCode.CANCELLED
    assert_at_rest(pool)
    clock.advance(STEP)
    assert_at_rest(pool)
    assert refusing.told().handled == {}


@pytest.mark.parametrize("way", HANDED_OUT, ids=str)
def test_dropped_in_between(
    refusing: RefusingServer, pool: ChannelPool, clock: ManualClock, slow: _Slow, way: Way
) -> None:
    """A call that is dropped in that moment is over: its callback is called, once, and it is not begun again."""
    called: list[str] = []
    call = way.begin(pool)
    call.add_callback(lambda: called.append("over"))
    refusing.let_go("refusals")
    assert slow.told.wait(LONG)
    del call
    slow.go_on.set()
    eventually(lambda: called)
    assert_at_rest(pool)
    clock.advance(STEP)
    assert_at_rest(pool)
    assert called == ["over"]
    assert refusing.told().handled == {}


@pytest.mark.parametrize("way", HANDED_OUT, ids=str)
@pytest.mark.parametrize("ask", ["done", "is_active", "code", "result"])
def test_asked_in_between(
    refusing: RefusingServer, pool: ChannelPool, clock: ManualClock, slow: _Slow, way: Way, ask: str
) -> None:
    """Whoever asks in that moment is not told of the refusal."""
    call = way.begin(pool, "count:0" if way.streams_out else "ok")
    refusing.let_go("refusals")
    assert slow.told.wait(LONG)
    answer = background(getattr(call, ask))
    # Time enough for it to be answered with the refusal, should that be so.
    time.sleep(0.05)
    slow.go_on.set()
    eventually(lambda: pool.stats().waiting == 1)
    clock.advance(STEP)
    result = None if way.streams_out else b"0"
    expected = {"done": False, "is_active": True, "code": grpc.StatusCode.OK, "result": result}
    assert answer.result(LONG) == expected[ask]
    assert_at_rest(pool)


@pytest.mark.parametrize("way", HANDED_OUT, ids=str)
def test_closed_in_between(refusing: RefusingServer, pool: ChannelPool, slow: _Slow, way: Way) -> None:
    """The pool is closed in that moment: the call fails as one that close finds waiting."""
    call = way.begin(pool)
    refusing.let_go("refusals")
    assert slow.told.wait(LONG)
    closing = background(pool.close)
    eventually(lambda: pool.closed)
    slow.go_on.set()
    closing.result(LONG)
    error: Any = call.exception(LONG)
    assert (error.code(), error.details()) == (grpc.StatusCode.CANCELLED, "Channel closed!")
