"""A call for which there is no place waits, and is a complete call while it waits.

The reference is a call of gRPC's own on a channel that is still connecting, to a peer that accepts the connection and
never sends anything: it waits, too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import grpc
import pytest
from grpc.aio import EOF

from aio_calls.support import Full, World, begun, failing, world
from grpcpool import isolated
from support.aio_ways import STREAM, WAYS, Outcome, Way, outcome_of, read_out, status_of
from support.call_server import CallServer, new_tag
from support.loops import in_loop, settle, until
from support.servers import mute_target
from support.waiting import LONG

pytestmark = pytest.mark.timeout(60)

WRITERS = tuple(way for way in WAYS if way.writes)
ONE_ANSWER = tuple(way for way in WAYS if not way.streams_out)
STREAMS = tuple(way for way in WAYS if way.streams_out)

Ask = Callable[[Way, Any], Coroutine[Any, Any, Any]]

_STATUS: dict[str, Ask] = {
    "initial_metadata": lambda way, call: call.initial_metadata(),
    "trailing_metadata": lambda way, call: call.trailing_metadata(),
    "code": lambda way, call: call.code(),
    "details": lambda way, call: call.details(),
    "debug_error_string": lambda way, call: call.debug_error_string(),
}
_ASKS: dict[str, Ask] = {
    **_STATUS,
    "wait_for_connection": lambda way, call: call.wait_for_connection(),
    "take": lambda way, call: way.take(call),
    "write": lambda way, call: call.write(b"ok"),
    "done_writing": lambda way, call: call.done_writing(),
}
_BOTH = [
    pytest.param(way, ask, id=f"{ask}-{way}")
    for ask in _ASKS
    for way in WAYS
    if way.streams_in or ask not in {"write", "done_writing"}
]


@contextlib.asynccontextmanager
async def _waiting_channels(calls: CallServer, mute: str) -> AsyncIterator[tuple[Any, Full]]:
    """Two channels on which calls wait: the reference, gRPC's own that is still connecting; and a full pool."""
    async with world(calls) as at, grpc.aio.insecure_channel(mute, isolated()) as connecting:
        yield connecting, await at.full()


@pytest.fixture
def mute() -> Iterator[str]:
    """A target that accepts connections and never sends anything, so that channels to it stay connecting."""
    with mute_target() as target:
        yield target


# --- while it waits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=str)
@in_loop
async def test_it_answers_like_a_running_call(calls: CallServer, way: Way) -> None:
    """A waiting call answers like a running one whatever a running call can answer; then it runs."""
    async with world(calls) as at:
        full = await at.full()
        tag = new_tag()
        waiting, running = way.begin(full.pool, timeout=30), way.begin(at.plain, f"hold:{tag}", timeout=30)
        assert full.waiting == 1
        for call in (waiting, running):
            assert isinstance(call, getattr(grpc.aio, f"{way.maker.title().replace('_', '')}Call"))
            assert not call.done()
            assert not call.cancelled()
            assert 20 < call.time_remaining() <= 30
            assert repr(call)
        full.make_room()
        assert await way.use(waiting) == ([b"0", b"1", b"2"] if way.streams_out else b"0")
        running.cancel()


@pytest.mark.parametrize("way", WAYS, ids=str)
@in_loop
async def test_without_a_deadline_none_remains(calls: CallServer, way: Way) -> None:
    """`time_remaining` of a call without a deadline is `None`, although the pool limits the wait."""
    async with world(calls) as at:
        full = await at.full()
        for channel in (at.plain, full.pool):
            call = way.begin(channel, timeout=None)
            assert call.time_remaining() is None
            call.cancel()


@pytest.mark.parametrize("command", ["ok", "fail"])
@pytest.mark.parametrize("way", WAYS, ids=str)
@in_loop
async def test_what_must_wait_waits_through_the_queue(calls: CallServer, way: Way, command: str) -> None:
    """Metadata, code and details wait until the call has run, however early they are asked for."""
    async with world(calls) as at:
        full = await at.full()
        native, call = way.begin(at.plain, command), way.begin(full.pool, command)
        asked = await begun(*(ask(way, call) for ask in _STATUS.values()))
        (using,) = await begun(outcome_of(way.use(call, command)))
        full.make_room()
        assert await using == await outcome_of(way.use(native, command))
        for ask, task in zip(_STATUS.values(), asked, strict=True):
            answer, expected = await task, await ask(way, native)
            if isinstance(expected, str):
                # Addresses and times differ.
                answer, expected = answer.split(" {")[0], expected.split(" {")[0]
            assert answer == expected
            assert type(answer) is type(expected)


