"""A task that is cancelled while it uses a call gets the message of its cancellation, by which anyio knows its own."""

from __future__ import annotations

import asyncio
import asyncio.tasks
from typing import Any

import pytest

from aio_calls.support import begun, cancelled, world
from aio_calls.support_interceptors import POOLS, Place, awaits, intercepted, passes
from grpcpool._aio import call as call_module
from grpcpool._grpc import cancel_messages
from grpcpool.testing.aio import FakeFactory
from support.aio_pools import at_rest, holding, pool_over
from support.aio_ways import UNARY, WAYS, Way
from support.call_server import CallServer, new_tag
from support.loops import in_loop, settle
from support.servers import ECHO
from support.waiting import LONG

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("each_loop")]

_ONE_RESPONSE = tuple(way for way in WAYS if not way.streams_out)


@pytest.mark.parametrize("where", ["pool", "lease"])
@pytest.mark.parametrize("way", WAYS, ids=str)
@in_loop
async def test_of_a_running_call(calls: CallServer, way: Way, where: str) -> None:
    """A call of any kind that is awaited or read."""
    async with world(calls) as at:
        pool = await at.pool()
        tag = new_tag()
        if where == "pool":
            assert await cancelled(way.whole(pool, f"hold:{tag}"), at, tag) == ("as the test wants",)
        else:
            async with pool.acquire() as lease:
                assert await cancelled(way.whole(lease, f"hold:{tag}"), at, tag) == ("as the test wants",)
        await at_rest(pool)


@pytest.mark.parametrize("way", _ONE_RESPONSE, ids=str)
@in_loop
async def test_without_knowledge_of_grpcs_classes(calls: CallServer, monkeypatch: pytest.MonkeyPatch, way: Way) -> None:
    """If gRPC's own calls are of other classes, or do not cancel themselves, they get the help that all others get."""
    monkeypatch.setattr(cancel_messages, "KEEPS_MESSAGE", None)
    monkeypatch.setattr(call_module, "NEED_NO_HELP", frozenset())
    async with world(calls) as at:
        pool = await at.pool()
        tag = new_tag()
        assert await cancelled(way.whole(pool, f"hold:{tag}"), at, tag) == ("as the test wants",)
        assert await way.whole(pool) == await way.whole(at.plain)
        await at_rest(pool)


@pytest.mark.parametrize("way", WAYS, ids=str)
@in_loop
async def test_of_a_waiting_call(calls: CallServer, way: Way) -> None:
    """A call that waits for a place."""
    async with world(calls) as at:
        full = await at.full()
        (task,) = await begun(way.whole(full.pool))
        task.cancel("as the test wants")
        with pytest.raises(asyncio.CancelledError, match="as the test wants"):
            await task


@pytest.mark.parametrize("place", [*POOLS, "channels"])
@pytest.mark.parametrize("intercept", [passes, awaits], ids=["passes", "awaits"])
@pytest.mark.parametrize("way", _ONE_RESPONSE, ids=str)
@in_loop
async def test_of_an_intercepted_call(
    calls: CallServer, each_loop: str, way: Way, intercept: Any, place: Place
) -> None:
    """A call with interceptors, of the pool or of its channels, whether or not they wait for its end."""
    if way.writes and place == "channels" and each_loop == "eager":
        pytest.skip("gRPC's own intercepted calls cannot be written to where tasks are eager")
    if way.writes and intercept is awaits:
        pytest.skip("nothing is sent before the interceptors are done")
    if place == "channels" and intercept is awaits:
        pytest.skip("the channel's interceptor is cancelled without its call, which gRPC then forgets")
    async with world(calls) as at:
        pool = await intercepted(at, place, intercept)
        tag = new_tag()
        assert await cancelled(way.whole(pool, f"hold:{tag}"), at, tag) == ("as the test wants",)
        await at_rest(pool)


@pytest.mark.parametrize("ask", ["code", "initial_metadata", "wait_for_connection"])
@in_loop
async def test_of_what_asks_a_call(calls: CallServer, ask: str) -> None:
    """A method of a running call that waits."""
    async with world(calls) as at:
        pool = await at.pool()
        tag = new_tag()
        call = UNARY.begin(pool, f"hold:{tag}")

        async def work() -> None:
            try:
                await getattr(call, ask)()
            finally:
                # Only one of the three cancels the call by itself.
                call.cancel()

        assert await cancelled(work(), at, tag) == ("as the test wants",)
        await at_rest(pool)


