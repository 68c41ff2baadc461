"""However a call ends, its place is released once, and its caller sees what plain gRPC shows.

Each way of calling is brought to each possible end: on gRPC's own channel, on a pool with a place at once, and on a
pool after a wait for it. `test_left.py` has the calls whose end is not awaited.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from aio_calls.support import World, bad_async_requests, bad_requests, begun, crowded, failing, world
from support.aio_pools import at_rest
from support.aio_ways import WAYS, Outcome, Way, outcome_of, status_of
from support.call_server import CallServer, new_tag
from support.loops import in_loop, settle, until

pytestmark = [pytest.mark.timeout(60), pytest.mark.long]

Ending = Callable[[World, Any, Way], Awaitable[Outcome]]

INVALID = (("Not A Key", "value"),)
NOWHERE = "/calls.Test/Nothing"


async def _ended(way: Way, call: Any, command: str = "ok") -> Outcome:
    return (await outcome_of(way.use(call, command)), await status_of(call))


# --- how a call can end; each function runs on a pool and on gRPC's own channel -------------------------------------


async def _ok(world: World, channel: Any, way: Way) -> Outcome:
    return await _ended(way, way.begin(channel))


async def _status_error(world: World, channel: Any, way: Way) -> Outcome:
    return await _ended(way, way.begin(channel, "fail"), "fail")


async def _unknown_method(world: World, channel: Any, way: Way) -> Outcome:
    call = way.begin(channel, method=NOWHERE)
    outcome = await outcome_of(way.take(call))
    # For a request that comes after the end gRPC reports an internal error instead, on its own channel, too.
    return outcome[:1] if way.streams_in else (outcome, await status_of(call))


async def _deadline(world: World, channel: Any, way: Way) -> Outcome:
    tag = new_tag()
    call = way.begin(channel, f"hold:{tag}", timeout=0.1)
    outcome = await _ended(way, call, f"hold:{tag}")
    await world.until_let_go(tag)
    # The details differ between two deadlines of gRPC's own: that of the client, and that of the server.
    return (outcome[0][:2], outcome[1][:3])


async def _serializer_raises(world: World, channel: Any, way: Way) -> Outcome:
    called: list[object] = []

    def serializer(request: object) -> bytes:
        called.append(request)
        return bytes(failing(request))

    return (await _ended(way, way.begin(channel, serializer=serializer)), called)


async def _deserializer_raises(world: World, channel: Any, way: Way) -> Outcome:
    return await _ended(way, way.begin(channel, deserializer=failing, timeout=None))


async def _invalid_metadata(world: World, channel: Any, way: Way) -> Outcome:
    call = way.begin(channel, metadata=INVALID, timeout=None)
    # gRPC itself would wait for ever to send further requests.
    return (await outcome_of(way.take(call)))[:1]


async def _requests_raise_at_once(world: World, channel: Any, way: Way) -> Outcome:
    return await _requests_raise(world, channel, way, 0)


async def _requests_raise_later(world: World, channel: Any, way: Way) -> Outcome:
    return await _requests_raise(world, channel, way, 2)


async def _requests_raise(world: World, channel: Any, way: Way, first: int) -> Outcome:
    requests = bad_requests(first) if way.gives == "iterator" else bad_async_requests(first)
    return await _ended(way, way.begin(channel, requests=requests))


async def _cancelled_at_once(world: World, channel: Any, way: Way) -> Outcome:
    call = way.begin(channel)
    answers = (call.cancel(), call.cancel(), call.done(), call.cancelled())
    return (answers, await outcome_of(way.take(call)), await status_of(call))


async def _cancelled_while_running(world: World, channel: Any, way: Way) -> Outcome:
    tag = new_tag()
    call = way.begin(channel, f"hold:{tag}")
    await way.send(call, f"hold:{tag}")
    await world.until_held(tag)
    (taking,) = await begun(way.take(call))
    answers = (call.cancel(), call.cancel(), call.done(), call.cancelled())
    await world.until_let_go(tag)
    return (answers, await outcome_of(taking), await outcome_of(way.take(call)), await status_of(call))


async def _task_cancelled_while_running(world: World, channel: Any, way: Way) -> Outcome:
    tag = new_tag()
    call = way.begin(channel, f"hold:{tag}")
    (using,) = await begun(way.use(call, f"hold:{tag}"))
    await world.until_held(tag)
    if way.streams_out:
        # A task that is cancelled while it learns that its call has begun leaves gRPC's own call running.
        await call.initial_metadata()
        await settle(10)
    using.cancel()
    outcome = await outcome_of(using)
    await world.until_let_go(tag)
    return (outcome, using.cancelled(), await status_of(call))


async def _task_cancelled_at_once(world: World, channel: Any, way: Way) -> Outcome:
    call = way.begin(channel)
    taking = asyncio.create_task(way.take(call))
    await asyncio.sleep(0)
    taking.cancel()
    return (await outcome_of(taking), taking.cancelled(), await status_of(call))


async def _dropped_unread(world: World, channel: Any, way: Way) -> Outcome:
    tag = new_tag()
    call = way.begin(channel, f"hold:{tag}")
    await way.send(call, f"hold:{tag}")
    await world.until_held(tag)
    if channel is world.plain:
        # Which gRPC itself, from 1.83 on, never notices.
        call.cancel()
    del call
    await world.until_let_go(tag)
    return ()


async def _dropped_half_read(world: World, channel: Any, way: Way) -> Outcome:
    tag = new_tag()
    call = way.begin(channel, f"hold:{tag}")
    await way.send(call, f"hold:{tag}")
    first = await way.first(call)
    await world.until_held(tag)
    if channel is world.plain:
        call.cancel()
    del call
    await world.until_let_go(tag)
    return (first,)


async def _cancelled_half_read(world: World, channel: Any, way: Way) -> Outcome:
    tag = new_tag()
    call = way.begin(channel, f"hold:{tag}")
    await way.send(call, f"hold:{tag}")
    first = await way.first(call)
    (taking,) = await begun(way.take(call))
    call.cancel()
    await world.until_let_go(tag)
    return (first, await outcome_of(taking), await status_of(call))


async def _wait_for_it_times_out(world: World, channel: Any, way: Way) -> Outcome:
    tag = new_tag()
    call = way.begin(channel, f"hold:{tag}")
    outcome = await outcome_of(asyncio.wait_for(way.use(call, f"hold:{tag}"), 0.1))
    await world.until_let_go(tag)
    return (outcome, await status_of(call))


async def _broken_off(world: World, channel: Any, way: Way) -> Outcome:
    responses = aiter(call := way.begin(channel))
    first = await anext(responses)
    with contextlib.suppress(AttributeError):
        await responses.aclose()
    await asyncio.sleep(0)
    return (first, call.cancel())


async def _closed_unread(world: World, channel: Any, way: Way) -> Outcome:
    responses = aiter(call := way.begin(channel))
    with contextlib.suppress(AttributeError):
        await responses.aclose()
    rest = await outcome_of(anext(responses))
    await call.initial_metadata()
    return (rest, call.cancel())


_STREAMS_OUT = tuple(way for way in WAYS if way.streams_out)
_ITERATORS = tuple(way for way in WAYS if "iterator" in way.gives)

_ENDINGS: dict[Ending, tuple[Way, ...]] = {
    _ok: WAYS,
    _status_error: WAYS,
    _unknown_method: WAYS,
    _deadline: WAYS,
    _serializer_raises: WAYS,
    _deserializer_raises: WAYS,
    _invalid_metadata: WAYS,
    _requests_raise_at_once: _ITERATORS,
    # Without streams of responses: they may be answered first, and gRPC itself sometimes leaves a task of them.
    _requests_raise_later: tuple(way for way in _ITERATORS if not way.streams_out),
    _cancelled_at_once: WAYS,
    _cancelled_while_running: WAYS,
    _task_cancelled_at_once: WAYS,
    _task_cancelled_while_running: WAYS,
    _wait_for_it_times_out: WAYS,
    _dropped_unread: WAYS,
    _dropped_half_read: _STREAMS_OUT,
    _cancelled_half_read: _STREAMS_OUT,
    _broken_off: tuple(way for way in WAYS if way.takes == "async for" and not way.writes),
    _closed_unread: tuple(way for way in WAYS if way.takes == "async for" and not way.writes),
}
_PRODUCT = [
    pytest.param(ending, way, id=f"{ending.__name__.strip('_')}-{way}")
    for ending, ways in _ENDINGS.items()
    for way in ways
]
# These end while they wait; otherwise the wait would be part of the comparison.
_NEVER_BEGUN = (_cancelled_at_once, _task_cancelled_at_once, _wait_for_it_times_out)


@pytest.mark.parametrize(("ending", "way"), _PRODUCT)
@in_loop
async def test_with_a_place_at_once(calls: CallServer, ending: Ending, way: Way) -> None:
    """With a place at once, the call ends as on gRPC's own channel, and its place is released."""
    async with world(calls) as at:
        pool = await at.pool()
        expected = await ending(at, at.plain, way)
        assert await ending(at, pool, way) == expected
        await at_rest(pool)
        stats = pool.stats()
        assert (stats.acquired, stats.waited, stats.timeouts, stats.rejected) == (1, 0, 0, 0)


