"""Calls whose end is not awaited: held or dropped without an await, or with a done-callback.

A call that ends by itself releases its place then, whether it is still held or not; any other call when it is dropped.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from aio_calls.support import World, bad_requests, crowded, failing, world
from grpcpool.aio import ChannelPool
from grpcpool.testing.aio import FakeChannel, FakeFactory
from support.aio_pools import at_rest
from support.aio_ways import END_DROPPED, END_UNREAD, WAYS, Outcome, Way, status_of
from support.call_server import CallServer, new_tag
from support.loops import in_loop, settle, until

pytestmark = [pytest.mark.timeout(60), pytest.mark.long]

# One of the ways that differ only in how they are used.
_KINDS = tuple(way for way in WAYS if way.gives != "async iterator" and not (way.writes and way.takes == "async for"))


@dataclasses.dataclass(frozen=True)
class Left:
    """A call that is started and then left alone."""

    name: str
    how: Callable[[], dict[str, Any]]
    ends: Callable[[Way], bool] = lambda way: True
    """Whether it ends although nothing is sent, read or awaited."""
    says: bool = True
    """Whether it always ends with the same status; gRPC itself may send a request too late, and then has another."""

    def __str__(self) -> str:
        """As tests are named."""
        return self.name


def _without_help(way: Way) -> bool:
    return not way.streams_out and not way.writes


_LEFT = (
    Left("ok", dict, _without_help),
    Left("status_error", lambda: {"command": "fail"}, lambda way: not way.writes),
    Left("unknown_method", lambda: {"method": "/calls.Test/Nothing"}, says=False),
    Left("deadline", lambda: {"command": f"hold:{new_tag()}", "timeout": 0.1}),
    Left("serializer_raises", lambda: {"serializer": failing}, _without_help),
    Left("deserializer_raises", lambda: {"deserializer": failing}, _without_help),
)
_REQUESTS_RAISE = Left("requests_raise", lambda: {"requests": bad_requests(0)})
_PRODUCT = [pytest.param(left, way, id=f"{left}-{way}") for left in _LEFT for way in _KINDS] + [
    pytest.param(_REQUESTS_RAISE, way, id=f"{_REQUESTS_RAISE}-{way}") for way in _KINDS if way.gives == "iterator"
]


async def _held(channel: Any, way: Way, left: Left) -> Outcome:
    """Never awaited, but held until its end, or until the test has seen that it does not end."""
    call = way.begin(channel, **left.how())
    if left.ends(way):
        await until(call.done)
        return (call.cancelled(),)
    await settle(200)
    assert not call.done()
    call.cancel()
    return ()


async def _with_callback(channel: Any, way: Way, left: Left) -> Outcome:
    """Held, with a done-callback, which is called once at its end."""
    told: list[Any] = []
    call = way.begin(channel, **left.how())
    call.add_done_callback(told.append)
    if left.ends(way):
        await until(lambda: told)
    else:
        await settle(200)
        assert not told
        call.cancel()
    assert told == [call]
    status = await status_of(call)
    return status[:2] if not left.says else status[:3]


@pytest.mark.parametrize("how", [_held, _with_callback])
@pytest.mark.parametrize(("left", "way"), _PRODUCT)
@in_loop
async def test_left_alone(calls: CallServer, left: Left, way: Way, how: Any) -> None:
    """The call ends by itself if gRPC's own does, at once and after a wait, and releases its place."""
    async with world(calls) as at:
        pool = await at.pool()
        expected = await how(at.plain, way, left)
        assert await how(pool, way, left) == expected
        await at_rest(pool)
        async with crowded(pool):
            assert await how(pool, way, left) == expected
        await at_rest(pool)
        assert (pool.stats().acquired, pool.stats().waited) == (3, 1)


# --- dropped --------------------------------------------------------------------------------------------------------


async def _drop(at: World, pool: Any, way: Way, command: str, told: list[Any]) -> None:
    call = way.begin(pool, command)
    call.add_done_callback(told.append)
    await way.send(call, command)


