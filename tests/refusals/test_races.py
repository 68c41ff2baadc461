"""Whether gRPC's thread or the caller's notices a refusal first, the call continues."""

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
from refusals.test_waiting_again import RETURNED_EARLY
from refusals.uses import USES, UU, Use
from support.pools import PoolMaker, Recorder, assert_at_rest
from support.refusing_server import RefusingServer
from support.waiting import LONG, background, eventually
from support.ways import Way

pytestmark = pytest.mark.timeout(120)

ROUNDS = 20


@pytest.fixture
def _eager_switching() -> Iterator[None]:
    """Makes threads switch often."""
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
    """Many calls that are each refused once end as if they had not been."""
    pool = open_pool(single_threaded=use.single_threaded, min_size=2, max_size=2)
    expected = use.whole(plain)
    refusing.begin()
    for _ in range(ROUNDS):
        refusing.refuse(next=1)
        assert use.whole(pool, timeout=15) == expected
        clock.advance(STEP)
    assert_at_rest(pool)
    assert_refused(pool, recorder, ROUNDS)
    assert refusing.report().handled == {use.command: ROUNDS}


# --- what happens between the refusal and the wait for another place -------------------------------------------------


class _Slow(Listener):
    """Blocks when it gets a refusal."""

    def __init__(self) -> None:
        self.told = threading.Event()
        self.go_on = threading.Event()

    def refused_stream(self, event: RefusedStream) -> None:
        self.told.set()
        assert self.go_on.wait(LONG)


@pytest.fixture
def slow() -> Iterator[_Slow]:
    """Blocks gRPC's thread once it has noticed a refusal, until the test continues."""
    slow = _Slow()
    yield slow
    slow.go_on.set()


@pytest.fixture
def pool(refusing: RefusingServer, make_pool: PoolMaker, clock: ManualClock, pauses: None, slow: _Slow) -> ChannelPool:
    """A pool of one connection, to a server that refuses one call, which then pauses."""
    pool = make_pool(refusing.channel, listeners=[slow], max_size=1)
    pool.open()
    refusing.begin(next=1, held=True)
    return pool


@pytest.mark.parametrize("way", RETURNED_EARLY, ids=str)
def test_cancelled_in_between(
    refusing: RefusingServer, pool: ChannelPool, clock: ManualClock, slow: _Slow, way: Way
) -> None:
    """A call can be cancelled while its refusal is being handled."""
    call = way.begin(pool)
    refusing.let_go("refusals")
    assert slow.told.wait(LONG)
    cancelling = background(call.cancel)
    is_cancelled = background(lambda: eventually(call.cancelled))
    # Time enough for a wrong answer: that there is nothing to cancel.
    time.sleep(0.05)
    slow.go_on.set()
    assert cancelling.result(LONG)
    assert is_cancelled.result(LONG)
    assert call.code() is grpc.StatusCode.CANCELLED
    assert_at_rest(pool)
    clock.advance(STEP)
    assert_at_rest(pool)
    assert refusing.report().handled == {}


@pytest.mark.parametrize("way", RETURNED_EARLY, ids=str)
def test_dropped_in_between(
    refusing: RefusingServer, pool: ChannelPool, clock: ManualClock, slow: _Slow, way: Way
) -> None:
    """A call dropped while its refusal is handled is over: its callback is called once; no attempt follows."""
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
    assert refusing.report().handled == {}


@pytest.mark.parametrize("way", RETURNED_EARLY, ids=str)
@pytest.mark.parametrize("ask", ["done", "is_active", "code", "result"])
def test_asked_in_between(
    refusing: RefusingServer, pool: ChannelPool, clock: ManualClock, slow: _Slow, way: Way, ask: str
) -> None:
    """Questions to a call while its refusal is being handled do not show the refusal."""
    call = way.begin(pool, "count:0" if way.streams_out else "ok")
    refusing.let_go("refusals")
    assert slow.told.wait(LONG)
    answer = background(getattr(call, ask))
    # Time enough for a wrong answer: the refusal.
    time.sleep(0.05)
    slow.go_on.set()
    eventually(lambda: pool.stats().waiting == 1)
    clock.advance(STEP)
    result = None if way.streams_out else b"0"
    expected = {"done": False, "is_active": True, "code": grpc.StatusCode.OK, "result": result}
    assert answer.result(LONG) == expected[ask]
    assert_at_rest(pool)


@pytest.mark.parametrize("way", RETURNED_EARLY, ids=str)
def test_closed_in_between(refusing: RefusingServer, pool: ChannelPool, slow: _Slow, way: Way) -> None:
    """If the pool closes while a refusal is being handled, the call fails like one that waits."""
    call = way.begin(pool)
    refusing.let_go("refusals")
    assert slow.told.wait(LONG)
    closing = background(pool.close)
    eventually(lambda: pool.closed)
    slow.go_on.set()
    closing.result(LONG)
    error: Any = call.exception(LONG)
    assert (error.code(), error.details()) == (grpc.StatusCode.CANCELLED, "Channel closed!")


class _Late(grpc.UnaryUnaryClientInterceptor):
    """An interceptor of a channel whose callbacks keep gRPC's thread from reporting the ends of calls."""

    def __init__(self) -> None:
        self.goes_on = threading.Event()

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Adds the callback to the call."""
        call = continuation(client_call_details, request)
        call.add_callback(lambda: self.goes_on.wait(LONG))
        return call


def test_no_callback_is_called_within_a_method_of_its_call(refusing: RefusingServer, make_pool: PoolMaker) -> None:
    """The caller may hold a lock that the callback needs, also if `result()` notices the end before gRPC's thread."""
    late = _Late()
    pool = make_pool(lambda: grpc.intercept_channel(refusing.channel(), late), max_size=1, max_resends=0)
    pool.open()
    refusing.begin(open=0, held=True)
    call = pool.unary_unary(UU).future(b"ok", timeout=LONG)
    called_on: list[threading.Thread] = []
    call.add_done_callback(lambda _: called_on.append(threading.current_thread()))
    refusing.let_go("refusals")
    with pytest.raises(grpc.RpcError, match="error code 7"):
        call.result(LONG)
    late.goes_on.set()
    eventually(lambda: called_on)
    assert threading.current_thread() not in called_on