@pytest.mark.parametrize(("ending", "way"), [each for each in _PRODUCT if each.values[0] not in _NEVER_BEGUN])
@in_loop
async def test_after_a_wait(calls: CallServer, ending: Ending, way: Way) -> None:
    """After a wait for its place, the call ends as on gRPC's own channel, and its place is released."""
    async with world(calls) as at:
        pool = await at.pool()
        expected = await ending(at, at.plain, way)
        async with crowded(pool):
            assert await ending(at, pool, way) == expected
        await at_rest(pool)
        stats = pool.stats()
        assert (stats.acquired, stats.waited, stats.timeouts, stats.rejected) == (2, 1, 0, 0)


@pytest.mark.parametrize("ending", _NEVER_BEGUN, ids=lambda ending: ending.__name__.strip("_"))
# A task that stops waiting to write has not given up the call.
@pytest.mark.parametrize("way", [way for way in WAYS if not way.writes], ids=str)
@in_loop
async def test_while_it_waits(calls: CallServer, ending: Ending, way: Way) -> None:
    """A call given up while it waits leaves the queue, and looks as if it had been given up while it ran."""
    async with world(calls) as at:
        full = await at.full()
        expected = await ending(at, at.plain, way)
        assert await ending(at, full.pool, way) == expected
        assert (full.waiting, full.pool.stats().acquired) == (0, 1)


