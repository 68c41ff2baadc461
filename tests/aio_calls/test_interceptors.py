"""Interceptors of a pool, and of the channels in it."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import grpc
import pytest
from grpc.aio._interceptor import InterceptedCall

import grpcpool
from aio_calls.support import Full, begun, crowded, world
from aio_calls.support_interceptors import (
    PLACES,
    POOLS,
    Counting,
    Intercept,
    Place,
    answers,
    answers_with_a_stream,
    append,
    awaits,
    goes_on_twice,
    intercepted,
    native,
    passes,
    raises,
    raises_status,
    wraps_responses,
)
from support.aio_pools import at_rest
from support.aio_ways import KINDS, UNARY, WAYS, Outcome, Way, each, outcome_of
from support.call_server import UU, CallServer, new_tag
from support.loops import in_loop
from support.waiting import LONG

pytestmark = pytest.mark.timeout(60)

ONE_ANSWER = tuple(way for way in WAYS if not way.streams_out)
STREAMS = tuple(way for way in WAYS if way.streams_out)

each_place = pytest.mark.parametrize("place", PLACES)
inside_and_around = pytest.mark.parametrize("place", ["argument", "channels"])
around_the_pool = pytest.mark.parametrize("place", POOLS)
each_way = pytest.mark.parametrize("way", WAYS, ids=str)


def _text(answer: Any) -> bytes:
    return answer if isinstance(answer, bytes) else b"".join(answer)


async def _outcome(way: Way, channel: Any, command: str = "ok") -> Outcome:
    call = way.begin(channel, command)
    outcome = await outcome_of(way.use(call, command))
    return (outcome, await outcome_of(call.code()), await outcome_of(call.details()), call.done(), call.cancelled())


# --- once for each call ---------------------------------------------------------------------------------------------


@each_place
@each_way
@in_loop
async def test_an_interceptor_is_applied_once(calls: CallServer, place: Place, way: Way) -> None:
    """An interceptor sees each call once, also a waiting one, and what it adds reaches the server."""
    counting = Counting()
    async with world(calls) as at:
        pool = await intercepted(at, place, counting)
        multicallable: Any = getattr(pool, way.maker)(way.method)
        if place == "lists later":
            append(pool, counting)
        answer = await way.whole(pool, "metadata", metadata=(("own", "value"),))
        assert _text(answer).count(b'["intercepted", "yes"]') == 1
        assert _text(answer).count(b'["own", "value"]') == 1
        # A multicallable made earlier is intercepted like any other.
        request = None if way.writes else b"metadata" if way.gives == "request" else each(b"metadata")
        call = multicallable(request, timeout=LONG)
        assert b"intercepted" in _text(await way.use(call, "metadata"))
        async with crowded(pool):
            assert b"intercepted" in _text(await way.whole(pool, "metadata"))
        mine = [method for method in counting.methods if method == way.method]
        assert len(mine) == 3
        del call
        await at_rest(pool)


@around_the_pool
@in_loop
async def test_interceptors_in_order(calls: CallServer, place: Place) -> None:
    """The first interceptor is the outermost, as in gRPC."""
    order: list[str] = []

    def named(name: str) -> Intercept:
        async def intercept(go_on: Any, details: Any, request: Any) -> Any:
            order.append(name)
            return await go_on(details, request)

        return intercept

    async with world(calls) as at:
        three = [named(name) for name in "abc"]
        pool = await intercepted(at, place, *three)
        if place == "lists later":
            append(pool, *three)
        assert await UNARY.whole(pool) == b"0"
        assert await UNARY.whole(native(at, *three)) == b"0"
        assert order == ["a", "b", "c"] * 2
        await at_rest(pool)


@in_loop
async def test_an_object_that_is_not_an_interceptor(calls: CallServer) -> None:
    """An object that is not an interceptor is refused in gRPC's words."""
    wrong: Any = object()
    raised = []
    for make in (grpc.aio.insecure_channel, grpcpool.aio.insecure_channel):
        with pytest.raises(ValueError, match="must be UnaryUnaryClientInterceptor or") as caught:
            make(calls.target, interceptors=[wrong])
        raised.append(str(caught.value))
    assert raised[0] == raised[1]