@pytest.mark.parametrize("way", WAYS, ids=str)
@in_loop
async def test_wait_for_connection(calls: CallServer, way: Way) -> None:
    """`wait_for_connection` waits through the queue; afterwards it returns at once."""
    async with world(calls) as at:
        full = await at.full()
        call = way.begin(full.pool)
        waiting = await begun(call.wait_for_connection(), call.wait_for_connection())
        full.make_room()
        assert await way.use(call)
        assert [await task for task in waiting] == [None, None]
        assert await call.wait_for_connection() is None


@pytest.mark.parametrize(("way", "ask"), _BOTH)
@in_loop
async def test_cancelling_a_waiting_task(calls: CallServer, mute: str, way: Way, ask: str) -> None:
    """Cancelling a task that waits for something of a call has the same effect as in gRPC."""
    async with _waiting_channels(calls, mute) as (connecting, full):
        outcomes = []
        for channel in (connecting, full.pool):
            call = way.begin(channel)
            asking = asyncio.create_task(_ASKS[ask](way, call))
            await settle(10)
            early = asking.done()
            asking.cancel()
            outcomes.append((early, await outcome_of(asking), call.cancelled(), call.done()))
            call.cancel()
        assert outcomes[0] == outcomes[1]


def _ends_in_grpc(way: Way, ask: str) -> bool:
    # In gRPC itself, writes, and waits for the connection of a call that streams requests, never end.
    return ask not in {"write", "done_writing"} and not (ask == "wait_for_connection" and way.streams_in)


@pytest.mark.parametrize(("way", "ask"), [each for each in _BOTH if _ends_in_grpc(*each.values)])  # type: ignore[arg-type]
@in_loop
async def test_waiting_tasks_of_a_cancelled_call(calls: CallServer, mute: str, way: Way, ask: str) -> None:
    """All tasks that wait for something of a cancelled call get what they get in gRPC."""
    async with _waiting_channels(calls, mute) as (connecting, full):
        outcomes = []
        for channel in (connecting, full.pool):
            call = way.begin(channel)
            asking = await begun(_ASKS[ask](way, call), *([] if ask == "take" else [_ASKS[ask](way, call)]))
            call.cancel()
            outcomes.append([await outcome_of(task) for task in asking])
        assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("ask", ["write", "wait_for_connection", "done_writing"])
@pytest.mark.parametrize("way", WRITERS, ids=str)
@in_loop
async def test_writing_tasks_of_a_cancelled_call(calls: CallServer, way: Way, ask: str) -> None:
    """No task waits for ever on a call that was cancelled while it waited."""
    async with world(calls) as at:
        full = await at.full()
        call = way.begin(full.pool)
        (asking,) = await begun(_ASKS[ask](way, call))
        call.cancel()
        outcome = await asyncio.wait_for(outcome_of(asking), 5)
        assert outcome in {("cancelled",), (asyncio.InvalidStateError, "RPC already finished."), ("answer", None)}


# --- several awaiters -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [False, True], ids=["placed", "waiting"])
@pytest.mark.parametrize("command", ["ok", "fail"])
@pytest.mark.parametrize("way", ONE_ANSWER, ids=str)
@in_loop
async def test_several_tasks_await_it(calls: CallServer, way: Way, command: str, wait: bool) -> None:
    """Several awaiters each get the answer, or an error of their own; so do later ones."""
    async with world(calls) as at:
        full = await at.full()
        if not wait:
            full.make_room()
            await until(lambda: full.pool.stats().in_flight == 0)
        call, native = way.begin(full.pool, command), way.begin(at.plain, command)
        tasks = [asyncio.create_task(way.take(call)) for _ in range(3)]
        await settle(10)
        full.make_room()
        await way.send(call, command)
        expected = await outcome_of(way.use(native, command))
        assert [await outcome_of(task) for task in tasks] == [expected] * 3
        assert await outcome_of(way.take(call)) == expected
        errors = [task.exception() for task in tasks]
        assert len({id(error) for error in errors}) == (1 if command == "ok" else 3)


@pytest.mark.parametrize("way", ONE_ANSWER, ids=str)
@in_loop
async def test_one_of_several_is_cancelled(calls: CallServer, mute: str, way: Way) -> None:
    """As in gRPC, cancelling one of several awaiters cancels the call and so all, unless it shields the call."""
    async with _waiting_channels(calls, mute) as (connecting, full):
        for channel in (connecting, full.pool):
            call = way.begin(channel)
            tasks = await begun(way.take(call), way.take(call), way.take(call))
            tasks[1].cancel()
            assert [await outcome_of(task) for task in tasks] == [("cancelled",)] * 3
            assert await status_of(call) == (
                True,
                True,
                grpc.StatusCode.CANCELLED,
                "Locally cancelled by application!",
            )
            shielded = way.begin(channel)
            (task,) = await begun(outcome_of(asyncio.shield(shielded)))
            task.cancel()
            await settle(10)
            assert not shielded.done()
            shielded.cancel()
            await settle(10)


