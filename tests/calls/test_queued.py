"""A call for which there is no place waits, and is a complete call while it waits."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc
import pytest

from grpcpool import ChannelPool, PoolClosedError, PoolConfig, PoolError, PoolExhaustedError, PoolTimeoutError
from grpcpool._sync.worker import Worker
from support.call_server import US, UU, CallServer, new_tag
from support.pools import PoolMaker, assert_at_rest
from support.waiting import LONG, background, eventually
from support.ways import NOT_BLOCKING, WAYS, Way, outcome_of

pytestmark = pytest.mark.timeout(60)

FUTURES = tuple(way for way in NOT_BLOCKING if way.how == "future")
STREAMS = tuple(way for way in NOT_BLOCKING if way.streams_out)


class Full:
    """A pool whose one place is taken until it is freed."""

    def __init__(self, pool: ChannelPool) -> None:
        """Takes the place."""
        self.pool = pool
        multicallable: Any = pool.unary_unary(UU)
        self._blocker = multicallable.future(f"hold:{new_tag()}".encode(), timeout=60)
        assert pool.stats().in_flight == 1

    def make_room(self) -> None:
        """Frees the place."""
        self._blocker.cancel()

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return self.pool.stats().waiting


@pytest.fixture
def full(single: ChannelPool) -> Iterator[Full]:
    """A full pool; afterwards it is at rest."""
    made = Full(single)
    yield made
    made.make_room()
    assert_at_rest(single)


MakeFull = Callable[..., Full]


@pytest.fixture
def make_full(calls: CallServer, make_pool: PoolMaker) -> Iterator[MakeFull]:
    """Makes full pools with a test's configuration; afterwards they are at rest."""
    with contextlib.ExitStack() as stack:

        def make(**config: Any) -> Full:
            pool = make_pool(calls.channel, max_size=1, max_streams=1, **config)
            pool.open()
            full = Full(pool)
            stack.callback(assert_at_rest, pool)
            stack.callback(full.make_room)
            return full

        yield make


# --- while it waits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
def test_it_answers_like_a_running_call(full: Full, plain: grpc.Channel, way: Way) -> None:
    """A waiting call answers like a running one whatever a running call can answer."""
    waiting, running = way.begin(full.pool, timeout=30), way.begin(plain, f"hold:{new_tag()}", timeout=30)
    assert full.waiting == 1
    for call in (waiting, running):
        # The last is how retrying interceptors distinguish a call, which may fail, from an answer.
        assert all(isinstance(call, kind) for kind in (grpc.Call, grpc.Future, grpc.RpcError))
        assert call.is_active()
        assert call.running()
        assert not call.done()
        assert not call.cancelled()
        assert 20 < call.time_remaining() <= 30
        assert str(call) == repr(call)
        assert str(call).startswith("<")
    full.make_room()
    expected = [b"0", b"1", b"2"] if way.streams_out else b"0"
    assert way.finish(waiting) == expected
    running.cancel()


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
def test_without_a_deadline_none_remains(full: Full, plain: grpc.Channel, way: Way) -> None:
    """`time_remaining` of a call without a deadline is `None`, although the pool limits the wait."""
    for channel in (full.pool, plain):
        call = way.begin(channel, f"hold:{new_tag()}", timeout=None)
        assert call.time_remaining() is None
        call.cancel()


@pytest.mark.parametrize("way", FUTURES, ids=str)
@pytest.mark.parametrize("ask", ["result", "exception", "traceback"])
def test_a_future_that_waits_times_out_as_one_that_runs(full: Full, plain: grpc.Channel, way: Way, ask: str) -> None:
    """`result`, `exception` and `traceback` raise `FutureTimeoutError` after their timeout; the call keeps waiting."""
    for channel in (full.pool, plain):
        call = way.begin(channel, f"hold:{new_tag()}")
        with pytest.raises(grpc.FutureTimeoutError):
            getattr(call, ask)(timeout=0.01)
        assert call.is_active()
        call.cancel()


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
def test_what_must_wait_waits_through_the_queue(full: Full, plain: grpc.Channel, way: Way) -> None:
    """Metadata, code and details block until the call has run, however early they are asked for."""
    asks = ("initial_metadata", "trailing_metadata", "code", "details", "debug_error_string")
    native, call = way.begin(plain), way.begin(full.pool)
    asked = {ask: background(getattr(call, ask)) for ask in asks}
    answer = background(lambda: way.finish(call))
    assert not any(future.done() for future in asked.values())
    full.make_room()
    assert answer.result(LONG) == way.finish(native)
    for ask, future in asked.items():
        assert future.result(LONG) == getattr(native, ask)()