@pytest.mark.parametrize("command", ["ok", "fail"])
@pytest.mark.parametrize("intercept", [passes, awaits], ids=lambda intercept: intercept.__name__)
@inside_and_around
@pytest.mark.parametrize("way", ONE_ANSWER, ids=str)
@in_loop
async def test_calls_end_as_without_a_pool(
    calls: CallServer, place: Place, way: Way, intercept: Intercept, command: str
) -> None:
    """Answers and errors of calls with one response are those of an intercepted plain channel."""
    if way.writes and intercept is awaits:
        pytest.skip("gRPC's own waits for ever: nothing can be written before the interceptor returns")
    async with world(calls) as at:
        pool = await intercepted(at, place, intercept)
        expected = await _outcome(way, native(at, intercept), command)
        assert await _outcome(way, pool, command) == expected
        await at_rest(pool)
        async with crowded(pool):
            assert await _outcome(way, pool, command) == expected
        await at_rest(pool)


@pytest.mark.parametrize("command", ["ok", "fail"])
@pytest.mark.parametrize("intercept", [passes, wraps_responses], ids=lambda intercept: intercept.__name__)
@inside_and_around
@pytest.mark.parametrize("way", STREAMS, ids=str)
@in_loop
async def test_streams_end_as_without_a_pool(
    calls: CallServer, place: Place, way: Way, intercept: Intercept, command: str
) -> None:
    """Streams end as on an intercepted plain channel, also with a generator around the responses."""
    async with world(calls) as at:
        pool = await intercepted(at, place, intercept)
        expected = await _outcome(way, native(at, intercept), command)
        assert await _outcome(way, pool, command) == expected
        await at_rest(pool)
        async with crowded(pool):
            assert await _outcome(way, pool, command) == expected
        await at_rest(pool)


# --- instead of making the call -------------------------------------------------------------------------------------


@inside_and_around
@in_loop
async def test_an_answer_instead_of_a_call(calls: CallServer, place: Place) -> None:
    """An interceptor may return the response: around the pool this takes no place, in a channel it releases it."""
    async with world(calls) as at:
        pool = await intercepted(at, place, answers)
        expected = await _outcome(UNARY, native(at, answers))
        for _ in range(3):
            assert await _outcome(UNARY, pool) == expected
        assert pool.stats().acquired == (3 if place == "channels" else 0)
        await at_rest(pool)


@inside_and_around
@pytest.mark.parametrize("way", [way for way in STREAMS if way.takes == "async for"], ids=str)
@in_loop
async def test_a_stream_instead_of_a_call(
    calls: CallServer, monkeypatch: pytest.MonkeyPatch, place: Place, way: Way
) -> None:
    """An interceptor may return responses: there is no call then, and dropping the responses releases the place."""
    # GRPC's own finalizer fails on such a call.
    monkeypatch.delattr(InterceptedCall, "__del__")
    async with world(calls) as at:
        pool = await intercepted(at, place, answers_with_a_stream)
        for _ in range(2):
            call = way.begin(pool)
            assert await way.take(call) == [b"a", b"b"]
            del call
            await at_rest(pool)
        # While such a call exists, gRPC cannot close its channel.
        gc.collect()


@inside_and_around
@pytest.mark.parametrize("way", KINDS, ids=str)
@pytest.mark.parametrize("intercept", [raises, raises_status], ids=lambda intercept: intercept.__name__)
@in_loop
async def test_an_interceptor_that_raises(calls: CallServer, place: Place, way: Way, intercept: Intercept) -> None:
    """The caller sees what it would see without a pool, and no place stays taken."""
    async with world(calls) as at:
        pool = await intercepted(at, place, intercept)
        expected = await _outcome(way, native(at, intercept))
        assert await _outcome(way, pool) == expected
        await at_rest(pool)
        assert pool.stats().acquired == (1 if place == "channels" else 0)


@inside_and_around
@pytest.mark.parametrize("way", KINDS, ids=str)
@in_loop
async def test_an_interceptor_that_is_never_done(calls: CallServer, place: Place, way: Way) -> None:
    """A call cancelled while its interceptor still works takes no place, or releases it."""

    async def hangs(go_on: Any, details: Any, request: Any) -> Any:
        await asyncio.Event().wait()

    async with world(calls) as at:
        pool = await intercepted(at, place, hangs)
        outcomes = []
        for channel in (native(at, hangs), pool):
            call = way.begin(channel)
            (taking,) = await begun(way.take(call))
            answers = (call.cancel(), await outcome_of(taking), call.cancelled(), call.done())
            outcomes.append((answers, await call.code(), await call.details(), call.cancel()))
        assert outcomes[0] == outcomes[1]
        await at_rest(pool)


# --- around the pool ------------------------------------------------------------------------------------------------


@in_loop
async def test_going_on_twice(calls: CallServer) -> None:
    """Each time the interceptor calls on, the call takes a place of its own, one after the other."""
    async with world(calls) as at:
        pool = await intercepted(at, "argument", goes_on_twice)
        assert await UNARY.whole(pool, "fail") == b"0"
        assert await UNARY.whole(pool, "ok") == b"0"
        assert pool.stats().acquired == 3
        await at_rest(pool)


