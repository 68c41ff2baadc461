"""How calls of the fake channels end and fail: as a real channel's, unless a docstring says otherwise."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import queue
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NoReturn

import grpc
import pytest

import grpcpool.aio
from grpcpool.testing import FakeFactory as SyncFakeFactory
from support.fakes import HANDLERS, FakeChannel, FakeFactory, aio, error, numbers
from support.loops import in_loop
from support.servers import CHAT, COLLECT, COUNT, ECHO, FAIL, Server
from support.waiting import LONG, background, eventually

pytestmark = pytest.mark.timeout(60)

Code = grpc.StatusCode


@pytest.fixture(scope="module")
def _server() -> Iterator[Server]:
    """Of its own: gRPC 1.60 may keep the connection of a channel on which a request could not be serialized."""
    with Server() as server:
        yield server


@pytest.fixture(params=["fake", "real"])
def channel(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A channel that answers as the test server does."""
    if request.param == "fake":
        made: grpc.Channel = FakeChannel(HANDLERS)
    else:
        server: Server = request.getfixturevalue("_server")
        made = server.channel()
    with made:
        yield made


def _refuse(message: object) -> NoReturn:
    raise TypeError("cannot be converted")


def _raising() -> Iterator[bytes]:
    yield b"1"
    raise LookupError("of the caller's own")


_OWN_ERRORS: dict[str, tuple[Callable[[Any], Any], Code, str]] = {
    "deserializer": (
        lambda channel: channel.unary_unary(ECHO, None, _refuse)(b"", timeout=LONG),
        Code.INTERNAL,
        "Exception deserializing response!",
    ),
    "deserializer of a stream": (
        lambda channel: list(channel.unary_stream(COUNT, None, _refuse)(b"2,0", timeout=LONG)),
        Code.INTERNAL,
        "Exception deserializing response!",
    ),
    "serializer of a stream": (
        lambda channel: channel.stream_unary(COLLECT, _refuse)(numbers(1), timeout=LONG),
        Code.INTERNAL,
        "Exception serializing request!",
    ),
    "iterator": (
        lambda channel: channel.stream_unary(COLLECT)(_raising(), timeout=LONG),
        Code.UNKNOWN,
        "Exception iterating requests!",
    ),
    "iterator of a conversation": (
        lambda channel: list(channel.stream_stream(CHAT)(_raising(), timeout=LONG)),
        Code.UNKNOWN,
        "Exception iterating requests!",
    ),
    "list": (
        lambda channel: channel.stream_unary(COLLECT)([b"1"], timeout=LONG),
        Code.UNKNOWN,
        "Exception iterating requests!",
    ),
}


