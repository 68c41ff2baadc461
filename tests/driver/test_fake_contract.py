"""The fake channel and a real one keep the same contract, as far as the pool and its tests rely on it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from support.fakes import HANDLERS, FakeChannel, numbers
from support.servers import CHAT, COLLECT, COUNT, ECHO, FAIL, SLOW, Server, unary
from support.waiting import LONG, background, eventually

pytestmark = pytest.mark.timeout(60)

State = grpc.ChannelConnectivity

# The stubs have no type for a multicallable without serializers: channels are `Any` here.


@pytest.fixture(params=["fake", "real"])
def channel(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A channel that answers as the test server does."""
    if request.param == "fake":
        made: grpc.Channel = FakeChannel(HANDLERS)
    else:
        server: Server = request.getfixturevalue("server")
        made = server.channel()
    with made:
        yield made


@pytest.fixture(params=["fake", "real"])
def busy(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A channel on which a call of `SLOW` runs for longer than a test."""
    if request.param == "fake":
        made: grpc.Channel = FakeChannel(holds_calls=True)
    else:
        server: Server = request.getfixturevalue("server")
        made = server.channel()
        unary(made, ECHO, b"")
    with made:
        yield made


def test_the_kinds_of_call_answer(channel: Any) -> None:
    """Each of the four makers returns a multicallable of gRPC's type, whose every way of calling works."""
    echo = channel.unary_unary(ECHO)
    assert isinstance(echo, grpc.UnaryUnaryMultiCallable)
    assert echo(b"a", timeout=LONG) == b"a"
    answer, call = echo.with_call(b"b", timeout=LONG)
    assert (answer, call.code()) == (b"b", grpc.StatusCode.OK)
    assert echo.future(b"c", timeout=LONG).result() == b"c"
    count = channel.unary_stream(COUNT)
    assert isinstance(count, grpc.UnaryStreamMultiCallable)
    assert list(count(b"3,0", timeout=LONG)) == [b"0", b"1", b"2"]
    collect = channel.stream_unary(COLLECT)
    assert isinstance(collect, grpc.StreamUnaryMultiCallable)
    assert collect(numbers(3), timeout=LONG) == b"0,1,2"
    assert collect.with_call(numbers(2), timeout=LONG)[0] == b"0,1"
    assert collect.future(numbers(1), timeout=LONG).result() == b"0"
    chat = channel.stream_stream(CHAT)
    assert isinstance(chat, grpc.StreamStreamMultiCallable)
    assert list(chat(numbers(3), timeout=LONG)) == [b"0", b"1", b"2"]


def test_messages_go_through_serializer_and_deserializer(channel: Any) -> None:
    """The functions given to the makers turn requests into bytes and bytes into responses."""
    echo = channel.unary_unary(ECHO, str.encode, bytes.decode)
    assert echo("text", timeout=LONG) == "text"


def test_a_serializer_that_raises_fails_the_call(channel: Any) -> None:
    """If a serializer raises, the call does not begin, and the error is an `RpcError` with code INTERNAL."""

    def refuse(message: object) -> bytes:
        raise TypeError("cannot be serialized")

    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(ECHO, refuse)(b"", timeout=LONG)
    assert caught.value.code() is grpc.StatusCode.INTERNAL


def test_an_error_has_code_and_details(channel: Any) -> None:
    """A failed call raises an `RpcError` with code and details, whichever way it is called."""
    fail = channel.unary_unary(FAIL)
    with pytest.raises(grpc.RpcError) as caught:
        fail(b"NOT_FOUND", timeout=LONG)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "failed as asked: NOT_FOUND"
    error: Any = caught.value
    assert "failed as asked: NOT_FOUND" in error.debug_error_string()
    future = fail.future(b"ABORTED", timeout=LONG)
    with pytest.raises(grpc.RpcError):
        future.result()
    assert future.code() is grpc.StatusCode.ABORTED
    assert "failed as asked: ABORTED" in future.debug_error_string()
    assert isinstance(future.exception(), grpc.RpcError)


def test_callbacks_are_called_once_at_the_end(busy: Any) -> None:
    """`add_callback` returns true for a running call, and calls back at its end; for an ended one it returns false."""
    call = busy.unary_unary(SLOW).future(b"5000", timeout=LONG)
    called = threading.Semaphore(0)
    assert call.is_active()
    assert call.running()
    assert call.add_callback(lambda: called.release())  # noqa: PLW0108 -- release() takes an argument
    assert call.cancel()
    assert called.acquire(timeout=LONG)
    eventually(lambda: not call.is_active())
    assert not call.add_callback(lambda: None)
    assert not called.acquire(blocking=False)


def test_a_cancelled_call_says_so(busy: Any) -> None:
    """A cancelled future is cancelled and done, raises `FutureCancelledError`, and has code CANCELLED."""
    call = busy.unary_unary(SLOW).future(b"5000", timeout=LONG)
    call.cancel()
    assert call.cancelled()
    assert call.done()
    assert call.code() is grpc.StatusCode.CANCELLED
    with pytest.raises(grpc.FutureCancelledError):
        call.result()


def test_a_cancelled_stream_raises_when_read(busy: Any) -> None:
    """Reading a cancelled stream raises an `RpcError` with code CANCELLED."""
    stream = busy.unary_stream(COUNT)(b"1,5000", timeout=LONG)
    stream.cancel()
    with pytest.raises(grpc.RpcError) as caught:
        next(iter(stream))
    assert caught.value.code() is grpc.StatusCode.CANCELLED


def test_a_blocking_call_keeps_its_deadline(busy: Any) -> None:
    """A blocking call fails with DEADLINE_EXCEEDED when its deadline passes."""
    with pytest.raises(grpc.RpcError) as caught:
        busy.unary_unary(SLOW)(b"5000", timeout=0.05)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_result_may_be_waited_for_with_a_timeout(busy: Any) -> None:
    """`result(timeout)` raises `FutureTimeoutError` while the call still runs, and does not end it."""
    call = busy.unary_unary(SLOW).future(b"5000", timeout=LONG)
    with pytest.raises(grpc.FutureTimeoutError):
        call.result(timeout=0.01)
    assert call.is_active()
    call.cancel()


def test_close_cancels_running_calls_and_refuses_new_ones(busy: Any) -> None:
    """Calls in flight end CANCELLED, later ones raise `ValueError`, and a second close does nothing."""
    echo = busy.unary_unary(ECHO)
    call = busy.unary_unary(SLOW).future(b"5000", timeout=LONG)
    busy.close()
    assert call.code() is grpc.StatusCode.CANCELLED
    with pytest.raises(ValueError, match=r"(?i)channel closed|closed channel"):
        echo(b"", timeout=LONG)
    with pytest.raises(ValueError, match=r"(?i)channel closed|closed channel"):
        echo.future(b"", timeout=LONG)
    busy.close()


def test_a_subscriber_gets_each_state(channel: Any) -> None:
    """A subscriber gets the current state, IDLE at first, then the changes up to READY."""
    states: list[grpc.ChannelConnectivity] = []
    channel.subscribe(states.append)
    eventually(lambda: states)
    assert states == [grpc.ChannelConnectivity.IDLE]
    others: list[grpc.ChannelConnectivity] = []
    channel.subscribe(others.append, try_to_connect=True)
    eventually(lambda: grpc.ChannelConnectivity.READY in states)
    eventually(lambda: others and others[-1] is grpc.ChannelConnectivity.READY)
    channel.unsubscribe(states.append)
    channel.unsubscribe(others.append)
    channel.unsubscribe(lambda state: None)


def test_a_subscriber_gets_each_change_until_it_unsubscribes() -> None:
    """A subscriber gets each change; one that was removed gets no more.

    A real channel leaves out states that do not last.
    """
    removed: list[grpc.ChannelConnectivity] = []
    kept: list[grpc.ChannelConnectivity] = []
    with FakeChannel() as channel:
        channel.subscribe(removed.append)
        channel.subscribe(kept.append)
        channel.unsubscribe(removed.append)
        channel.subscribe(lambda state: None, try_to_connect=True)
    assert removed == [State.IDLE]
    assert kept == [State.IDLE, State.CONNECTING, State.READY]


def test_what_a_subscriber_gets_last_is_the_state() -> None:
    """Also if another thread changes the state while the subscriber gets an earlier one."""
    seen: list[grpc.ChannelConnectivity] = []

    def subscriber(state: grpc.ChannelConnectivity) -> None:
        if state is State.IDLE:
            background(lambda: fake.set_state(State.READY)).result(LONG)
        seen.append(state)

    with FakeChannel() as fake:
        fake.subscribe(subscriber)
    assert seen[-1] is State.READY


def test_it_is_a_context_manager() -> None:
    """Leaving the block closes the channel."""
    with FakeChannel() as channel:
        pass
    assert channel.closed == 1
    assert channel.state is grpc.ChannelConnectivity.SHUTDOWN


def test_a_handler_that_raises_fails_the_call() -> None:
    """As a server's: with `UNKNOWN`, after the responses before it."""

    def breaks(_: bytes) -> Iterator[bytes]:
        yield b"1"
        raise LookupError("as the test wants")

    def fails(_: bytes) -> bytes:
        raise LookupError("as the test wants")

    class NotFound(grpc.RpcError):
        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.NOT_FOUND

    def misses(_: bytes) -> bytes:
        raise NotFound

    channel: Any = FakeChannel({COUNT: breaks, ECHO: fails, SLOW: misses})
    with pytest.raises(grpc.RpcError) as missed:
        channel.unary_unary(SLOW)(b"")
    assert missed.value.code() is grpc.StatusCode.NOT_FOUND
    stream = channel.unary_stream(COUNT)(b"")
    assert next(stream) == b"1"
    for call in (stream.__next__, lambda: channel.unary_unary(ECHO)(b""), channel.unary_unary(ECHO).future(b"").result):
        with pytest.raises(grpc.RpcError, match="as the test wants") as caught:
            call()
        assert caught.value.code() is grpc.StatusCode.UNKNOWN