@in_loop
async def test_each_task_has_its_own(calls: CallServer) -> None:
    """Of two tasks that await one call, the cancelled one gets its message; the other finds the call cancelled."""
    async with world(calls) as at:
        pool = await at.pool()
        tag = new_tag()
        call = UNARY.begin(pool, f"hold:{tag}")
        first, second = await begun(UNARY.take(call), UNARY.take(call))
        await at.until_held(tag)
        first.cancel("as the test wants")
        await asyncio.wait([first, second])
        with pytest.raises(asyncio.CancelledError, match="as the test wants"):
            await first
        with pytest.raises(asyncio.CancelledError) as raised:
            await second
        assert raised.value.args == ()


@in_loop
async def test_a_message_is_for_one_cancellation(calls: CallServer) -> None:
    """A task that awaits a cancelled call again finds it cancelled, without the message of the first time."""
    async with world(calls) as at:
        pool = await at.pool()
        tag = new_tag()
        call = UNARY.begin(pool, f"hold:{tag}")
        seen: list[tuple[Any, ...]] = []

        async def work() -> None:
            for _ in range(3):
                try:
                    await call
                except asyncio.CancelledError as error:
                    seen.append(error.args)

        (task,) = await begun(work())
        await at.until_held(tag)
        task.cancel("as the test wants")
        await task
        assert seen == [("as the test wants",), (), ()]


@in_loop
async def test_a_user_who_cancels_while_handling_another_cancellation(calls: CallServer) -> None:
    """The message of that one does not become that of a task which awaits the call."""
    async with world(calls) as at:
        pool = await at.pool()
        tag = new_tag()
        call = UNARY.begin(pool, f"hold:{tag}")
        waiting, sleeping = await begun(UNARY.take(call), asyncio.sleep(LONG))
        await at.until_held(tag)
        sleeping.cancel("of another")
        try:
            await sleeping
        except asyncio.CancelledError:
            call.cancel()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError) as raised:
            await waiting
        assert raised.value.args == ()


@in_loop
async def test_a_task_of_another_implementation(calls: CallServer) -> None:
    """Tasks that are not of asyncio's fast implementation wait, get the response, and are cancelled with a message."""
    make: Any = asyncio.tasks._PyTask  # type: ignore[attr-defined]

    async def whole(pool: Any, command: str = "ok") -> Any:
        return await UNARY.whole(pool, command)

    async with world(calls) as at:
        pool = await at.pool()
        loop = asyncio.get_running_loop()
        assert await make(whole(pool), loop=loop) == b"0"
        tag = new_tag()
        task = make(whole(pool, f"hold:{tag}"), loop=loop)
        await at.until_held(tag)
        task.cancel("as the test wants")
        with pytest.raises(asyncio.CancelledError, match="as the test wants"):
            await task
        await at_rest(pool)


# --- what uses it ---------------------------------------------------------------------------------------------------


@in_loop
async def test_calls_of_another_implementation() -> None:
    """Calls that are not gRPC's own keep the message and the response as well."""
    factory = FakeFactory(holding)
    async with pool_over(factory, max_size=1) as pool:
        for end in ("cancel", "finish"):
            call: Any = pool.unary_unary(ECHO)(b"a")

            async def wait(call: Any = call) -> Any:
                return await call

            task = asyncio.create_task(wait())
            await settle()
            if end == "finish":
                factory.made[0].calls[-1].finish([b"b"])
                assert await task == b"b"
                continue
            task.cancel("as the test wants")
            with pytest.raises(asyncio.CancelledError, match="as the test wants"):
                await task
            assert call.cancelled()


@pytest.mark.parametrize("way", WAYS, ids=str)
@in_loop
async def test_a_scope_of_anyio_ends_quietly(calls: CallServer, way: Way) -> None:
    """`move_on_after` around a call catches its own cancellation, also within a shield, and within another scope."""
    anyio = pytest.importorskip("anyio")
    async with world(calls) as at:
        pool = await at.pool()
        with anyio.CancelScope() as outer, anyio.CancelScope(shield=True), anyio.move_on_after(0.05) as scope:
            await way.whole(pool, f"hold:{new_tag()}")
        assert scope.cancelled_caught
        assert not outer.cancelled_caught
        with anyio.move_on_after(0.05) as outer, anyio.move_on_after(30) as scope:
            await way.whole(pool, f"hold:{new_tag()}")
        assert outer.cancelled_caught
        assert not scope.cancelled_caught
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await way.whole(pool, f"hold:{new_tag()}")
        await at_rest(pool)
        assert await UNARY.whole(pool) == b"0"