@pytest.mark.parametrize("wait", [False, True], ids=["at_once", "after_a_wait"])
@pytest.mark.parametrize("way", [way for way in _KINDS if not way.streams_out and not way.writes], ids=str)
@in_loop
async def test_dropped_with_a_done_callback(calls: CallServer, way: Way, wait: bool) -> None:
    """A dropped call with one response and a done-callback continues; the callback gets the call, once."""
    async with world(calls) as at:
        pool = await at.pool()
        told: list[Any] = []
        if wait:
            async with crowded(pool):
                await _drop(at, pool, way, "ok", told)
        else:
            await _drop(at, pool, way, "ok", told)
        gc.collect()
        await until(lambda: told)
        assert await told[0] == b"0"
        assert await told[0].code() is grpc.StatusCode.OK
        await at_rest(pool)
        assert len(told) == 1


@pytest.mark.parametrize("read", [False, True], ids=["unread", "half_read"])
@pytest.mark.parametrize("way", [way for way in _KINDS if way.streams_out], ids=str)
@in_loop
async def test_a_stream_dropped_with_a_callback(calls: CallServer, way: Way, read: bool) -> None:
    """A dropped stream with a done-callback, which can no longer be read, is cancelled; the callback is called."""
    async with world(calls) as at:
        pool = await at.pool()
        told: list[Any] = []
        tag = new_tag()
        call = way.begin(pool, f"hold:{tag}")
        call.add_done_callback(told.append)
        await way.send(call, f"hold:{tag}")
        if read:
            assert await way.first(call) == b"0"
        await at.until_held(tag)
        del call
        await at_rest(pool)
        await at.until_let_go(tag)
        await until(lambda: told)
        assert len(told) == 1
        assert told[0].cancelled()


@pytest.mark.parametrize("way", [way for way in _KINDS if way.streams_out], ids=str)
@in_loop
async def test_a_stream_dropped_with_a_callback_while_it_waits(calls: CallServer, way: Way) -> None:
    """A dropped waiting stream leaves the queue, and its done-callback is called."""
    async with world(calls) as at:
        full = await at.full()
        told: list[Any] = []
        call = way.begin(full.pool)
        call.add_done_callback(told.append)
        assert full.waiting == 1
        del call
        await until(lambda: full.waiting == 0)
        await until(lambda: told)
        assert (len(told), told[0].done(), told[0].cancelled()) == (1, True, True)


@pytest.mark.parametrize("way", END_DROPPED, ids=str)
@in_loop
async def test_dropped_while_it_waits(calls: CallServer, way: Way) -> None:
    """A dropped waiting call leaves the queue and never reaches the server; later waiters move up."""
    async with world(calls) as at:
        full = await at.full()
        await at.tell("notes")
        dropped = way.begin(full.pool, "note:dropped")
        kept = way.begin(full.pool, "note:kept")
        assert full.waiting == 2
        del dropped
        await until(lambda: full.waiting == 1)
        full.make_room()
        await way.use(kept, "note:kept")
        assert await at.tell("notes") == ["kept"]


@pytest.mark.parametrize("way", END_UNREAD, ids=str)
@in_loop
async def test_one_that_ends_by_itself_is_dropped_while_it_waits(calls: CallServer, way: Way) -> None:
    """It stays in the queue, and reaches the server when its turn has come."""
    async with world(calls) as at:
        full = await at.full()
        await at.tell("notes")
        dropped = way.begin(full.pool, "note:dropped")
        kept = way.begin(full.pool, "note:kept")
        del dropped
        await settle()
        assert full.waiting == 2
        full.make_room()
        await way.use(kept, "note:kept")
        assert await at.tell("notes") == ["dropped", "kept"]


# --- what gRPC itself cannot send -----------------------------------------------------------------------------------

