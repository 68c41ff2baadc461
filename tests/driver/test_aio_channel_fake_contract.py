"""The asyncio fake channel and a real one keep the same contract; and what only the fake offers to tests."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import pytest
from grpc.aio import EOF, AioRpcError, UsageError

from grpcpool import isolated
from support.fakes import AIO_HANDLERS, aio, error, numbers
from support.loops import in_loop, run
from support.servers import CHAT, COLLECT, COUNT, ECHO, FAIL, SLOW, Server
from support.waiting import LONG, background

pytestmark = pytest.mark.timeout(60)

# The stubs have no type for a multicallable without serializers: channels are `Any` here.
Make = Callable[[], Any]

IDLE, CONNECTING, READY, FAILED, SHUTDOWN = (
    grpc.ChannelConnectivity.IDLE,
    grpc.ChannelConnectivity.CONNECTING,
    grpc.ChannelConnectivity.READY,
    grpc.ChannelConnectivity.TRANSIENT_FAILURE,
    grpc.ChannelConnectivity.SHUTDOWN,
)
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


@pytest.fixture(params=["fake", "real"])
def make(request: pytest.FixtureRequest) -> Make:
    """Creates channels that answer as the test server does."""
    if request.param == "fake":
        return lambda: aio.FakeChannel(AIO_HANDLERS)
    server: Server = request.getfixturevalue("server")
    return lambda: grpc.aio.insecure_channel(server.target, isolated())


@pytest.fixture(params=["fake", "real"])
def make_unreachable(request: pytest.FixtureRequest) -> Make:
    """Creates channels that do not connect."""
    if request.param == "fake":
        return lambda: aio.FakeChannel(connects=False)
    return lambda: grpc.aio.insecure_channel("127.0.0.1:1", isolated())


async def _result(call: Any) -> Any:
    return await call


async def _waiting(wait: Any) -> asyncio.Future[Any]:
    """A task that is already waiting."""
    task: asyncio.Future[Any] = asyncio.ensure_future(wait)
    for _ in range(10):
        await asyncio.sleep(0)
    assert not task.done()
    return task


# --- both ---------------------------------------------------------------------------------------------------------


@in_loop
async def test_a_channel_connects_when_it_is_asked_to(make: Make) -> None:
    """A channel is IDLE until it is asked to connect; waiters for a change are woken; then it becomes READY."""
    async with make() as channel:
        assert channel.get_state() is IDLE
        changed = await _waiting(channel.wait_for_state_change(IDLE))
        channel.get_state(try_to_connect=True)
        await changed
        await channel.channel_ready()
        assert channel.get_state() is READY
        await channel.wait_for_state_change(IDLE)


@in_loop
async def test_a_wait_for_a_change_may_be_cancelled(make: Make) -> None:
    """After a wait for a state change is cancelled, the channel still works."""
    async with make() as channel:
        changed = await _waiting(channel.wait_for_state_change(IDLE))
        changed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await changed
        assert await channel.unary_unary(ECHO)(b"a", timeout=LONG) == b"a"


@in_loop
async def test_close_wakes_waiters_for_a_change(make: Make) -> None:
    """Waking up, it is in state SHUTDOWN, whether or not asked to connect, and further waits raise."""
    channel = make()
    changed = await _waiting(channel.wait_for_state_change(IDLE))
    await channel.close()
    await changed
    assert channel.get_state() is channel.get_state(try_to_connect=True) is SHUTDOWN
    for state in (IDLE, SHUTDOWN):
        with pytest.raises(UsageError, match=r"Channel is closed\."):
            await channel.wait_for_state_change(state)
    with pytest.raises(UsageError, match=r"Channel is closed\."):
        await channel.channel_ready()


@in_loop
async def test_close_fails_waiters_for_readiness(make_unreachable: Make) -> None:
    """`channel_ready` waits while there is no connection; after `close()` it raises as on a closed channel."""
    channel = make_unreachable()
    ready = await _waiting(channel.channel_ready())
    await channel.close()
    with pytest.raises(UsageError, match=r"Channel is closed\."):
        await ready


@in_loop
async def test_close_cancels_running_calls_and_refuses_new_ones(make: Make) -> None:
    """An awaited call is cancelled; later calls of each kind raise `UsageError`; a second close does nothing."""
    channel = make()
    await channel.channel_ready()
    makers = [getattr(channel, kind)(ECHO) for kind in KINDS]
    call = channel.unary_unary(SLOW)(b"5000", timeout=LONG)
    awaiting = await _waiting(_result(call))
    await channel.close()
    assert call.done()
    assert call.cancelled()
    with pytest.raises(asyncio.CancelledError):
        await awaiting
    for maker in makers:
        with pytest.raises(UsageError, match=r"Channel is closed\."):
            maker(b"")
    await channel.close()


@in_loop
async def test_close_with_grace_lets_calls_end(make: Make) -> None:
    """`close(grace)` waits for the call, and takes no new calls meanwhile."""
    channel = make()
    echo = channel.unary_unary(ECHO)
    await channel.channel_ready()
    answer = await _waiting(_result(channel.unary_unary(SLOW)(b"100", timeout=LONG)))
    closing = await _waiting(channel.close(LONG))
    with pytest.raises(UsageError, match=r"Channel is closed\."):
        echo(b"")
    await closing
    assert await answer == b"100"


@in_loop
async def test_close_with_grace_cancels_what_does_not_end(make: Make) -> None:
    """At the end of the grace, what still runs is cancelled."""
    channel = make()
    await channel.channel_ready()
    call = channel.unary_unary(SLOW)(b"1500", timeout=LONG)
    answer = await _waiting(_result(call))
    await channel.close(0.05)
    with pytest.raises(asyncio.CancelledError):
        await answer
    assert channel.get_state() is SHUTDOWN


@in_loop
async def test_leaving_the_block_closes(make: Make) -> None:
    """`async with` yields the channel itself, and closes it without grace."""
    channel = make()
    async with channel as entered:
        assert entered is channel
    assert channel.get_state() is SHUTDOWN


# --- the fake, for tests ------------------------------------------------------------------------------------------


async def _coroutine(request: bytes) -> bytes:
    return b"<" + request + b">"


class _CallableObject:
    async def __call__(self, request: bytes) -> bytes:
        return b"<" + request + b">"


@pytest.mark.parametrize(
    "handler",
    [
        _coroutine,
        _CallableObject(),
        lambda request: b"<" + request + b">",
        lambda request: _coroutine(request),  # noqa: PLW0108 -- a plain function that returns a coroutine
        functools.partial(_coroutine),
    ],
    ids=["coroutine", "object", "plain", "returns a coroutine", "partial"],
)
@in_loop
async def test_a_handler_is_any_callable(handler: Callable[[bytes], object]) -> None:
    """A handler returns the response, or an awaitable of it."""
    async with aio.FakeChannel({ECHO: handler}) as channel:
        assert await channel.unary_unary(ECHO)(b"a") == b"<a>"


async def _doubled(requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request * 2


def _doubled_in_plain_code(requests: Iterator[bytes]) -> Iterator[bytes]:
    for request in requests:
        yield request * 2


@pytest.mark.parametrize(
    "handler",
    [
        _doubled,
        _doubled_in_plain_code,
        lambda requests: _doubled(requests),  # noqa: PLW0108 -- a plain function that returns a generator
        lambda requests: [request * 2 for request in requests],
    ],
    ids=["asynchronous", "plain", "returns a generator", "returns a list"],
)
@in_loop
async def test_a_handler_of_streams_is_any_callable(handler: Callable[[Any], object]) -> None:
    """A handler of streams may iterate the requests, and return its responses, either way."""
    async with aio.FakeChannel({CHAT: handler}) as channel:
        assert [response async for response in channel.stream_stream(CHAT)(numbers(2))] == [b"00", b"11"]


@in_loop
async def test_a_plain_handler_is_called_when_all_requests_have_come() -> None:
    """A plain handler is called once all requests have come, so it needs no asynchronous iterator."""
    called: list[list[bytes]] = []

    def collect(requests: Iterator[bytes]) -> bytes:
        called.append(list(requests))
        return b"all"

    async with aio.FakeChannel({COLLECT: collect}) as channel:
        call = channel.stream_unary(COLLECT)()
        await call.write(b"a")
        assert not called
        await call.write(b"b")
        await call.done_writing()
        assert await call == b"all"
        assert called == [[b"a", b"b"]]


@in_loop
async def test_a_handler_that_fails_fails_the_call() -> None:
    """A failing handler ends the call with its error of either world, or UNKNOWN, after the responses already sent."""

    async def breaks(request: bytes) -> AsyncIterator[bytes]:
        yield b"first"
        raise KeyError("of the handler's own")

    def fails(request: bytes) -> bytes:
        raise error(grpc.StatusCode.ABORTED, "of threads")

    async with aio.FakeChannel({COUNT: breaks, FAIL: fails}) as channel:
        call = channel.unary_stream(COUNT)(b"")
        assert await call.read() == b"first"
        with pytest.raises(AioRpcError, match="of the handler's own") as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.UNKNOWN
        with pytest.raises(AioRpcError, match="of threads") as caught:
            await channel.unary_unary(FAIL)(b"")
        assert caught.value.code() is grpc.StatusCode.ABORTED


@in_loop
async def test_a_handler_is_cancelled_with_its_call() -> None:
    """A handler is cancelled with its call, even a generator between two responses."""
    events: list[str] = []

    async def waits(request: bytes) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"more"
        finally:
            events.append("closed")

    async with aio.FakeChannel({COUNT: waits}) as channel:
        call = channel.unary_stream(COUNT)(b"")
        assert [await call.read(), await call.read()] == [b"more", b"more"]
        call.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        assert events == ["closed"]


@in_loop
async def test_a_call_past_its_deadline_is_not_handled() -> None:
    """The handler of a call whose deadline has passed is not called."""
    called: list[bytes] = []
    async with aio.FakeChannel({ECHO: called.append}) as channel:
        with pytest.raises(AioRpcError, match="Deadline Exceeded"):
            await channel.unary_unary(ECHO)(b"", timeout=0)
    assert not called


@in_loop
async def test_held_calls_end_as_the_test_says() -> None:
    """Held calls are in `calls`, in order, and run until `finish` or `fail`; only the first of these has an effect."""
    async with aio.FakeChannel(holds_calls=True) as channel:
        first, second = (channel.unary_unary(ECHO)(b"") for _ in range(2))
        assert channel.calls == [first, second]
        waiting = [await _waiting(_result(call)) for call in (first, second)]
        first.finish([b"an answer"])
        second.fail(grpc.StatusCode.UNAVAILABLE, "lost")
        second.finish([b"too late"])
        assert await waiting[0] == b"an answer"
        with pytest.raises(AioRpcError, match="lost"):
            await waiting[1]


@in_loop
async def test_a_held_stream_gives_what_the_test_sends() -> None:
    """Responses arrive as they are sent; `finish` ends the stream once they are read, `fail` ends it at once."""
    async with aio.FakeChannel(holds_calls=True) as channel:
        call = channel.stream_stream(CHAT)()
        reading = await _waiting(call.read())
        call.send(b"a")
        assert await reading == b"a"
        await call.write(b"a request")
        assert list(call.requests) == [b"a request"]
        call.finish([b"b"])
        assert not call.done()
        assert [await call.read(), await call.read()] == [b"b", EOF]
        lost = channel.unary_stream(COUNT)(b"")
        lost.send(b"a")
        lost.fail(grpc.StatusCode.UNAVAILABLE)
        assert lost.done()
        with pytest.raises(AioRpcError):
            await anext(lost.__aiter__())


@in_loop
async def test_the_test_sets_the_state() -> None:
    """A channel that does not connect is CONNECTING, then in the state that it is set to; SHUTDOWN is final."""
    channel = aio.FakeChannel(connects=False)
    assert channel.get_state(try_to_connect=True) is IDLE
    assert channel.state is channel.get_state(try_to_connect=True) is CONNECTING
    ready = await _waiting(channel.channel_ready())
    assert channel.subscribers == 1
    changed = await _waiting(channel.wait_for_state_change(CONNECTING))
    channel.set_state(CONNECTING)
    assert await _waiting(changed) is changed
    channel.set_state(FAILED)
    await changed
    channel.set_state(READY)
    await ready
    assert channel.subscribers == 0
    await channel.close()
    await channel.close()
    assert channel.closed == 2
    channel.set_state(READY)
    assert channel.state is SHUTDOWN


def test_a_channel_may_be_made_outside_of_a_loop() -> None:
    """A channel created outside of a loop belongs to the loop of its first use, and raises in another."""
    channel: Any = aio.FakeChannel()

    async def use() -> None:
        await channel.unary_unary(ECHO)(b"")

    run(use())
    with pytest.raises(RuntimeError, match="another"):
        run(use())


def test_a_channel_that_is_made_in_a_loop_belongs_to_it() -> None:
    """A channel created in a loop belongs to that loop, like a real one."""

    async def make() -> Any:
        return aio.FakeChannel()

    channel = run(make())

    async def use() -> None:
        await channel.unary_unary(ECHO)(b"")

    with pytest.raises(RuntimeError, match="another"):
        run(use())


def test_a_factory_remembers_what_it_made() -> None:
    """A factory fails as often as it is asked to, from any thread; `open` lists the channels not closed."""
    factory = aio.FakeFactory(fails=1)
    with pytest.raises(ConnectionRefusedError):
        factory()
    first, second = factory(), background(factory).result(LONG)
    assert isinstance(first, grpc.aio.Channel)
    assert factory.made == factory.open == [first, second]
    run(first.close())
    assert (factory.open, factory.calls) == ([second], 3)
