"""A refused call that waits for a place again is as complete as one that waits for its first place.

The server refuses everything, and the clock stands still: the call pauses until the test continues. It is alone, so
the connection's limit stays.
"""

from __future__ import annotations

import contextlib
import gc
import json
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from grpcpool import ChannelPool, PoolClosedError, PoolTimeoutError
from grpcpool.testing import ManualClock
from refusals.conftest import PoolOpener
from refusals.test_calls import STEP
from support.pools import PoolMaker, assert_at_rest
from support.refusing_server import RefusingServer
from support.waiting import LONG, background, eventually
from support.ways import NOT_BLOCKING, WAYS, Way, outcome_of

pytestmark = pytest.mark.timeout(60)

ONE_REQUEST = tuple(way for way in WAYS if not way.streams_in)
RETURNED_EARLY = tuple(way for way in NOT_BLOCKING if not way.streams_in)
FUTURE = RETURNED_EARLY[0]


@pytest.fixture
def pool(refusing: RefusingServer, open_pool: PoolOpener, clock: ManualClock, pauses: None) -> ChannelPool:
    """A pool of one connection, to a server that refuses everything; a refused call pauses."""
    pool = open_pool(max_size=1)
    refusing.begin(open=0)
    return pool


def _until_it_waits(pool: ChannelPool) -> None:
    eventually(lambda: pool.stats().waiting == 1)
    assert [(channel.in_flight, channel.limit) for channel in pool.stats().channels] == [(0, 90)]


def _begun(pool: ChannelPool, way: Way, **how: Any) -> Any:
    call = way.begin(pool, **how)
    _until_it_waits(pool)
    return call


def _assert_never_handled(refusing: RefusingServer, pool: ChannelPool, clock: ManualClock) -> None:
    """Nothing of the call is left: the server, which refuses nothing any more, gets nothing more of it."""
    assert_at_rest(pool)
    refusing.begin()
    clock.advance(STEP)
    assert_at_rest(pool)
    assert refusing.report().all.begun == 0


@pytest.mark.parametrize("way", RETURNED_EARLY, ids=str)
def test_it_answers_like_a_running_call(
    refusing: RefusingServer, pool: ChannelPool, clock: ManualClock, way: Way
) -> None:
    """The call is active and not done, and its time runs."""
    call = _begun(pool, way, timeout=20)
    clock.advance(2.0)
    assert (call.is_active(), call.running(), call.done(), call.cancelled()) == (True, True, False, False)
    assert 17 < call.time_remaining() <= 18
    assert repr(call)
    with pytest.raises(grpc.FutureTimeoutError):
        call.result(timeout=0.01)
    with pytest.raises(grpc.FutureTimeoutError):
        call.exception(timeout=0.01)
    call.cancel()


@pytest.mark.parametrize("way", RETURNED_EARLY, ids=str)
def test_cancelled(refusing: RefusingServer, pool: ChannelPool, clock: ManualClock, way: Way) -> None:
    """A cancelled call is over at once, its callbacks are called once, and it is not sent again."""
    call = _begun(pool, way)
    called: list[Any] = []
    call.add_done_callback(lambda call: called.append((call.done(), call.code())))
    call.add_callback(lambda: called.append("plainly"))
    assert call.cancel()
    assert not call.cancel() or call.cancelled()
    assert (call.done(), call.cancelled(), call.code()) == (True, True, grpc.StatusCode.CANCELLED)
    assert outcome_of(lambda: call.result(0)) == ("cancelled",)
    eventually(lambda: len(called) == 2)
    _assert_never_handled(refusing, pool, clock)
    assert sorted(called, key=str) == [(True, grpc.StatusCode.CANCELLED), "plainly"]


@pytest.mark.parametrize("way", RETURNED_EARLY, ids=str)
def test_cancelled_while_a_thread_waits(
    refusing: RefusingServer, pool: ChannelPool, clock: ManualClock, way: Way
) -> None:
    """A thread that waits for the answer is woken when the call is cancelled."""
    call = way.begin(pool)
    outcome = background(lambda: outcome_of(lambda: way.finish(call)))
    _until_it_waits(pool)
    assert call.cancel()
    assert outcome.result(20)[0] in ("cancelled", "error")
    assert call.code() is grpc.StatusCode.CANCELLED
    _assert_never_handled(refusing, pool, clock)


