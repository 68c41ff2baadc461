"""The calls of the asyncio fake channel and of a real one keep the same contract."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
from grpc.aio import EOF, AioRpcError

from grpcpool import isolated
from support.fakes import AIO_HANDLERS, aio, numbers
from support.loops import in_loop
from support.servers import CHAT, COLLECT, COUNT, ECHO, FAIL, SLOW, Server
from support.waiting import LONG

pytestmark = pytest.mark.timeout(60)

# The stubs have no type for a multicallable without serializers: channels are `Any` here.
Make = Callable[[], Any]

_LOCALLY = "Locally cancelled by application!"


@pytest.fixture(params=["fake", "real"])
def make(request: pytest.FixtureRequest) -> Make:
    """Creates channels that answer as the test server does."""
    if request.param == "fake":
        return lambda: aio.FakeChannel(AIO_HANDLERS)
    server: Server = request.getfixturevalue("server")
    return lambda: grpc.aio.insecure_channel(server.target, isolated())


async def _each(values: Iterator[bytes]) -> AsyncIterator[bytes]:
    for value in values:
        yield value


async def _result(call: Any) -> Any:
    return await call


async def _read_out(call: Any) -> list[Any]:
    return [response async for response in call]


async def _waits(task: asyncio.Future[Any]) -> None:
    # Until the task has reached the point where it waits.
    for _ in range(10):
        await asyncio.sleep(0)
    assert not task.done()


async def _begin(channel: Any, kind: str) -> Any:
    """A call of that kind that runs and does not end."""
    makers = {
        "unary_unary": lambda: channel.unary_unary(SLOW)(b"5000", timeout=LONG),
        "unary_stream": lambda: channel.unary_stream(COUNT)(b"1,5000", timeout=LONG),
        "stream_unary": lambda: channel.stream_unary(COLLECT)(timeout=LONG),
        "stream_stream": lambda: channel.stream_stream(CHAT)(timeout=LONG),
    }
    await channel.channel_ready()
    return makers[kind]()


def _end_of(call: Any) -> Any:
    """Waits for the end of a call in the way usual for its kind."""
    return _result(call) if hasattr(call, "__await__") else call.read()


each_kind = pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])


# --- answers ------------------------------------------------------------------------------------------------------


@in_loop
async def test_a_unary_unary_call_is_awaited(make: Make) -> None:
    """The multicallable and the call have gRPC's types; awaiting twice returns the answer twice."""
    async with make() as channel:
        echo = channel.unary_unary(ECHO)
        assert isinstance(echo, grpc.aio.UnaryUnaryMultiCallable)
        call = echo(b"a", timeout=LONG)
        assert isinstance(call, grpc.aio.UnaryUnaryCall)
        assert [await call, await call] == [b"a", b"a"]
        assert (await call.code(), await call.details()) == (grpc.StatusCode.OK, "")
        assert call.done()
        assert not call.cancelled()
        assert not call.cancel()


@in_loop
async def test_a_unary_stream_call_is_iterated_or_read(make: Make) -> None:
    """Iterating yields each response once, then nothing; reading returns them one by one, then `EOF` every time."""
    async with make() as channel:
        count = channel.unary_stream(COUNT)
        assert isinstance(count, grpc.aio.UnaryStreamMultiCallable)
        call = count(b"3,0", timeout=LONG)
        assert isinstance(call, grpc.aio.UnaryStreamCall)
        assert await _read_out(call) == [b"0", b"1", b"2"]
        assert await _read_out(call) == []
        call = count(b"2,0", timeout=LONG)
        assert [await call.read() for _ in range(4)] == [b"0", b"1", EOF, EOF]
        assert await call.code() is grpc.StatusCode.OK


@in_loop
async def test_a_stream_runs_until_its_last_response_is_read(make: Make) -> None:
    """A stream is not done while there is something to read; it is done once `EOF` has been read."""
    async with make() as channel:
        call = channel.unary_stream(COUNT)(b"2,0", timeout=LONG)
        assert await call.read() == b"0"
        assert not call.done()
        assert [await call.read(), await call.read()] == [b"1", EOF]
        assert call.done()


@in_loop
async def test_a_stream_unary_call_takes_plain_and_asynchronous_iterators(make: Make) -> None:
    """Its requests come from a plain or an asynchronous iterator, or are written."""
    async with make() as channel:
        collect = channel.stream_unary(COLLECT)
        assert isinstance(collect, grpc.aio.StreamUnaryMultiCallable)
        assert isinstance(collect(numbers(1), timeout=LONG), grpc.aio.StreamUnaryCall)
        assert await collect(numbers(3), timeout=LONG) == b"0,1,2"
        assert await collect(_each(numbers(2)), timeout=LONG) == b"0,1"
        call = collect(timeout=LONG)
        await call.write(b"x")
        await call.write(b"y")
        await call.done_writing()
        assert await call == b"x,y"


