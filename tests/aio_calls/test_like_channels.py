"""What a channel of gRPC's does in rarer cases, a pool and a handle do as well, whether or not a call has to wait."""

from __future__ import annotations

import asyncio
import gc
import math
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

import grpcpool
from aio_calls.support import Full, World, begun, world
from aio_calls.support_interceptors import intercepted, native, of_all_kinds, passes
from grpcpool import PoolConfig, isolated
from grpcpool._aio.interceptors import add_interceptors
from grpcpool._grpc.version import GRPC_RELEASE
from support.aio_ways import STREAM, UNARY, WAYS, Way, outcome_of
from support.call_server import SS, US, CallServer, new_tag
from support.loops import in_loop, run, settle

pytestmark = pytest.mark.timeout(60)

State = grpc.ChannelConnectivity

_MAKERS: dict[str, Any] = {
    "bare": lambda target, interceptors=None: grpc.aio.insecure_channel(target, isolated(), interceptors=interceptors),
    "pool": grpcpool.aio.insecure_channel,
    "handle": grpcpool.aio.shared_channel,
}
OVER = pytest.mark.parametrize("over", _MAKERS)


async def _channel(at: World, over: str, interceptors: list[Any] | None = None) -> Any:
    channel = at.enter(_MAKERS[over](at.server.target, interceptors=interceptors))
    await channel.channel_ready()
    return channel


# --- its state ------------------------------------------------------------------------------------------------------


@OVER
@in_loop
async def test_it_is_ready_until_the_grace_is_over(calls: CallServer, over: str) -> None:
    """While `close(grace)` waits for a call the channel is `READY`, for `channel_ready()` too; then it is shut down."""
    async with world(calls) as at:
        channel = await _channel(at, over)
        tag = new_tag()
        call = UNARY.begin(channel, f"hold:{tag}")
        await at.until_held(tag)
        (changing, closing) = await begun(channel.wait_for_state_change(State.READY), channel.close(10))
        assert channel.get_state() is State.READY
        assert channel.get_state(try_to_connect=True) is State.READY
        await channel.channel_ready()
        assert not changing.done()
        call.cancel()
        await closing
        assert channel.get_state() is State.SHUTDOWN
        with pytest.raises(grpc.aio.UsageError):
            await channel.channel_ready()
        if over == "bare":
            # It never ends.
            changing.cancel()
        await asyncio.wait([changing])


@OVER
@in_loop
async def test_a_grace_without_limit(calls: CallServer, over: str) -> None:
    """`close(math.inf)` waits for the calls. A closed channel looks at no grace."""
    async with world(calls) as at:
        channel = await _channel(at, over)
        tag = new_tag()
        call = UNARY.begin(channel, f"hold:{tag}")
        await at.until_held(tag)
        (closing,) = await begun(channel.close(math.inf))
        call.cancel()
        await closing
        await channel.close(-1)
        await channel.close("x")


@OVER
@in_loop
async def test_what_is_not_a_state_or_a_name(calls: CallServer, over: str) -> None:
    """It raises at once."""
    async with world(calls) as at:
        channel = await _channel(at, over)
        with pytest.raises(AttributeError):
            await channel.wait_for_state_change(None)
        with pytest.raises(AttributeError):
            channel.unary_unary(None)


# --- wrong arguments ------------------------------------------------------------------------------------------------


async def _when(channel: Any, arguments: dict[str, Any]) -> tuple[str, type[Exception]]:
    """When the error of a call is raised, and which it is."""
    try:
        call = UNARY.begin(channel, **arguments)
    except Exception as error:  # noqa: BLE001 -- whatever is raised is what is compared
        return "call", type(error)
    try:
        await call
    except Exception as error:  # noqa: BLE001 -- as above
        return "await", type(error)
    raise AssertionError("nothing is wrong with it")


