"""Done-callbacks are called once, with the call, when it is over, however it ended."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import grpc
import pytest

from aio_calls.support import Full, failing, world
from aio_calls.support_interceptors import intercepted, passes
from grpcpool._grpc import interceptor_chain
from grpcpool._grpc.own_chain import OWN_CHAINS
from support.aio_ways import KINDS, UNARY, WAYS, Way, outcome_of
from support.call_server import CallServer, new_tag
from support.loops import in_loop, settle, until
from support.waiting import LONG

pytestmark = pytest.mark.timeout(60)

_WRITES = tuple(way for way in WAYS if way.writes)
_ENDS = ("answered", "cancelled", "cancelled running", "refused", "closed")


@pytest.mark.parametrize("end", _ENDS)
@pytest.mark.parametrize("way", WAYS, ids=str)
@in_loop
async def test_callbacks_run_however_it_ends(calls: CallServer, way: Way, end: str) -> None:
    """Callbacks run once each, in the order of their addition, with the finished call; then awaiters continue."""
    async with world(calls) as at:
        full = await at.full()
        told: list[Any] = []
        tag = new_tag()
        command = "ok" if end == "answered" else f"hold:{tag}"
        call = way.begin(full.pool, command, timeout=0.5 if end == "refused" else LONG)
        for name in "abc":
            call.add_done_callback(lambda call, name=name: told.append((name, call, call.done())))
        using = asyncio.create_task(outcome_of(way.use(call, command)))
        using.add_done_callback(lambda _: told.append("used"))
        await settle(10)
        assert told == []
        if end == "cancelled":
            call.cancel()
        elif end == "closed":
            await full.pool.close()
        elif end != "refused":
            full.make_room()
        if end == "cancelled running":
            await at.until_held(tag)
            call.cancel()
        await using
        await settle(1)
        assert told == [("a", call, True), ("b", call, True), ("c", call, True), "used"]


@pytest.mark.parametrize("way", KINDS, ids=str)
@in_loop
async def test_callbacks_added_late(calls: CallServer, way: Way) -> None:
    """On a finished call `add_done_callback` calls the callback at once, and raises what it raises."""
    async with world(calls) as at:
        full = await at.full()
        refused, cancelled, native = way.begin(full.pool, timeout=0), way.begin(full.pool), way.begin(at.plain)
        told: list[Any] = []
        refused.add_done_callback(told.append)
        # As with gRPC, a call is never over before its caller has it.
        assert not told
        cancelled.cancel()
        native.cancel()
        await until(refused.done)
        assert told == [refused]
        for call in (native, refused, cancelled):
            told.clear()
            call.add_done_callback(told.append)
            assert told == [call]
            with pytest.raises(ArithmeticError):
                call.add_done_callback(failing)


@pytest.mark.parametrize("error", [ArithmeticError, asyncio.CancelledError])
@pytest.mark.parametrize("end", ["answered", "cancelled", "refused"])
@in_loop
async def test_a_callback_that_raises_affects_no_other_call(
    calls: CallServer, end: str, error: type[BaseException]
) -> None:
    """The other callbacks run, and so do later calls; the loop's exception handler gets the error."""
    uncaught: list[Any] = []
    async with world(calls) as at:
        loop = asyncio.get_running_loop()
        handler = loop.get_exception_handler()
        loop.set_exception_handler(lambda loop, context: uncaught.append(type(context["exception"])))
        full = await at.full()
        told: list[Any] = []
        timeout = 0.05 if end == "refused" else LONG
        call, other = (UNARY.begin(full.pool, timeout=timeout) for _ in range(2))

        def fail(call: Any) -> None:
            raise error("as the test wants")

        call.add_done_callback(fail)
        call.add_done_callback(told.append)
        if end == "cancelled":
            call.cancel()
        if end != "refused":
            full.make_room()
        await outcome_of(other)
        await until(lambda: told)
        assert told == [call]
        assert uncaught == [error]
        full.make_room()
        assert await UNARY.whole(full.pool) == b"0"
        loop.set_exception_handler(handler)


@in_loop
async def test_a_callback_may_use_the_pool(calls: CallServer) -> None:
    """A callback may make calls, cancel others, and read the figures."""
    async with world(calls) as at:
        full = await at.full()
        made: list[Any] = []
        first, second, third = (UNARY.begin(full.pool) for _ in range(3))

        def callback(call: Any) -> None:
            second.cancel()
            made.append((full.waiting, UNARY.begin(full.pool)))

        first.add_done_callback(callback)
        first.cancel()
        assert second.cancelled()
        full.make_room()
        assert await third == b"0"
        assert await made[0][1] == b"0"


@pytest.fixture(params=["direct", "gRPC's chain", "own chain"])
def chain(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether calls go through an interceptor, and what runs it."""
    if request.param == "own chain":
        monkeypatch.setattr(interceptor_chain, "_chains", lambda: OWN_CHAINS)
    return str(request.param)


@pytest.mark.parametrize("waits", [False, True], ids=["running", "waiting"])
@pytest.mark.parametrize("way", _WRITES, ids=str)
@in_loop
async def test_a_call_that_is_written_to_and_dropped(calls: CallServer, chain: str, way: Way, waits: bool) -> None:
    """Nothing can write the last request any more: it ends, its callback is called, and its place is released."""
    async with world(calls) as at:
        pool = await (at.pool() if chain == "direct" else intercepted(at, "argument", passes))
        full = await Full.of(pool)
        if not waits:
            full.make_room()
        told: list[Any] = []
        tag = new_tag()
        call = way.begin(pool, f"hold:{tag}", timeout=None)
        call.add_done_callback(lambda call: told.append(call.done()))
        if not waits:
            await call.write(f"hold:{tag}".encode())
            await at.until_held(tag)
        del call

        def is_over() -> bool:
            gc.collect()
            return told == [True] and (pool.stats().in_flight, pool.stats().waiting) == (waits, 0)

        await until(is_over)
        full.make_room()
        assert await UNARY.whole(pool) == b"0"


@in_loop
async def test_a_call_that_is_dropped_after_its_last_write(calls: CallServer, chain: str) -> None:
    """It ends by itself, and its callback sees that it has ended well, as with gRPC."""
    way = next(way for way in _WRITES if not way.streams_out)
    async with world(calls) as at:
        pool = await (at.pool() if chain == "direct" else intercepted(at, "argument", passes))
        codes: list[Any] = []
        call = way.begin(pool)
        call.add_done_callback(lambda call: codes.append(asyncio.ensure_future(call.code())))
        await call.write(b"ok")
        await call.done_writing()
        del call
        gc.collect()
        await until(lambda: codes)
        assert await codes[0] is grpc.StatusCode.OK


@in_loop
async def test_what_cannot_be_called(calls: CallServer) -> None:
    """It is refused at once, as by gRPC."""
    async with world(calls) as at:
        for channel in (at.plain, await at.pool()):
            call = UNARY.begin(channel)
            with pytest.raises(TypeError, match="callable"):
                call.add_done_callback(None)
            assert await call == b"0"