@pytest.mark.parametrize(("call", "code", "details"), _OWN_ERRORS.values(), ids=_OWN_ERRORS)
def test_an_error_of_the_client_is_named(
    channel: Any, call: Callable[[Any], Any], code: Code, details: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What the client's own code raises fails the call with gRPC's words for it, not as the server's error."""
    for logger in ("grpc._common", "grpc._channel"):
        # A log record would hold the call, and with it the connection.
        caplog.set_level(logging.CRITICAL + 1, logger=logger)
    with pytest.raises(grpc.RpcError) as caught:
        call(channel)
    assert (caught.value.code(), caught.value.details()) == (code, details)


def test_errors_of_the_client_are_no_failures() -> None:
    """A pool of fakes does not count them, and does not avoid the server."""
    with grpcpool.ChannelPool(SyncFakeFactory()) as pool:
        for call, *_ in _OWN_ERRORS.values():
            with pytest.raises(grpc.RpcError):
                call(pool)
        assert pool.stats().failures == 0


def test_a_call_that_the_server_cancels_was_not_cancelled_here(channel: Any) -> None:
    """Its future raises the error with code CANCELLED, and is not `cancelled()`."""
    future = channel.unary_unary(FAIL).future(b"CANCELLED", timeout=LONG)
    for wait in (future.result, lambda: [future.exception()]):
        try:
            (ended,) = wait()
        except grpc.RpcError as raised:
            ended = raised
        assert ended.code() is Code.CANCELLED
    assert future.done()
    assert not future.cancelled()


def test_a_call_of_a_closed_channel_was_not_cancelled_by_its_caller() -> None:
    """Its future raises the error with code CANCELLED, and is not `cancelled()`."""
    channel: Any = FakeChannel(holds_calls=True)
    future = channel.unary_unary(ECHO).future(b"")
    channel.close()
    with pytest.raises(grpc.RpcError, match="Channel closed!"):
        future.result()
    assert not future.cancelled()


def test_an_unread_stream_runs(channel: Any) -> None:
    """It is active until its last response has been read."""
    stream = channel.unary_stream(COUNT)(b"3,0", timeout=LONG)
    assert next(stream) == b"0"
    assert stream.is_active()
    assert stream.add_callback(lambda: None)
    assert list(stream) == [b"1", b"2"]
    assert not stream.is_active()


def test_a_cancelled_stream_has_no_more_responses(channel: Any) -> None:
    """Responses that were not read before `cancel()` are lost."""
    stream = channel.unary_stream(COUNT)(b"3,0", timeout=LONG)
    assert next(stream) == b"0"
    assert stream.cancel()
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    assert caught.value.code() is Code.CANCELLED


def test_a_request_may_wait_for_a_response(channel: Any) -> None:
    """A conversation whose next request depends on the last response goes on."""
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    requests.put(b"0")
    chat = channel.stream_stream(CHAT)(iter(requests.get, None), timeout=LONG)
    for number in range(3):
        assert next(chat) == str(number).encode()
        requests.put(str(number + 1).encode() if number < 2 else None)
    assert list(chat) == []


def test_misspelt_arguments_are_refused(channel: Any) -> None:
    """The multicallables take gRPC's arguments and no others."""
    makers = (channel.unary_unary, channel.unary_stream, channel.stream_unary, channel.stream_stream)
    for multicallable in [make(ECHO) for make in makers]:
        for begin in (multicallable, *(getattr(multicallable, it, multicallable) for it in ("with_call", "future"))):
            with pytest.raises(TypeError, match="timout"):
                begin(b"", timout=3)
            with pytest.raises(TypeError, match="argument"):
                begin(b"", None, None, None, None, None, "a sixth")


# --- only the fakes -----------------------------------------------------------------------------------------------


def _endless(request: bytes) -> Iterator[bytes]:
    while True:
        yield request


def test_an_endless_handler_waits_for_its_reader() -> None:
    """It is a few responses ahead of the reader, and ends with the call."""
    produced: list[bytes] = []
    ended = threading.Event()

    def endless(request: bytes) -> Iterator[bytes]:
        try:
            for response in _endless(request):
                produced.append(response)
                yield response
        finally:
            ended.set()

    with FakeChannel({COUNT: endless}) as channel:
        stream: Any = channel.unary_stream(COUNT)(b"a")
        for _ in range(100):
            next(stream)
        assert len(produced) < 200
        stream.cancel()
        assert ended.wait(LONG)


@in_loop
async def test_an_endless_handler_waits_for_its_reader_on_asyncio() -> None:
    """The same on asyncio."""
    produced: list[bytes] = []

    async def endless(request: bytes) -> AsyncIterator[bytes]:
        for response in _endless(request):
            produced.append(response)
            yield response

    async with aio.FakeChannel({COUNT: endless}) as channel:
        call: Any = channel.unary_stream(COUNT)(b"a")
        for _ in range(100):
            assert await call.read() == b"a"
        for _ in range(1000):
            await asyncio.sleep(0)
        assert len(produced) < 200
        call.cancel()


def test_a_stream_that_is_dropped_ends() -> None:
    """Its place in the pool is free, and its handler ends, as in gRPC."""
    factory = FakeFactory(lambda: FakeChannel({COUNT: _endless}))
    with grpcpool.ChannelPool(factory) as pool:
        maker: Any = pool
        stream = maker.unary_stream(COUNT)(b"a")
        assert next(stream) == b"a"
        assert pool.stats().in_flight == 1
        del stream
        gc.collect()
        eventually(lambda: pool.stats().in_flight == 0)
        eventually(factory.made[0].calls[0].done)


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
@pytest.mark.parametrize("timeout", [0.02, 0, -1])
def test_every_call_ends_at_its_deadline(kind: str, timeout: float) -> None:
    """Also a call that is held, and also if no thread waits for it."""
    channel: Any = FakeChannel(holds_calls=True)
    multicallable = getattr(channel, kind)(ECHO)
    request = numbers(1) if kind.startswith("stream") else b""
    call = getattr(multicallable, "future", multicallable)(request, timeout=timeout)
    assert call.time_remaining() <= max(timeout, 0)
    ended = threading.Event()
    if call.add_callback(ended.set):
        assert ended.wait(LONG)
    assert (call.code(), call.details()) == (Code.DEADLINE_EXCEEDED, "Deadline Exceeded")
    assert not call.cancelled()


def test_a_handler_that_is_late_misses_the_deadline() -> None:
    """A handler that reads endless requests is stopped; one that returns after the deadline has answered too late."""
    late = threading.Event()
    channel: Any = FakeChannel({COLLECT: b",".join, ECHO: lambda request: late.wait(0.05) or request, COUNT: _endless})
    calls: dict[str, Callable[[], Any]] = {
        "collect": lambda: channel.stream_unary(COLLECT)(_endless(b""), timeout=0.02),
        "echo": lambda: channel.unary_unary(ECHO)(b"", timeout=0.02),
        "future": lambda: channel.unary_unary(ECHO).future(b"", timeout=0.02).result(),
        "count": lambda: [None for _ in channel.unary_stream(COUNT)(b"", timeout=0.02)],
    }
    for call in calls.values():
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() is Code.DEADLINE_EXCEEDED


def test_nothing_is_sent_after_the_end() -> None:
    """What is sent after the end is ignored; `fail` loses unread responses, `finish` does not."""
    channel: Any = FakeChannel(holds_calls=True)
    streams = [channel.unary_stream(ECHO)(b"") for _ in range(3)]
    cancelled, failed, finished = channel.calls
    for call in channel.calls:
        call.send(b"1")
    cancelled.cancel()
    failed.fail(Code.ABORTED)
    finished.finish([b"2"])
    for call in channel.calls:
        call.send(b"late")
    for stream, code in zip(streams, (Code.CANCELLED, Code.ABORTED), strict=False):
        with pytest.raises(grpc.RpcError) as caught:
            next(stream)
        assert caught.value.code() is code
    assert list(streams[2]) == [b"1", b"2"]


def test_a_held_call_may_finish_without_a_response() -> None:
    """Its result is `None`, as on asyncio."""
    channel: Any = FakeChannel(holds_calls=True)
    call = channel.unary_unary(ECHO).future(b"")
    channel.calls[0].finish()
    assert call.result() is None


def test_a_callback_that_raises_does_not_stop_the_next(caplog: pytest.LogCaptureFixture) -> None:
    """Its error is logged, as gRPC logs it."""
    called: list[object] = []
    channel: Any = FakeChannel(holds_calls=True)
    call = channel.unary_unary(ECHO).future(b"")
    call.add_done_callback(_refuse)
    call.add_done_callback(called.append)
    channel.close()
    assert called == [call]
    assert "cannot be converted" in caplog.text


class _OnlyCode(grpc.RpcError):
    def code(self) -> Code:
        return Code.NOT_FOUND


class _Refusal(_OnlyCode):
    def details(self) -> str:
        return "no such order"

    def trailing_metadata(self) -> Any:
        return (("reason", "sold"),)


_RAISED: dict[str, tuple[Exception, Code, str, tuple[tuple[str, str], ...]]] = {
    "bare": (grpc.RpcError(), Code.UNKNOWN, "", ()),
    "with a code": (_OnlyCode(), Code.NOT_FOUND, "", ()),
    "with all": (_Refusal(), Code.NOT_FOUND, "no such order", (("reason", "sold"),)),
    "sync": (error(Code.ABORTED, "busy", [("a", "b")]), Code.ABORTED, "busy", (("a", "b"),)),
    "aio": (aio.error(Code.ABORTED, "busy", [("a", "b")]), Code.ABORTED, "busy", (("a", "b"),)),
    "OK": (error(Code.OK, "no error"), Code.UNKNOWN, "", ()),
    "another": (LookupError("of the handler"), Code.UNKNOWN, "of the handler", ()),
}
_each_raised = pytest.mark.parametrize(("raised", "code", "details", "trailing"), _RAISED.values(), ids=_RAISED)


@_each_raised
def test_a_handler_may_raise_any_error(
    raised: Exception, code: Code, details: str, trailing: tuple[tuple[str, str], ...]
) -> None:
    """The call ends with what the error has of code, details and trailing metadata."""

    def handler(request: Any) -> NoReturn:
        raise raised

    channel: Any = FakeChannel({FAIL: handler})
    for begin in (channel.unary_unary(FAIL).future, channel.unary_stream(FAIL)):
        call = begin(b"")
        assert call.code() is code
        assert details in call.details()
        assert call.trailing_metadata() == trailing


@_each_raised
@in_loop
async def test_a_handler_may_raise_any_error_on_asyncio(
    raised: Exception, code: Code, details: str, trailing: tuple[tuple[str, str], ...]
) -> None:
    """The same on asyncio: the call ends."""

    def handler(request: Any) -> NoReturn:
        raise raised

    async with aio.FakeChannel({FAIL: handler}) as channel:
        for make in (channel.unary_unary, channel.unary_stream):
            call: Any = make(FAIL)(b"")
            assert await asyncio.wait_for(call.code(), LONG) is code
            assert details in await call.details()
            assert tuple(await call.trailing_metadata()) == trailing


def test_a_held_call_shows_what_was_called() -> None:
    """Its method, and the request that a handler would get: bytes, or an iterator of them."""
    channel: Any = FakeChannel(holds_calls=True)
    channel.unary_unary(ECHO, str.encode).future("42")
    channel.unary_stream(COUNT, str.encode)("43")
    channel.stream_stream(CHAT, str.encode)(iter(["44", "45"]))
    one, two, three = channel.calls
    assert [call.method for call in channel.calls] == [ECHO, COUNT, CHAT]
    assert (one.request, two.request, list(three.request)) == (b"42", b"43", [b"44", b"45"])
    assert (error(Code.INTERNAL).method, error(Code.INTERNAL).request) == ("", None)


@in_loop
async def test_a_held_call_shows_what_was_called_on_asyncio() -> None:
    """The same on asyncio."""
    async with aio.FakeChannel(holds_calls=True) as channel:
        calls: list[Any] = [
            channel.unary_unary(ECHO, str.encode)("42"),
            channel.unary_stream(COUNT, str.encode)("43"),
            channel.stream_stream(CHAT, str.encode)(iter(["44", "45"])),
        ]
        assert channel.calls == calls
        assert [call.method for call in calls] == [ECHO, COUNT, CHAT]
        assert [call.request for call in calls[:2]] == [b"42", b"43"]
        assert [request async for request in calls[2].request] == [b"44", b"45"]


def test_a_thread_that_reads_is_woken_by_the_end() -> None:
    """A reader whose handler waits for requests gets the end when another thread cancels the call."""
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    channel: Any = FakeChannel()
    chat = channel.stream_stream(CHAT)(iter(requests.get, None))
    reading = background(lambda: list(chat))
    eventually(lambda: channel.calls)
    chat.cancel()
    with pytest.raises(grpc.RpcError):
        reading.result(LONG)
    requests.put(None)


class _Failed(BaseException):
    """What a test raises to fail, as `pytest.fail` does."""


def _failing(request: bytes) -> Iterator[bytes]:
    if request == b"wrong":
        raise _Failed
    yield request


def test_a_handler_may_fail_the_test() -> None:
    """An error that is not an `Exception` is raised where the stream is read, and the call is over."""
    with grpcpool.ChannelPool(SyncFakeFactory(lambda: FakeChannel({COUNT: _failing}))) as pool:
        maker: Any = pool
        assert list(maker.unary_stream(COUNT)(b"right")) == [b"right"]
        for read in (next, list, lambda stream: stream.result(), lambda stream: stream.exception()):
            stream = maker.unary_stream(COUNT)(b"wrong")
            with pytest.raises(_Failed):
                read(stream)
            assert stream.code() is Code.UNKNOWN
        eventually(lambda: pool.stats().in_flight == 0)


@in_loop
async def test_a_handler_may_fail_the_test_on_asyncio() -> None:
    """The same on asyncio, for each kind of response."""

    async def failing(request: bytes) -> bytes:
        raise _Failed

    factory = aio.FakeFactory(lambda: aio.FakeChannel({COUNT: _failing, ECHO: failing}))
    async with grpcpool.aio.ChannelPool(factory) as pool:
        maker: Any = pool
        with pytest.raises(_Failed):
            await maker.unary_unary(ECHO)(b"wrong")
        with pytest.raises(_Failed):
            await maker.unary_stream(COUNT)(b"wrong").read()
        with pytest.raises(_Failed):
            [_ async for _ in maker.unary_stream(COUNT)(b"wrong")]
        assert pool.stats().in_flight == 0


_name: contextvars.ContextVar[bytes] = contextvars.ContextVar("_name")


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
def test_a_handler_has_the_callers_context_variables(kind: str) -> None:
    """Also one that runs on a thread of its own."""
    channel: Any = FakeChannel({ECHO: lambda _: _name.get() if kind.endswith("unary") else [_name.get()]})
    _name.set(b"the test")
    answer = getattr(channel, kind)(ECHO)(numbers(1) if kind.startswith("stream") else b"")
    assert (answer if kind.endswith("unary") else next(answer)) == b"the test"


@pytest.mark.parametrize("end", ["dropped", "cancelled", "finished"])
def test_no_thread_waits_for_a_deadline_in_vain(end: str) -> None:
    """The thread that watches a call's deadline ends when the call ends, or is dropped with its channel."""
    before = set(threading.enumerate())
    channel: Any = FakeChannel(holds_calls=True)
    futures = [channel.unary_unary(ECHO).future(b"", timeout=3600) for _ in range(5)]
    assert set(threading.enumerate()) - before
    for call in channel.calls if end != "dropped" else ():
        call.cancel() if end == "cancelled" else call.finish([b""])
    if end == "dropped":
        del channel, futures[:]
        gc.collect()
    eventually(lambda: not set(threading.enumerate()) - before)


@pytest.mark.parametrize("timeout", [float("inf"), threading.TIMEOUT_MAX * 2])
def test_a_deadline_may_be_far_away(timeout: float) -> None:
    """A call that is held waits for its end, whether it blocks or is waited for."""
    channel: Any = FakeChannel(holds_calls=True)
    blocking = background(lambda: channel.unary_unary(ECHO)(b"", timeout=timeout))
    eventually(lambda: channel.calls)
    waiting = background(lambda: channel.calls[0].result(timeout=timeout))
    channel.calls[0].finish([b"1"])
    assert blocking.result(LONG) == waiting.result(LONG) == b"1"