# --- responses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", STREAMS, ids=str)
@in_loop
async def test_the_first_response_waits(calls: CallServer, way: Way) -> None:
    """Readers wait for the start and continue from there, in any number of loops."""
    async with world(calls) as at:
        full = await at.full()
        call = way.begin(full.pool)
        (first,) = await begun(way.first(call))
        full.make_room()
        await way.send(call)
        assert await first == b"0"
        assert await way.first(call) == b"1"
        assert await way.take(call) == [b"2"]
        assert await way.take(call) == []
        assert await call.code() is grpc.StatusCode.OK


@in_loop
async def test_an_iteration_holds_its_call(calls: CallServer) -> None:
    """`async for` directly over what a stub returns reads to the end, at once and after a wait."""
    async with world(calls) as at:
        full = await at.full()

        async def read_all() -> list[bytes]:
            return [response async for response in STREAM.begin(full.pool)]

        (reading,) = await begun(read_all())
        full.make_room()
        assert await reading == [b"0", b"1", b"2"]
        assert await read_all() == [b"0", b"1", b"2"]


@in_loop
async def test_an_iterator_is_at_its_end(calls: CallServer) -> None:
    """After the last response the iterator raises `StopAsyncIteration` each time, and `read` returns `EOF`."""
    async with world(calls) as at:
        full = await at.full()
        call = STREAM.begin(full.pool)
        responses = aiter(call)
        assert aiter(responses) is responses
        full.make_room()
        assert [response async for response in responses] == [b"0", b"1", b"2"]
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(responses)
        assert await call.read() is EOF


@pytest.mark.parametrize("way", [way for way in WAYS if way.takes != "await"], ids=str)
@in_loop
async def test_an_empty_stream(calls: CallServer, way: Way) -> None:
    """A stream that ends without a response is empty, also if it had to wait."""
    async with world(calls) as at:
        full = await at.full()
        call = way.begin(full.pool, "none")
        full.make_room()
        assert await way.use(call, "none") == []
        assert await call.code() is grpc.StatusCode.OK


@in_loop
async def test_a_stream_without_requests(calls: CallServer) -> None:
    """A call whose iterator of requests is empty fails as on gRPC's own channel, also if it had to wait."""
    way = WAYS[6]
    async with world(calls) as at:
        full = await at.full()
        expected = await outcome_of(way.whole(at.plain, requests=iter(())))
        assert expected[0] == "error"
        reading = asyncio.create_task(outcome_of(way.whole(full.pool, requests=iter(()))))
        full.make_room()
        assert await reading == expected


@in_loop
async def test_responses_that_cannot_be_deserialized(calls: CallServer) -> None:
    """They are `None`, as in gRPC, also if the call had to wait."""
    async with world(calls) as at:
        full = await at.full()
        call = STREAM.begin(full.pool, deserializer=failing)
        full.make_room()
        assert await STREAM.take(call) == [None, None, None]


# --- requests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WRITERS, ids=str)
@in_loop
async def test_writing_waits(calls: CallServer, way: Way) -> None:
    """Requests written to a waiting call are sent in their order once it has started."""
    async with world(calls) as at:
        full = await at.full()
        call = way.begin(full.pool)
        written: list[str] = []
        tag = new_tag()

        async def write() -> None:
            # A stream ends with the answer to the first request; later ones would be too late.
            for request in (f"hold:{tag}", "b", "c") if way.streams_out else ("a", "b", "c"):
                await call.write(request.encode())
                written.append(request)
            await call.done_writing()
            await call.done_writing()

        (writing,) = await begun(write())
        assert written == []
        full.make_room()
        if way.streams_out:
            assert await way.first(call) == b"0"
        else:
            assert await call == b"a"
        await writing
        assert len(written) == 3
        call.cancel()


async def _begun_where(at: World, way: Way, where: str) -> tuple[Full, Any]:
    """A call of gRPC's own, or of a pool with or without a free place; and that pool."""
    full = await at.full()
    if where != "waiting":
        full.make_room()
        await until(lambda: full.pool.stats().in_flight == 0)
    return full, way.begin(at.plain if where == "native" else full.pool)


@pytest.mark.parametrize("where", ["native", "placed", "waiting"])
@pytest.mark.parametrize("way", WRITERS, ids=str)
@in_loop
async def test_writing_too_late(calls: CallServer, way: Way, where: str) -> None:
    """After `done_writing`, and after the end, `write` raises as in gRPC; `done_writing` does nothing."""
    async with world(calls) as at:
        full, call = await _begun_where(at, way, where)
        sending = asyncio.create_task(way.send(call))
        await settle(10)
        full.make_room()
        await sending
        # The answer may be here already.
        with pytest.raises(asyncio.InvalidStateError, match=r"half closed|already finished"):
            await call.write(b"late")
        assert await way.take(call)
        with pytest.raises(asyncio.InvalidStateError, match="already finished"):
            await call.write(b"late")
        assert await call.done_writing() is None