@pytest.mark.parametrize("way", FUTURES, ids=str)
def test_exception_and_traceback(full: Full, plain: grpc.Channel, way: Way) -> None:
    """After its wait a call returns its exception and traceback as gRPC's does, for an error and for success."""
    for command in ("ok", "fail"):
        native, call = way.begin(plain, command), way.begin(full.pool, command)
        told = background(lambda call=call: (call.exception(LONG), call.traceback(LONG)))  # type: ignore[misc]
        if command == "ok":
            full.make_room()
        error, traceback = told.result(LONG)
        expected = native.exception(LONG)
        assert type(error) is type(expected)
        assert type(traceback) is type(native.traceback(LONG))
        if error is not None:
            assert (error.code(), error.details()) == (expected.code(), expected.details())


@pytest.mark.parametrize("way", STREAMS, ids=str)
def test_iteration_waits(full: Full, way: Way) -> None:
    """`next()`, the method `next` and a loop wait for the start and continue from there."""
    call = way.begin(full.pool)
    assert iter(call) is call
    first = background(lambda: next(call))
    assert full.waiting == 1
    full.make_room()
    assert first.result(LONG) == b"0"
    assert call.next() == b"1"
    assert list(call) == [b"2"]
    assert call.code() is grpc.StatusCode.OK


# --- callbacks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
@pytest.mark.parametrize("end", ["answered", "cancelled", "cancelled running", "refused"])
def test_callbacks_run_however_it_ends(calls: CallServer, full: Full, way: Way, end: str) -> None:
    """Each callback runs once: a done-callback with the call as its argument, the other without one."""
    told: deque[Any] = deque()
    tag = new_tag()
    timeout = 0.5 if end == "refused" else 20
    call = way.begin(full.pool, "ok" if end == "answered" else f"hold:{tag}", timeout=timeout)
    assert call.add_callback(lambda: told.append("callback"))
    call.add_done_callback(told.append)
    assert not told
    if end == "cancelled":
        call.cancel()
    elif end == "answered":
        full.make_room()
        way.finish(call)
    elif end == "cancelled running":
        full.make_room()
        calls.wait_until_held(tag)
        call.cancel()
    eventually(lambda: len(told) == 2)
    assert set(told) == {"callback", call}
    assert call.done()
    assert not call.is_active()


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
def test_callbacks_added_late(full: Full, plain: grpc.Channel, way: Way) -> None:
    """On a finished call `add_done_callback` calls at once, and `add_callback` returns `False` once gRPC knows."""
    for channel in (full.pool, plain):
        told: list[Any] = []
        call = way.begin(channel, f"hold:{new_tag()}")
        call.cancel()
        call.add_done_callback(told.append)
        assert told == [call]
        eventually(lambda call=call: not call.add_callback(dict))  # type: ignore[misc]


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
def test_a_callback_that_raises_affects_no_other_call(full: Full, way: Way, caplog: pytest.LogCaptureFixture) -> None:
    """The other callbacks run, and so do the next calls."""
    told: list[Any] = []

    def fail(call: Any) -> None:
        raise ArithmeticError("a callback failed, as the test wants")

    for end in ("cancelled", "answered"):
        call = way.begin(full.pool)
        call.add_done_callback(fail)
        call.add_done_callback(told.append)
        if end == "cancelled":
            call.cancel()
        else:
            full.make_room()
            way.finish(call)
        eventually(lambda call=call: told == [call])  # type: ignore[misc]
        told.clear()
    assert way.finish(way.begin(full.pool))
    assert "failed" in caplog.text or "Exception in callback" in caplog.text