_WRONG: tuple[dict[str, Any], ...] = (
    {"metadata": {"a": "b"}},
    {"metadata": (("a", "b", "c"),)},
    {"metadata": 5},
    {"compression": "gzip"},
    {"compression": 99},
    {"compression": ["gzip"]},
    {"timeout": "1"},
    # Old releases take only tuples as sequences.
    *({"metadata": each} for each in ([("a", "b", "c")], "ab") if GRPC_RELEASE >= (1, 83)),
)


@pytest.mark.parametrize("intercepted", [False, True], ids=["", "intercepted"])
# In old releases the finalizer of gRPC's own intercepted call raises.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("wrong", _WRONG, ids=str)
@in_loop
async def test_a_wrong_argument_is_reported_when_grpc_does(
    calls: CallServer, wrong: dict[str, Any], intercepted: bool
) -> None:
    """The call, or awaiting it, raises, as on a channel, whether it gets a place at once or has to wait."""
    async with world(calls) as at:
        interceptors = of_all_kinds(passes) if intercepted else None
        expected = await _when(await _channel(at, "bare", interceptors), wrong)
        pool = await at.pool()
        add_interceptors(pool, interceptors or ())
        assert await _when(pool, wrong) == expected
        full = await Full.of(pool)
        asking = asyncio.create_task(_when(pool, wrong))
        await settle()
        full.make_room()
        assert await asking == expected


@in_loop
async def test_metadata_that_can_be_read_once(calls: CallServer) -> None:
    """It is read when the call is made, so that the call can be sent again."""
    async with world(calls) as at:
        full = await at.full()
        pairs = iter([("a", "b")])
        call = UNARY.begin(full.pool, "metadata", metadata=pairs)
        assert next(pairs, None) is None
        full.make_room()
        assert b'"a"' in await call


# --- asked late -----------------------------------------------------------------------------------------------------


@OVER
def test_a_finished_call_is_asked_in_another_loop(calls: CallServer, over: str) -> None:
    """Its status can be read after its own loop has ended."""
    finished: list[Any] = []

    async def make() -> None:
        async with world(calls) as at:
            call = UNARY.begin(await _channel(at, over))
            await call
            finished.append(call)

    async def ask() -> Any:
        (call,) = finished
        await call.trailing_metadata()
        return await call.code(), await call.details()

    run(make())
    code, _ = run(ask())
    assert code is grpc.StatusCode.OK
    finished.clear()
    gc.collect()


# --- iterated again -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", ["bare", "pool", "wait"])
@in_loop
async def test_a_call_has_one_iterator(calls: CallServer, over: str) -> None:
    """It is the same each time. Closed halfway, or before the first response, it is over, and the call goes on."""
    async with world(calls) as at:
        pool = await at.pool()
        channel: Any = await _channel(at, "bare") if over == "bare" else pool
        full = await Full.of(pool)
        if over != "wait":
            full.make_room()
        tag = new_tag()
        call = STREAM.begin(channel, f"hold:{tag}")
        assert aiter(call) is aiter(call)
        full.make_room()
        responses = aiter(call)
        assert await anext(responses) == b"0"
        await responses.aclose()
        del responses
        assert [response async for response in call] == []
        assert not call.done()
        call.cancel()
        await at.until_let_go(tag)

        full = await Full.of(pool)
        if over != "wait":
            full.make_room()
        call = STREAM.begin(channel)
        await aiter(call).aclose()
        assert [response async for response in call] == []
        full.make_room()
        assert [response async for response in call] == []
        call.cancel()


@pytest.mark.parametrize("over", ["bare", "pool", "wait"])
@in_loop
async def test_an_iterator_is_closed_while_it_is_read(calls: CallServer, over: str) -> None:
    """That raises, and affects neither the call nor what reads it."""
    async with world(calls) as at:
        pool = await at.pool()
        channel: Any = await _channel(at, "bare") if over == "bare" else pool
        full = await Full.of(pool)
        if over != "wait":
            full.make_room()
        call = STREAM.begin(channel)
        responses: Any = aiter(call)
        first, early = asyncio.create_task(anext(responses)), anext(responses)
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="already running"):
            await responses.aclose()
        full.make_room()
        assert await first == b"0"
        # One that was asked for before, and is awaited only now.
        assert await early == b"1"
        assert [response async for response in call] == [b"2"]