@in_loop
async def test_hedging(calls: CallServer) -> None:
    """Two attempts at once take two places; the losing one releases its place when it is cancelled or dropped."""

    async def hedges(go_on: Any, details: Any, request: Any) -> Any:
        slow, fast = await go_on(details, f"hold:{new_tag()}".encode()), await go_on(details, request)
        assert (pool.stats().in_flight, pool.stats().waiting) == (2, 0)
        await asyncio.wait(
            [asyncio.ensure_future(call.code()) for call in (slow, fast)], timeout=5, return_when="FIRST_COMPLETED"
        )
        slow.cancel()
        return fast

    async with world(calls) as at:
        pool = await intercepted(at, "argument", hedges, max_streams=2)
        assert await UNARY.whole(pool) == b"0"
        await at_rest(pool)
        assert pool.stats().acquired == 2


@in_loop
async def test_one_that_sleeps_holds_no_place(calls: CallServer) -> None:
    """While an interceptor waits for something else, such as a token, other calls have the place."""
    go = asyncio.Event()

    async def waits(go_on: Any, details: Any, request: Any) -> Any:
        if details.metadata.get("slow"):
            await go.wait()
        return await go_on(details, request)

    async with world(calls) as at:
        pool = await intercepted(at, "argument", waits)
        slow = UNARY.begin(pool, metadata=(("slow", "yes"),))
        assert [await UNARY.whole(pool) for _ in range(3)] == [b"0"] * 3
        assert (pool.stats().in_flight, slow.done()) == (0, False)
        go.set()
        assert await slow == b"0"
        await at_rest(pool)


@inside_and_around
@pytest.mark.parametrize("way", [way for way in WAYS if not way.writes], ids=str)
@in_loop
async def test_details_may_be_changed(calls: CallServer, place: Place, way: Way) -> None:
    """A deadline, metadata and even a method set by an interceptor apply to the call."""

    async def changes(go_on: Any, details: Any, request: Any) -> Any:
        if details.metadata.get("shorter"):
            details = details._replace(timeout=0.1)
        if details.metadata.get("elsewhere"):
            details = details._replace(method=b"/calls.Test/Nothing")
        if details.metadata.get("nothing"):
            details = details._replace(metadata=None)
        return await go_on(details, request)

    async with world(calls) as at:
        pool = await intercepted(at, place, changes)
        command = f"hold:{new_tag()}"
        outcome = await outcome_of(way.whole(pool, command, metadata=(("shorter", "yes"),)))
        assert outcome[:2] == ("error", grpc.StatusCode.DEADLINE_EXCEEDED)
        outcome = await outcome_of(way.take(way.begin(pool, metadata=(("elsewhere", "yes"),))))
        # GRPC itself is sometimes too late with a request for a nonexistent method.
        assert outcome[0] == "error"
        assert way.streams_in or outcome[1] is grpc.StatusCode.UNIMPLEMENTED
        if place != "channels":
            assert b"nothing" not in _text(await way.whole(pool, "metadata", metadata=(("nothing", "yes"),)))
        await at_rest(pool)


@in_loop
async def test_the_details_that_an_interceptor_gets(calls: CallServer) -> None:
    """The details are gRPC's: the method as bytes, and the arguments of the call."""
    told: list[Any] = []

    async def notes(go_on: Any, details: Any, request: Any) -> Any:
        told.append((type(details).__name__, *details, type(details.metadata), request))
        return await go_on(details, request)

    async with world(calls) as at:
        pool = await intercepted(at, "argument", notes)
        for channel in (native(at, notes), pool):
            await UNARY.whole(channel, timeout=7, metadata=[("a", "b")], wait_for_ready=True)
            await UNARY.whole(channel, timeout=None)
        assert told[:2] == told[2:]
        assert told[0][1:3] == (UU.encode(), 7)
        await at_rest(pool)


@in_loop
async def test_a_deadline_that_an_interceptor_sets_includes_the_wait(calls: CallServer) -> None:
    """A call to which the interceptor gave a deadline fails `DEADLINE_EXCEEDED` in the queue."""

    async def hurries(go_on: Any, details: Any, request: Any) -> Any:
        return await go_on(details._replace(timeout=0.05 if request == b"hurry" else details.timeout), request)

    async with world(calls) as at:
        pool = await intercepted(at, "argument", hurries)
        full = await Full.of(pool)
        outcome = await outcome_of(UNARY.whole(pool, "hurry"))
        assert outcome == ("error", grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        full.make_room()
        await at_rest(pool)
