"""How a call that waits leaves the queue without a place: it is cancelled, dropped or refused."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections import deque
from typing import Any

import grpc
import pytest

from calls.full import Full, MakeFull
from grpcpool import ChannelPool, PoolClosedError, PoolConfig, PoolError, PoolExhaustedError, PoolTimeoutError
from grpcpool._sync.worker import Worker
from support.call_server import US, UU, CallServer, new_tag
from support.pools import PoolMaker, assert_at_rest
from support.waiting import LONG, background, eventually
from support.ways import FUTURES, NOT_BLOCKING, STREAMS, WAYS, Way, outcome_of

pytestmark = pytest.mark.timeout(60)


# --- leaving the queue ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
def test_cancelled_while_it_waits(full: Full, way: Way) -> None:
    """A cancelled call leaves the queue at once and is never started; each of its members has an answer."""
    call = way.begin(full.pool)
    assert call.cancel()
    assert full.waiting == 0
    assert call.cancelled()
    assert call.done()
    assert not call.running()
    assert not call.is_active()
    assert call.code() is grpc.StatusCode.CANCELLED
    assert call.details() == "Locally cancelled by application!"
    assert tuple(call.initial_metadata()) == ()
    assert tuple(call.trailing_metadata()) == ()
    assert not call.cancel()
    if not way.streams_out:
        for ask in (call.result, call.exception, call.traceback):
            with pytest.raises(grpc.FutureCancelledError):
                ask(LONG)
    assert full.pool.stats().acquired == 1


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
def test_a_second_cancel_is_answered_as_by_grpc(full: Full, plain: grpc.Channel, way: Way) -> None:
    """A repeated `cancel()` returns what gRPC's returns."""
    waiting, running = way.begin(full.pool), way.begin(plain, f"hold:{new_tag()}")
    assert [waiting.cancel(), waiting.cancel()] == [running.cancel(), running.cancel()]


@pytest.mark.parametrize("way", STREAMS, ids=str)
def test_cancelling_ends_an_iteration_that_waits(full: Full, way: Way) -> None:
    """Another thread that waits for the first response is woken."""
    call = way.begin(full.pool)
    reading = background(lambda: next(call))
    call.cancel()
    error: Any = reading.exception(LONG)
    assert isinstance(error, grpc.RpcError)
    assert error.code() is grpc.StatusCode.CANCELLED


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
def test_dropped_while_it_waits(calls: CallServer, full: Full, way: Way) -> None:
    """A dropped call leaves the queue and never reaches the server; later waiters move up."""
    calls.tell("notes")
    dropped = way.begin(full.pool, "note:dropped")
    kept = way.begin(full.pool, "note:kept")
    gone = weakref.ref(dropped)
    del dropped
    gc.collect()
    assert gone() is None
    eventually(lambda: full.waiting == 1)
    full.make_room()
    way.finish(kept)
    assert calls.tell("notes") == ["kept"]


@pytest.mark.parametrize("way", FUTURES, ids=str)
def test_dropped_with_a_done_callback_it_still_runs(full: Full, way: Way) -> None:
    """A call with a done-callback need not be held: it runs, and the callback gets it."""
    told: list[Any] = []
    way.begin(full.pool).add_done_callback(lambda call: told.append(call.result()))
    gc.collect()
    assert full.waiting == 1
    full.make_room()
    eventually(lambda: told == [b"0"])


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
def test_a_call_that_ran_is_collected(full: Full, way: Way) -> None:
    """The pool holds neither a finished call nor its request."""
    call = way.begin(full.pool)
    call.add_done_callback(lambda _: None)
    full.make_room()
    way.finish(call)
    gone = weakref.ref(call)
    del call
    eventually(lambda: gc.collect() >= 0 and gone() is None, timeout=5)


# --- refusals -------------------------------------------------------------------------------------------------------


def _assert_failed(call: Any, way: Way, code: grpc.StatusCode, cause: type[PoolError]) -> None:
    told: list[Any] = []
    with pytest.raises(grpc.RpcError) as caught:
        way.finish(call)
    error: Any = caught.value
    assert error.code() is code
    assert type(error.__cause__) is cause
    assert call.code() is code
    assert call.details() == error.details()
    assert call.done()
    assert not call.cancelled()
    assert not call.is_active()
    assert not call.cancel()
    assert tuple(call.initial_metadata()) == tuple(call.trailing_metadata()) == ()
    if not way.streams_out:
        assert call.exception(LONG) is error
        assert call.traceback(LONG) is error.__traceback__
    call.add_done_callback(told.append)
    assert told == [call]
    assert f"{code}" in repr(call)


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
def test_refused_at_the_acquire_timeout(make_full: MakeFull, way: Way) -> None:
    """A call without a deadline fails `RESOURCE_EXHAUSTED` after the configured time; the message has the figures."""
    full = make_full(acquire_timeout=0.05)
    call = way.begin(full.pool, timeout=None)
    _assert_failed(call, way, grpc.StatusCode.RESOURCE_EXHAUSTED, PoolTimeoutError)
    assert "1 of 1 connections open, 1 in flight" in call.details()
    assert full.pool.stats().timeouts == 1


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
def test_refused_at_its_own_deadline(make_full: MakeFull, way: Way) -> None:
    """A call with a deadline waits until then, not for the configured time, and fails `DEADLINE_EXCEEDED`."""
    full = make_full(acquire_timeout=0.001)
    call = way.begin(full.pool, timeout=0.1)
    _assert_failed(call, way, grpc.StatusCode.DEADLINE_EXCEEDED, PoolTimeoutError)