@pytest.mark.parametrize("over", ["bare", "channels"])
@in_loop
async def test_a_call_with_interceptors_is_read_twice_at_once(calls: CallServer, over: str) -> None:
    """The second raises, and the call goes on, where the interceptors are those of the channels, too."""
    async with world(calls) as at:
        channel: Any = native(at, passes) if over == "bare" else await intercepted(at, "channels", passes)
        call = channel.unary_stream(US)(b"ok")
        first, second = [asyncio.create_task(outcome_of(call.read())) for _ in range(2)]
        assert (await second)[0] is RuntimeError
        assert await first == ("answer", b"0")
        # What comes after that differs between gRPC's releases.
        assert [await call.read() for _ in range(2)] == [b"1", b"2"]


@in_loop
async def test_a_loop_over_responses_is_continued(calls: CallServer) -> None:
    """A second loop over a call goes on where the first was left."""
    async with world(calls) as at:
        for channel in (at.plain, await at.pool()):
            call = channel.unary_stream(US)(b"ok")
            async for response in call:
                assert response == b"0"
                break
            assert [response async for response in call] == [b"1", b"2"]
            assert [response async for response in call] == []


@pytest.mark.parametrize("ends", ["cancelled", "refused"])
@in_loop
async def test_a_stream_that_never_began_raises_once(calls: CallServer, ends: str) -> None:
    """One that was cancelled or refused while it waited raises in the first loop over it, and is over then."""
    async with world(calls) as at:
        full = await at.full(acquire_timeout=0.05)
        call = full.pool.unary_stream(US)(b"ok")
        if ends == "cancelled":
            call.cancel()
        assert (await outcome_of(STREAM.take(call)))[0] == ("cancelled" if ends == "cancelled" else "error")
        assert await outcome_of(STREAM.take(call)) == ("answer", [])


@pytest.mark.parametrize("ask", ["write", "done_writing"])
@pytest.mark.parametrize("way", [way for way in WAYS if "iterator" in way.gives], ids=str)
@in_loop
async def test_writing_to_a_call_with_an_iterator_that_never_began(calls: CallServer, way: Way, ask: str) -> None:
    """It raises `UsageError`, as on any call with an iterator, whether that is over or not."""
    async with world(calls) as at:
        full = await at.full()
        for call in (way.begin(at.plain), way.begin(full.pool)):
            call.cancel()
            with pytest.raises(grpc.aio.UsageError):
                await (call.write(b"") if ask == "write" else call.done_writing())


# --- answered by an interceptor -------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", ["pool", "handle"])
@in_loop
async def test_done_writing_to_an_interceptor(calls: CallServer, over: str) -> None:
    """If an interceptor answers itself, `done_writing()` returns, each time, as on a channel."""

    async def answers(*_: Any) -> AsyncIterator[Any]:
        async def answer() -> AsyncIterator[Any]:
            yield b"answer"

        return answer()

    async with world(calls) as at:
        channel = await _channel(at, over, of_all_kinds(answers))
        call = channel.stream_stream(SS)()
        # Before 1.83 each further one leaves a task of gRPC's.
        for _ in range(3 if GRPC_RELEASE >= (1, 83) else 1):
            async with asyncio.timeout(5):
                await call.done_writing()
        assert [response async for response in call] == [b"answer"]


@in_loop
async def test_a_lease_in_the_grace(calls: CallServer) -> None:
    """A pool that waits for a lease is `READY`, and shut down once the lease is released."""
    async with world(calls) as at:
        config = PoolConfig(max_size=1)
        pool = at.enter(grpcpool.aio.insecure_channel(calls.target, config=config))
        lease = await pool.acquire()
        (closing,) = await begun(pool.close(10))
        assert pool.get_state() is State.READY
        lease.release()
        await closing
        assert pool.get_state() is State.SHUTDOWN