@pytest.mark.parametrize("way", ONE_REQUEST, ids=str)
def test_its_deadline_passes(refusing: RefusingServer, pool: ChannelPool, clock: ManualClock, way: Way) -> None:
    """The call fails `DEADLINE_EXCEEDED`, not `UNAVAILABLE`, because its caller set that deadline."""
    failure = background(lambda: way.finish(way.begin(pool, timeout=60)))
    _until_it_waits(pool)
    clock.advance(30)
    _until_it_waits(pool)
    assert not failure.done()
    clock.advance(30)
    error: Any = failure.exception(20)
    assert isinstance(error, grpc.RpcError)
    assert (error.code(), error.details()) == (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
    assert isinstance(error.__cause__, PoolTimeoutError)
    assert pool.stats().timeouts == 1
    _assert_never_handled(refusing, pool, clock)


@pytest.mark.parametrize("way", ONE_REQUEST, ids=str)
def test_without_a_deadline_the_pools_own_counts_from_the_beginning(
    refusing: RefusingServer, pool: ChannelPool, clock: ManualClock, way: Way
) -> None:
    """A call without a deadline fails `RESOURCE_EXHAUSTED` after `acquire_timeout`, its attempts included."""
    failure = background(lambda: way.finish(way.begin(pool, timeout=None)))
    _until_it_waits(pool)
    for _ in range(2):
        clock.advance(14.0)
        # It has been tried again meanwhile.
        _until_it_waits(pool)
    clock.advance(2.0)
    error: Any = failure.exception(20)
    assert isinstance(error, grpc.RpcError)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert isinstance(error.__cause__, PoolTimeoutError)
    _assert_never_handled(refusing, pool, clock)


@pytest.mark.parametrize("way", ONE_REQUEST, ids=str)
def test_its_deadline_passes_while_it_is_tried_again_and_again(
    refusing: RefusingServer, make_pool: PoolMaker, way: Way
) -> None:
    """With the system's clock, too, a call that is refused repeatedly fails `DEADLINE_EXCEEDED` in time."""
    pool = make_pool(refusing.channel, min_size=2, max_size=2, max_resends=1000)
    pool.open()
    refusing.begin(open=0)
    began = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        way.finish(way.begin(pool, timeout=1.2))
    assert 1.1 < time.monotonic() - began < 10
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert pool.stats().refused_streams >= 2
    assert_at_rest(pool)
    assert refusing.report().handled == {}


@pytest.mark.parametrize("most", [0, 1, 3])
@pytest.mark.parametrize("way", ONE_REQUEST, ids=str)
def test_it_is_sent_again_a_bounded_number_of_times(
    refusing: RefusingServer, make_pool: PoolMaker, way: Way, most: int
) -> None:
    """A call that is refused each time fails after `max_resends` with the server's own status, after growing pauses."""
    pool = make_pool(refusing.channel, min_size=4, max_size=4, max_resends=most)
    pool.open()
    refusing.begin(open=0)
    with refusing.channel() as plain:
        expected = outcome_of(lambda: way.finish(way.begin(plain)))
    refusing.begin(open=0)
    began = time.monotonic()
    assert outcome_of(lambda: way.finish(way.begin(pool))) == expected
    assert time.monotonic() - began > 0.005 * (2**most - 1)
    assert refusing.report().all.begun == refusing.report().all.refused == 1 + most
    assert_at_rest(pool)


@pytest.mark.parametrize("way", ONE_REQUEST, ids=str)
def test_the_pool_is_closed(pool: ChannelPool, way: Way) -> None:
    """The call fails `CANCELLED`, like calls that gRPC's own close finds running; its cause says that it waited."""
    failure = background(lambda: way.finish(way.begin(pool)))
    _until_it_waits(pool)
    pool.close()
    error: Any = failure.exception(20)
    assert isinstance(error, grpc.RpcError)
    assert (error.code(), error.details()) == (grpc.StatusCode.CANCELLED, "Channel closed!")
    assert isinstance(error.__cause__, PoolClosedError)


@pytest.mark.parametrize("way", RETURNED_EARLY, ids=str)
def test_abandoned(refusing: RefusingServer, pool: ChannelPool, clock: ManualClock, way: Way) -> None:
    """A dropped call leaves the queue, and is not sent again."""
    call = _begun(pool, way)
    del call
    gc.collect()
    eventually(lambda: pool.stats().waiting == 0)
    _assert_never_handled(refusing, pool, clock)


@pytest.mark.parametrize("way", RETURNED_EARLY, ids=str)
def test_abandoned_with_a_callback(refusing: RefusingServer, pool: ChannelPool, clock: ManualClock, way: Way) -> None:
    """A call that is dropped is over, and its plain callback is called once."""
    called: list[str] = []
    call = _begun(pool, way)
    assert call.add_callback(lambda: called.append("over"))
    del call
    gc.collect()
    eventually(lambda: called)
    _assert_never_handled(refusing, pool, clock)
    assert called == ["over"]


def test_a_future_held_only_by_its_done_callback(
    refusing: RefusingServer, pool: ChannelPool, clock: ManualClock
) -> None:
    """A future held only by its done-callback is sent again, and the callback gets the outcome, once."""
    told: list[Any] = []
    call = _begun(pool, FUTURE)
    call.add_done_callback(lambda call: told.append((call.code(), call.result())))
    del call
    gc.collect()
    assert pool.stats().waiting == 1
    refusing.begin()
    clock.advance(STEP)
    eventually(lambda: told)
    assert_at_rest(pool)
    assert told == [(grpc.StatusCode.OK, b"0")]
    assert refusing.report().handled == {"ok": 1}


@pytest.mark.parametrize("way", RETURNED_EARLY, ids=str)
def test_callbacks_are_called_when_it_is_over_for_good(
    refusing: RefusingServer, pool: ChannelPool, clock: ManualClock, way: Way
) -> None:
    """Callbacks are not called for refusals; each is called once, with the final outcome."""
    told: list[Any] = []
    call = way.begin(pool)
    call.add_done_callback(lambda ended: told.append((ended is call, ended.done(), ended.code())))
    call.add_callback(lambda: told.append(call.done()))
    for _ in range(3):
        _until_it_waits(pool)
        assert told == []
        clock.advance(STEP)
    _until_it_waits(pool)
    refusing.begin()
    clock.advance(STEP)
    expected = [b"0", b"1", b"2"] if way.streams_out else b"0"
    assert way.finish(call) == expected
    eventually(lambda: len(told) == 2)
    assert_at_rest(pool)
    assert sorted(told, key=str) == [(True, True, grpc.StatusCode.OK), True]


def test_several_threads_wait_for_one_future(refusing: RefusingServer, pool: ChannelPool, clock: ManualClock) -> None:
    """Each of several threads that wait for a future, in whatever way, gets the final outcome."""
    call = FUTURE.begin(pool)
    asks: tuple[Callable[[], Any], ...] = (call.result, call.exception, call.code, call.details, call.traceback)
    waiting = [background(ask) for ask in asks * 3]
    _until_it_waits(pool)
    refusing.begin()
    clock.advance(STEP)
    answers = [each.result(20) for each in waiting]
    assert answers == [b"0", None, grpc.StatusCode.OK, "", None] * 3
    assert_at_rest(pool)


def test_futures_as_they_complete(refusing: RefusingServer, open_pool: PoolOpener, clock: ManualClock) -> None:
    """Done-callbacks of several futures get each future once; refused ones come later than the others."""
    pool = open_pool(max_size=1, max_streams=10)
    refusing.begin(open=3)
    done: list[Any] = []
    lock = threading.Lock()

    def add(call: Any) -> None:
        with lock:
            done.append(call)

    calls = [FUTURE.begin(pool, f"hold:{tag}") for tag in "abcdef"]
    for call in calls:
        call.add_done_callback(add)
    eventually(lambda: pool.stats().waiting == 3)
    assert done == []
    for tag in "abcdef":
        refusing.let_go(tag)
    eventually(lambda: len(done) == 6)
    assert set(done) == set(calls)
    assert [call.result(0) for call in calls] == [b"1"] * 6
    assert_at_rest(pool)
    assert set(refusing.report().handled.values()) == {1}


def test_the_server_sees_the_rest_of_the_deadline(
    refusing: RefusingServer, pool: ChannelPool, clock: ManualClock
) -> None:
    """A call that is sent again has the rest of its time, not all of it."""
    for way in ONE_REQUEST:
        outcome = background(lambda way=way: way.finish(way.begin(pool, "metadata", timeout=20)))  # type: ignore[misc]
        _until_it_waits(pool)
        refusing.begin()
        clock.advance(12.0)
        answer = outcome.result(LONG)
        told = answer[0] if isinstance(answer, tuple | list) else answer
        # gRPC rounds up.
        assert 7 < _timeout_in(told) < 8.1
        refusing.begin(open=0)
    refusing.begin()


def _timeout_in(headers: bytes) -> float:
    text = dict(json.loads(headers))["grpc-timeout"]
    return int(text[:-1]) * {"S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}[text[-1]]


@pytest.mark.parametrize("busy", [False, True], ids=["alone", "busy"])
@pytest.mark.parametrize("way", ONE_REQUEST, ids=str)
def test_a_call_that_is_refused_many_times(
    refusing: RefusingServer, open_pool: PoolOpener, clock: ManualClock, way: Way, *, busy: bool
) -> None:
    """However often a call is refused, nothing grows: each attempt adds no stack frame."""
    pool = open_pool(max_size=1, acquire_timeout=None, max_resends=1000)
    leases = [pool.acquire(streams=1) for _ in range(busy)]
    refusing.begin(next=600)
    with _small_stack():
        outcome = background(lambda: outcome_of(lambda: way.finish(way.begin(pool, timeout=None))))
        while not outcome.done():
            if pool.stats().waiting:
                clock.advance(STEP)
            time.sleep(0.0005)
    assert outcome.result(0)[0] == "answer"
    assert refusing.report().all.refused == 600
    for lease in leases:
        lease.release()


@contextlib.contextmanager
def _small_stack() -> Iterator[None]:
    """Allows a few more frames than there are now, so that it does not take thousands of rounds to use them up."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(traceback.extract_stack()) + 120)
    yield
    sys.setrecursionlimit(before)