@pytest.mark.parametrize("ask", ["write", "done_writing"])
@pytest.mark.parametrize("where", ["native", "placed", "waiting"])
@pytest.mark.parametrize("way", [way for way in WAYS if "iterator" in way.gives], ids=str)
@in_loop
async def test_writing_to_a_call_with_an_iterator(calls: CallServer, way: Way, where: str, ask: str) -> None:
    """Writing to a call with a request iterator raises `UsageError` at once, and does not affect the call."""
    async with world(calls) as at:
        full, call = await _begun_where(at, way, where)
        outcome = await outcome_of(asyncio.wait_for(_ASKS[ask](way, call), 2))
        assert outcome == (grpc.aio.UsageError, "The iterator and read/write APIs may not be mixed on a single RPC.")
        full.make_room()
        assert await way.take(call)


@pytest.mark.parametrize("where", ["native", "placed", "waiting"])
@pytest.mark.parametrize("first", ["read", "async for"])
@in_loop
async def test_reading_both_ways(calls: CallServer, where: str, first: str) -> None:
    """Reading the second way raises `UsageError`; reading the first way continues."""
    async with world(calls) as at:
        full, call = await _begun_where(at, STREAM, where)
        if first == "read":
            begin = asyncio.create_task(call.read())
            await settle(10)
            full.make_room()
            assert await begin == b"0"
            with pytest.raises(grpc.aio.UsageError):
                aiter(call)
            assert [response async for response in read_out(call)] == [b"1", b"2"]
        else:
            responses = aiter(call)
            full.make_room()
            with pytest.raises(grpc.aio.UsageError):
                await call.read()
            assert [response async for response in responses] == [b"0", b"1", b"2"]


@pytest.mark.parametrize("where", ["native", "placed", "waiting"])
@pytest.mark.parametrize("same", [True, False], ids=["one iterator", "two iterators"])
@in_loop
async def test_two_iterations_at_once(calls: CallServer, where: str, same: bool) -> None:
    """The second of two iterations at once raises; the first continues."""
    async with world(calls) as at:
        full, call = await _begun_where(at, STREAM, where)
        first = aiter(call)
        second = first if same else aiter(call)
        tasks = [asyncio.create_task(outcome_of(anext(one))) for one in (first, second)]
        await settle(10)
        full.make_room()
        (_, answer), (error, _) = await asyncio.gather(*tasks)
        assert (answer, error) == (b"0", RuntimeError)
        assert [response async for response in second] == [b"1", b"2"]


# --- after a failure before the start --------------------------------------------------------------------------------


async def _failed(call: Any, way: Way) -> list[Outcome]:
    asks = [outcome_of(ask(way, call)) for name, ask in _STATUS.items() if name != "debug_error_string"]
    return [
        *[await ask for ask in asks],
        await outcome_of(way.take(call)),
        await outcome_of(call.wait_for_connection()),
        (call.cancel(), call.done(), call.cancelled()),
    ]


@pytest.mark.parametrize("way", WAYS, ids=str)
@in_loop
async def test_cancelled_before_its_start(calls: CallServer, mute: str, way: Way) -> None:
    """Each member of the call answers as gRPC's does."""
    async with _waiting_channels(calls, mute) as (connecting, full):
        outcomes = []
        for channel in (connecting, full.pool):
            call = way.begin(channel)
            await settle(10)
            answers = (call.cancel(), call.cancel())
            await settle(10)
            # gRPC itself would wait for ever.
            skips = way.streams_in and channel is connecting
            rest = [] if skips else [await outcome_of(call.wait_for_connection())]
            outcomes.append(
                [
                    answers,
                    await status_of(call),
                    *[await outcome_of(ask(way, call)) for ask in _STATUS.values()],
                    await outcome_of(way.take(call)),
                    (call.cancel(), call.done(), call.cancelled()),
                    0 < call.time_remaining() <= LONG,
                ]
            )
            assert rest in ([], [("cancelled",)])
        assert outcomes[0] == outcomes[1]
        assert full.waiting == 0


@pytest.mark.parametrize("way", WAYS, ids=str)
@in_loop
async def test_refused_for_its_deadline(calls: CallServer, mute: str, way: Way) -> None:
    """Each member of the call answers as that of gRPC's call does after its deadline."""
    async with _waiting_channels(calls, mute) as (connecting, full):
        outcomes = []
        for channel in (connecting, full.pool):
            call = way.begin(channel, timeout=0.05)
            await call.code()
            assert call.time_remaining() == 0
            outcomes.append([each[:2] for each in await _failed(call, way)])
        assert outcomes[0] == outcomes[1]