@in_loop
async def test_a_stream_stream_call_is_a_conversation(make: Make) -> None:
    """Requests and responses alternate, both when written and read and with iterators."""
    async with make() as channel:
        chat = channel.stream_stream(CHAT)
        assert isinstance(chat, grpc.aio.StreamStreamMultiCallable)
        call = chat(timeout=LONG)
        assert isinstance(call, grpc.aio.StreamStreamCall)
        for request in (b"a", b"b"):
            await call.write(request)
            assert await call.read() == request
        await call.done_writing()
        assert await call.read() is EOF
        assert await _read_out(chat(numbers(3), timeout=LONG)) == [b"0", b"1", b"2"]
        assert await _read_out(chat(_each(numbers(2)), timeout=LONG)) == [b"0", b"1"]


@in_loop
async def test_messages_go_through_serializer_and_deserializer(make: Make) -> None:
    """The functions given to the makers turn requests into bytes and bytes into responses, in streams too."""
    async with make() as channel:
        assert await channel.unary_unary(ECHO, str.encode, bytes.decode)("text", timeout=LONG) == "text"
        chat = channel.stream_stream(CHAT, str.encode, bytes.decode)
        assert await _read_out(chat(iter("ab"), timeout=LONG)) == ["a", "b"]


@in_loop
async def test_a_codec_that_raises_yields_nothing(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """If a serializer or deserializer raises, the request is empty, or the response is `None`."""
    # A log record would hold the call, and with it the connection.
    caplog.set_level(logging.CRITICAL + 1, logger="grpc._common")

    def refuse(message: object) -> bytes:
        raise TypeError("cannot be converted")

    async with make() as channel:
        assert await channel.unary_unary(ECHO, refuse)(b"a", timeout=LONG) == b""
        assert await channel.unary_unary(ECHO, None, refuse)(b"a", timeout=LONG) is None


@each_kind
@in_loop
async def test_a_call_without_metadata_has_empty_ones(make: Make, kind: str) -> None:
    """Initial and trailing metadata are an empty `Metadata` of gRPC."""
    async with make() as channel:
        call = await _begin(channel, kind)
        call.cancel()
        assert await call.initial_metadata() == grpc.aio.Metadata()
        assert await call.trailing_metadata() == grpc.aio.Metadata()


# --- errors -------------------------------------------------------------------------------------------------------


@in_loop
async def test_an_error_is_raised_at_each_wait(make: Make) -> None:
    """Awaiting, and waiting for the connection, raise an `AioRpcError` with code and details; the call has them too."""
    async with make() as channel:
        call = channel.unary_unary(FAIL)(b"NOT_FOUND", timeout=LONG)
        for wait in (lambda: _result(call), lambda: _result(call), call.wait_for_connection):
            with pytest.raises(AioRpcError) as caught:
                await wait()
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            assert caught.value.details() == "failed as asked: NOT_FOUND"
        assert await call.code() is grpc.StatusCode.NOT_FOUND
        assert await call.details() == "failed as asked: NOT_FOUND"
        assert "failed as asked" in await call.debug_error_string()
        assert not call.cancelled()


@in_loop
async def test_an_error_is_raised_at_each_read(make: Make) -> None:
    """Reading a failed stream raises every time; iterating raises once and is then over."""
    async with make() as channel:
        fail = channel.unary_stream(FAIL)
        call = fail(b"ABORTED", timeout=LONG)
        for _ in range(2):
            with pytest.raises(AioRpcError, match="failed as asked: ABORTED"):
                await call.read()
        call = fail(b"ABORTED", timeout=LONG)
        with pytest.raises(AioRpcError, match="failed as asked: ABORTED"):
            await _read_out(call)
        assert await _read_out(call) == []


@in_loop
async def test_a_server_that_cancels_is_an_error(make: Make) -> None:
    """If the server cancels, the call is cancelled, and awaiting it raises `AioRpcError`, not `CancelledError`."""
    async with make() as channel:
        call = channel.unary_unary(FAIL)(b"CANCELLED", timeout=LONG)
        with pytest.raises(AioRpcError) as caught:
            await call
        assert caught.value.code() is grpc.StatusCode.CANCELLED
        assert call.cancelled()


@each_kind
@in_loop
async def test_a_call_keeps_its_deadline(make: Make, kind: str) -> None:
    """A call fails with DEADLINE_EXCEEDED when its deadline passes, or at once if it has already passed."""
    makers = {"unary_unary": SLOW, "unary_stream": COUNT, "stream_unary": COLLECT, "stream_stream": CHAT}
    async with make() as channel:
        for timeout in (0.05, 0, -1):
            given = () if kind.startswith("stream") else (b"5000,5000" if kind == "unary_stream" else b"5000",)
            call = getattr(channel, kind)(makers[kind])(*given, timeout=timeout)
            assert call.time_remaining() <= max(timeout, 0)
            with pytest.raises(AioRpcError) as caught:
                await _end_of(call)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert caught.value.details() == "Deadline Exceeded"
            assert call.time_remaining() == 0


@in_loop
async def test_a_call_without_deadline_has_no_time_remaining(make: Make) -> None:
    """Without a deadline `time_remaining()` is `None`."""
    async with make() as channel:
        call = channel.unary_unary(ECHO)(b"")
        assert call.time_remaining() is None
        await call


# --- the end ------------------------------------------------------------------------------------------------------


@in_loop
async def test_done_callbacks_are_called_in_order_before_await_returns(make: Make) -> None:
    """Each callback is called once with the call, in order, before the `await` returns; later ones at once."""
    events: list[object] = []
    async with make() as channel:
        call = channel.unary_unary(ECHO)(b"", timeout=LONG)
        call.add_done_callback(events.append)
        call.add_done_callback(lambda it: events.append(it.done()))
        await call
        assert events == [call, True]
        call.add_done_callback(lambda it: events.append("late"))
        assert events == [call, True, "late"]


@each_kind
@in_loop
async def test_a_callback_is_called_before_cancel_returns(make: Make, kind: str) -> None:
    """When a callback is called, the call is already done and cancelled."""
    events: list[object] = []
    async with make() as channel:
        call = await _begin(channel, kind)
        call.add_done_callback(lambda it: events.append((it.done(), it.cancelled())))
        assert not call.done()
        assert call.cancel()
        assert events == [(True, True)]


@each_kind
@pytest.mark.parametrize("begun", [False, True])
@in_loop
async def test_a_call_may_be_cancelled_before_and_after_it_has_begun(make: Make, kind: str, begun: bool) -> None:
    """A cancelled call is done at once; waiting raises `CancelledError`; code and details say so; it happens once."""
    async with make() as channel:
        call = await _begin(channel, kind)
        if begun and kind.startswith("stream"):
            await call.wait_for_connection()
        elif begun:
            await _waits(asyncio.ensure_future(call.code()))
        assert call.cancel()
        assert not call.cancel()
        assert call.done()
        assert call.cancelled()
        with pytest.raises(asyncio.CancelledError):
            await _end_of(call)
        assert (await call.code(), await call.details()) == (grpc.StatusCode.CANCELLED, _LOCALLY)


@each_kind
@in_loop
async def test_cancelling_a_wait_for_the_answer_cancels_the_call(make: Make, kind: str) -> None:
    """Other waiters for the answer are cancelled with it; a waiter for the code gets it."""
    async with make() as channel:
        call = await _begin(channel, kind)
        code = asyncio.ensure_future(call.code())
        waiting = asyncio.ensure_future(_end_of(call))
        await _waits(waiting)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await code is grpc.StatusCode.CANCELLED
        with pytest.raises(asyncio.CancelledError):
            await _end_of(call)


@each_kind
@pytest.mark.parametrize("ask", ["code", "details", "initial_metadata", "trailing_metadata"])
@in_loop
async def test_cancelling_a_wait_for_the_outcome_does_not(make: Make, kind: str, ask: str) -> None:
    """Cancelling a wait for the code, details or metadata does not cancel the call."""
    async with make() as channel:
        call = await _begin(channel, kind)
        waiting = asyncio.ensure_future(getattr(call, ask)())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert not call.done()
        call.cancel()


@in_loop
async def test_reading_a_stream_that_was_cancelled_raises(make: Make) -> None:
    """Reading or iterating a cancelled stream raises, even if it was read before."""
    async with make() as channel:
        read = channel.unary_stream(COUNT)(b"9,50", timeout=LONG)
        assert await read.read() == b"0"
        iterated = channel.unary_stream(COUNT)(b"9,50", timeout=LONG)
        iterator = iterated.__aiter__()
        assert await anext(iterator) == b"0"
        for call, wait in ((read, read.read), (iterated, lambda: anext(iterator))):
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await wait()
        assert await anext(iterator, None) is None


# --- styles -------------------------------------------------------------------------------------------------------


@in_loop
async def test_styles_of_reading_are_not_mixed(make: Make) -> None:
    """A stream that is read cannot be iterated, and the other way round."""
    async with make() as channel:
        call = channel.unary_stream(COUNT)(b"2,0", timeout=LONG)
        await call.read()
        with pytest.raises(grpc.aio.UsageError, match="may not be mixed"):
            call.__aiter__()
        # The oldest supported gRPC does not do that when the channel is closed.
        call.cancel()
        call = channel.unary_stream(COUNT)(b"2,0", timeout=LONG)
        assert await anext(call.__aiter__()) == b"0"
        with pytest.raises(grpc.aio.UsageError, match="may not be mixed"):
            await call.read()
        call.cancel()


@pytest.mark.parametrize(("kind", "method"), [("stream_unary", COLLECT), ("stream_stream", CHAT)])
@in_loop
async def test_styles_of_writing_are_not_mixed(make: Make, kind: str, method: str) -> None:
    """A call that was given its requests accepts no written ones, and no end of them."""
    async with make() as channel:
        call = getattr(channel, kind)(method)(numbers(1), timeout=LONG)
        with pytest.raises(grpc.aio.UsageError, match="may not be mixed"):
            await call.write(b"")
        with pytest.raises(grpc.aio.UsageError, match="may not be mixed"):
            await call.done_writing()


@in_loop
async def test_nothing_is_written_after_the_end(make: Make) -> None:
    """Writing after `done_writing`, or after the end of the call, raises `InvalidStateError`; ending again does not."""
    async with make() as channel:
        call = channel.stream_stream(CHAT)(timeout=LONG)
        await call.write(b"a")
        await call.done_writing()
        await call.done_writing()
        with pytest.raises(asyncio.InvalidStateError, match="half closed"):
            await call.write(b"b")
        assert [await call.read(), await call.read()] == [b"a", EOF]
        with pytest.raises(asyncio.InvalidStateError, match="already finished"):
            await call.write(b"b")
        await call.done_writing()


@pytest.mark.parametrize(("kind", "method"), [("stream_unary", COLLECT), ("stream_stream", CHAT)])
@pytest.mark.parametrize("asynchronous", [False, True])
@in_loop
async def test_requests_that_raise_cancel_the_call(make: Make, kind: str, method: str, asynchronous: bool) -> None:
    """An exception from an iterator of requests is not passed on; the call is cancelled, as if locally."""

    def bad() -> Iterator[bytes]:
        yield b"1"
        raise ValueError("of the caller's own")

    async with make() as channel:
        call = getattr(channel, kind)(method)(_each(bad()) if asynchronous else bad(), timeout=LONG)
        assert (await call.code(), await call.details()) == (grpc.StatusCode.CANCELLED, _LOCALLY)
        with pytest.raises(asyncio.CancelledError):
            await _end_of(call)


@pytest.mark.parametrize(("kind", "method"), [("stream_unary", COLLECT), ("stream_stream", CHAT)])
@in_loop
async def test_requests_are_not_waited_for_after_cancel(make: Make, kind: str, method: str) -> None:
    """A request iterator that is waiting for its next request is cancelled with the call."""
    began, ended = asyncio.Event(), asyncio.Event()

    async def never() -> AsyncIterator[bytes]:
        try:
            began.set()
            await asyncio.Event().wait()
            yield b""
        finally:
            ended.set()

    async with make() as channel:
        call = getattr(channel, kind)(method)(never(), timeout=LONG)
        await began.wait()
        # gRPC 1.60.2 itself may leave the connection open if a call is cancelled before it is sent.
        await call.wait_for_connection()
        call.cancel()
        await ended.wait()


@each_kind
@in_loop
async def test_a_connection_may_be_waited_for(make: Make, kind: str) -> None:
    """It returns while requests are being streamed, or with a unary call's answer, and raises if the call failed."""
    async with make() as channel:
        if kind.startswith("stream"):
            call = await _begin(channel, kind)
            await call.wait_for_connection()
            assert not call.done()
            call.cancel()
            return
        method, request = (ECHO, b"") if kind == "unary_unary" else (COUNT, b"1,0")
        call = getattr(channel, kind)(method)(request, timeout=LONG)
        await call.wait_for_connection()
        call = getattr(channel, kind)(FAIL)(b"INTERNAL", timeout=LONG)
        with pytest.raises(AioRpcError):
            await call.wait_for_connection()