@pytest.mark.parametrize("timeout", [0, -1, 1e-9])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_deadline_that_has_passed(full: Full, way: Way, timeout: float) -> None:
    """A call whose deadline has passed fails `DEADLINE_EXCEEDED`."""
    with pytest.raises(grpc.RpcError) as caught:
        way.finish(way.begin(full.pool, timeout=timeout))
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert full.waiting == 0


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
def test_refused_when_too_many_wait(make_full: MakeFull, way: Way) -> None:
    """Beyond `max_waiters` a call fails `RESOURCE_EXHAUSTED` at once; the waiters are not affected."""
    full = make_full(max_waiters=2)
    waiting = [way.begin(full.pool) for _ in range(2)]
    _assert_failed(way.begin(full.pool), way, grpc.StatusCode.RESOURCE_EXHAUSTED, PoolExhaustedError)
    full.make_room()
    for call in waiting:
        assert way.finish(call)
    assert full.pool.stats().rejected == 1


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
def test_closed_while_it_waits(make_full: MakeFull, way: Way) -> None:
    """`close()` fails a waiting call `CANCELLED`, and runs its callbacks before it returns."""
    full = make_full()
    told: list[Any] = []
    call = way.begin(full.pool)
    call.add_done_callback(told.append)
    full.pool.close()
    assert told == [call]
    _assert_failed(call, way, grpc.StatusCode.CANCELLED, PoolClosedError)


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("reason", ["timeout", "too many"])
def test_blocking_or_not_a_refusal_is_the_same(make_full: MakeFull, way: Way, reason: str) -> None:
    """All ways of calling fail with the same code for the same reason."""
    full = make_full(acquire_timeout=0.02, max_waiters=0 if reason == "too many" else 5)
    with pytest.raises(grpc.RpcError) as caught:
        way.finish(way.begin(full.pool, timeout=None))
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert isinstance(error.__cause__, PoolTimeoutError if reason == "timeout" else PoolExhaustedError)


# --- many -----------------------------------------------------------------------------------------------------------


def test_a_thousand_queued_futures(calls: CallServer, make_pool: PoolMaker) -> None:
    """A thousand queued futures cost a few threads at most, and all complete."""
    pool = make_pool(calls.channel, max_size=2, max_streams=4)
    pool.open()
    before = threading.active_count()
    most = 0
    done: deque[Any] = deque()
    multicallable: Any = pool.unary_unary(UU)
    # All of them wait, however fast the server answers.
    leases = [pool.acquire(streams=4) for _ in range(2)]
    futures = [multicallable.future(str(i).encode(), timeout=60) for i in range(1000)]
    for future in futures:
        future.add_done_callback(done.append)
    for lease in leases:
        lease.release()
    while len(done) < 1000:
        most = max(most, threading.active_count())
        assert pool.stats().in_flight <= 8
        time.sleep(0.002)
    assert [future.result(LONG) for future in futures] == [str(i).encode() for i in range(1000)]
    assert most - before <= 6
    assert_at_rest(pool)
    assert pool.stats().waited > 900


def test_cancelling_a_thousand_leaves_nothing(full: Full) -> None:
    """Every cancelled call leaves the queue, in whatever order they are cancelled."""
    made = [NOT_BLOCKING[i % 4].begin(full.pool) for i in range(900)]
    for call in made[::2] + made[1::2]:
        assert call.cancel()
    assert full.waiting == 0


def test_calls_that_race_with_their_cancel(calls: CallServer, make_pool: PoolMaker) -> None:
    """Calls cancelled while they are being started release their places, and end one way or the other."""
    pool = make_pool(calls.channel, max_size=1, max_streams=2)
    pool.open()
    for way in NOT_BLOCKING:
        made = [way.begin(pool) for _ in range(100)]
        cancelling = background(lambda made=made: [call.cancel() for call in made])  # type: ignore[misc]
        for call in made:
            outcome = outcome_of(lambda call=call: way.finish(call))  # type: ignore[misc] # noqa: B023
            assert outcome[0] in {"answer", "cancelled", "error"}
        cancelling.result(LONG)
        assert all(call.done() for call in made)
        del made, call
        assert_at_rest(pool)


def test_the_configured_wait_may_have_no_end(calls: CallServer) -> None:
    """With `acquire_timeout=None` a call without a deadline waits until there is a place."""
    with ChannelPool(calls.channel, PoolConfig(max_size=1, max_streams=1, acquire_timeout=None)) as pool:
        pool.open()
        full = Full(pool)
        call = WAYS[2].begin(pool, timeout=None)
        assert full.waiting == 1
        full.make_room()
        assert call.result(LONG) == b"0"


@pytest.mark.parametrize("ask", ["result", "code", "exception", "next"])
def test_without_a_worker_a_waiting_call_ends_by_itself(
    calls: CallServer, make_pool: PoolMaker, monkeypatch: pytest.MonkeyPatch, ask: str
) -> None:
    """At the limit of threads nothing ticks; the thread that waits for the call then does."""
    monkeypatch.setattr(Worker, "wake", lambda _: None)
    pool = make_pool(calls.channel, max_size=1, max_streams=1)
    pool.open()
    full = Full(pool)
    method: Any = pool.unary_stream(US) if ask == "next" else pool.unary_unary(UU).future
    call = method(b"ok", timeout=0.2)
    assert full.waiting == 1
    if ask == "code":
        assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    elif ask == "exception":
        assert call.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert call.traceback() is not None
    else:
        with pytest.raises(grpc.RpcError) as caught:
            getattr(call, "__next__" if ask == "next" else ask)()
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    full.make_room()