# --- its start ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
def test_it_starts_by_itself_with_the_time_that_is_left(full: Full, way: Way) -> None:
    """A call starts without being asked for anything; the server sees a deadline reduced by the wait."""
    call = way.begin(full.pool, "left", timeout=30)
    over = threading.Event()
    call.add_done_callback(lambda _: over.set())
    eventually(lambda: call.time_remaining() < 29.8)
    full.make_room()
    answer = way.finish(call)
    assert over.wait(LONG)
    left = float(answer[0] if way.streams_out else answer)
    assert 20 < left < 29.8


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_deadline_of_nan_has_passed(full: Full, way: Way) -> None:
    """A call with a deadline of NaN fails at once, and the deadlines of other waiters still hold."""

    def call(timeout: float) -> Any:
        return way.finish(way.begin(full.pool, timeout=timeout))

    for future in [background(partial(call, timeout)) for timeout in (float("nan"), 0.05)]:
        error: Any = future.exception(LONG)
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_blocking_calls_too_have_the_time_that_is_left(full: Full, way: Way) -> None:
    """For every way of calling, the wait is part of the deadline."""
    answer = background(lambda: way.finish(way.begin(full.pool, "left", timeout=30)))
    eventually(lambda: full.waiting == 1)
    time.sleep(0.15)
    full.make_room()
    value = answer.result(LONG)
    left = value[0] if isinstance(value, list | tuple) else value
    assert 20 < float(left) < 29.9


def test_first_come_first_served(calls: CallServer, full: Full) -> None:
    """Calls of all kinds start in the order in which they were made."""
    calls.tell("notes")
    made = [(way, way.begin(full.pool, f"note:{i}")) for i, way in enumerate(NOT_BLOCKING * 5)]
    assert full.waiting == 20
    full.make_room()
    for way, call in made:
        way.finish(call)
    assert calls.tell("notes") == [str(i) for i in range(20)]


def test_a_newcomer_does_not_pass(calls: CallServer, full: Full) -> None:
    """A blocking call made after a future is served after it."""
    calls.tell("notes")
    first = WAYS[2].begin(full.pool, "note:first")
    second = background(lambda: WAYS[0].begin(full.pool, "note:second"))
    eventually(lambda: full.waiting == 2)
    third = WAYS[3].begin(full.pool, "note:third")
    full.make_room()
    assert list(third) == [b"note:third"]
    assert second.result(LONG) == b"note:second"
    assert first.result(LONG) == b"note:first"
    assert calls.tell("notes") == ["first", "second", "third"]


@pytest.mark.parametrize("way", NOT_BLOCKING, ids=str)
def test_its_arguments_arrive(full: Full, way: Way) -> None:
    """Metadata and the other arguments of the call are passed on when it starts."""
    call = way.begin(full.pool, "metadata", metadata=(("key", "value"),), compression=grpc.Compression.Gzip)
    full.make_room()
    assert b'["key", "value"]' in (b"".join(call) if way.streams_out else call.result(LONG))


def _fail(value: Any) -> bytes:
    raise ArithmeticError("a serializer failed, as the test wants")


@pytest.mark.parametrize("way", [way for way in NOT_BLOCKING if way.streams_in], ids=str)
def test_a_serializer_that_raises(full: Full, plain: grpc.Channel, way: Way) -> None:
    """The call ends as gRPC's does, only later; its callbacks run, and its place goes to the next call."""
    told: list[Any] = []
    call = way.begin(full.pool, serializer=_fail)
    call.add_done_callback(told.append)
    following = way.begin(full.pool)
    full.make_room()
    assert outcome_of(lambda: way.finish(call)) == outcome_of(lambda: way.finish(way.begin(plain, serializer=_fail)))
    eventually(lambda: told == [call])
    assert call.done()
    assert not call.is_active()
    assert way.finish(following)


@pytest.mark.parametrize("way", [way for way in NOT_BLOCKING if not way.streams_in], ids=str)
def test_a_request_that_cannot_be_serialised(full: Full, plain: grpc.Channel, way: Way) -> None:
    """The call is refused where it is made, as by gRPC, without waiting for a place."""
    assert outcome_of(lambda: way.begin(full.pool, serializer=_fail)) == outcome_of(
        lambda: way.begin(plain, serializer=_fail)
    )
    assert full.pool.stats().waiting == 0


@pytest.mark.parametrize("way", [way for way in NOT_BLOCKING if not way.streams_in], ids=str)
def test_a_request_that_is_changed_while_it_waits(full: Full, way: Way) -> None:
    """The request sent is the one passed when the call was made."""
    request = ["note:first"]
    multicallable: Any = getattr(full.pool, way.maker)(way.method, lambda value: value[0].encode(), None)
    call = getattr(multicallable, way.how)(request, timeout=20)
    request[0] = "note:second"
    full.make_room()
    answer = way.finish(call)
    assert b"first" in (answer if isinstance(answer, bytes) else b"".join(answer))


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
