"""A call for which there is no place waits, and is a complete call while it waits."""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import partial
from typing import Any

import grpc
import pytest

from calls.full import Full
from support.call_server import CallServer, new_tag
from support.waiting import LONG, background, eventually
from support.ways import FUTURES, NOT_BLOCKING, STREAMS, WAYS, Way, outcome_of

pytestmark = pytest.mark.timeout(60)


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