_INVALID = {
    "key": (("Not A Key", "value"),),
    "value": (("key", "line\nbreak"),),
    "type": (("key", 1),),
}


@pytest.mark.parametrize("how", ["callback", "code", "held"])
@pytest.mark.parametrize("invalid", _INVALID)
@pytest.mark.parametrize("way", _KINDS, ids=str)
@in_loop
async def test_invalid_metadata(calls: CallServer, way: Way, invalid: str, how: str) -> None:
    """A call with invalid metadata ends for everything that asks for its end, even where gRPC's never ends.

    If nothing asks, it releases its place when it is dropped, at the latest.
    """
    async with world(calls) as at:
        pool = await at.pool()
        for wait in (False, True):
            if wait:
                async with crowded(pool):
                    await _ends(way.begin(pool, metadata=_INVALID[invalid], timeout=None), how)
            else:
                await _ends(way.begin(pool, metadata=_INVALID[invalid], timeout=None), how)
            await at_rest(pool)


async def _ends(call: Any, how: str) -> None:
    told: list[Any] = []
    match how:
        case "callback":
            call.add_done_callback(told.append)
            await until(lambda: told, timeout=5)
            assert told == [call]
            assert call.done()
        case "code":
            assert await asyncio.wait_for(call.code(), 5) is not grpc.StatusCode.OK
            assert call.done()
        case "held":
            await settle(50)


@pytest.mark.parametrize("invalid", _INVALID)
@pytest.mark.parametrize("way", [way for way in _KINDS if not way.streams_out and not way.writes], ids=str)
@in_loop
async def test_invalid_metadata_of_a_dropped_call(calls: CallServer, way: Way, invalid: str) -> None:
    """A call with invalid metadata that is dropped with a callback ends, too."""
    async with world(calls) as at:
        pool = await at.pool()
        told: list[Any] = []
        way.begin(pool, metadata=_INVALID[invalid], timeout=None).add_done_callback(told.append)
        await until(lambda: told, timeout=5)
        await at_rest(pool)


# --- ended while it is dropped --------------------------------------------------------------------------------------


class _Cancels:
    """Cancels its call when it is collected, which it is together with the call."""

    def __init__(self) -> None:
        self.call: Any = None
        self._itself = self

    def __del__(self) -> None:
        self.call.cancel()


@pytest.mark.parametrize("lease", [False, True], ids=["pool", "lease"])
@pytest.mark.parametrize("way", _KINDS, ids=str)
@in_loop
async def test_cancelled_by_what_is_collected_with_it(calls: CallServer, way: Way, lease: bool) -> None:
    """The callbacks of the call get a call that is cancelled."""
    async with world(calls) as at:
        pool = await at.pool()
        channel: Any = await pool.acquire() if lease else pool
        told: list[Any] = []
        tag = new_tag()
        # It is older than the call, and so finalized first.
        holder = _Cancels()
        gc.collect()
        call = way.begin(channel, f"hold:{tag}")
        await way.send(call, f"hold:{tag}")
        await at.until_held(tag)
        call.add_done_callback(told.append)
        holder.call = call
        del call, holder
        gc.collect()
        await until(lambda: told)
        assert [one.cancelled() for one in told] == [True]
        if lease:
            channel.release()
        await at_rest(pool)


@pytest.mark.parametrize("way", [way for way in _KINDS if way.streams_out], ids=str)
@in_loop
async def test_ended_as_it_is_dropped(way: Way) -> None:
    """A stream that ends well after it was dropped, and before it is cancelled for that, calls its callbacks."""
    factory = FakeFactory(lambda: FakeChannel(holds_calls=True))
    async with ChannelPool(factory) as pool:
        await pool.open()
        told: list[Any] = []
        call = way.begin(pool)
        call.add_done_callback(told.append)
        (below,) = factory.made[0].calls
        del call
        below.finish([])
        await settle()
        assert [await one.code() for one in told] == [grpc.StatusCode.OK]
        await at_rest(pool)