# --- ends of many calls at once -------------------------------------------------------------------------------------


async def _held(at: World, pool: Any) -> list[asyncio.Task[Outcome]]:
    """One running call of each way, as tasks that return their outcomes."""
    tags = [new_tag() for _ in WAYS]
    running = [
        asyncio.create_task(_ended(way, way.begin(pool, f"hold:{tag}"), f"hold:{tag}"))
        for way, tag in zip(WAYS, tags, strict=True)
    ]
    for tag in tags:
        await at.until_held(tag)
    return running


@in_loop
async def test_closed_meanwhile(calls: CallServer) -> None:
    """Calls that run when the pool closes end as gRPC's do when their channel closes; nothing is left in flight."""
    async with world(calls) as at:
        pool = await at.pool(max_streams=len(WAYS))
        outcomes = []
        for channel in (at.plain, pool):
            running = await _held(at, channel)
            await channel.close()
            outcomes.append([await call for call in running])
        assert outcomes[0] == outcomes[1]
        assert all(outcome[0] == ("cancelled",) for outcome in outcomes[1])
        stats = pool.stats()
        assert (stats.in_flight, stats.waiting, stats.size) == (0, 0, 0)


@in_loop
async def test_server_killed_meanwhile() -> None:
    """When the server dies, running and waiting calls fail `UNAVAILABLE` soon; their places are released."""
    with CallServer() as mortal:
        async with world(mortal) as at:
            pool = await at.pool(max_streams=len(WAYS))
            expected, running = await _held(at, at.plain), await _held(at, pool)
            waiting = [asyncio.create_task(_ended(way, way.begin(pool))) for way in WAYS]
            await until(lambda: pool.stats().waiting == len(WAYS))
            mortal.kill()
            outcomes = [[(await call)[0][:2] for call in calls] for calls in (expected, running, waiting)]
            unavailable = ("error", grpc.StatusCode.UNAVAILABLE)
            assert outcomes == [[unavailable] * len(WAYS)] * 3
            await at_rest(pool)
