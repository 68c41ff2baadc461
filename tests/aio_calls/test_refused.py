"""Callers with one request never see a refused stream, and the connection that refused a lone call is avoided."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

import grpcpool
from aio_calls.support import begun
from aio_calls.support_interceptors import Counting, append, of_all_kinds
from aio_calls.support_refusing import Refusing, refusing
from grpcpool import PoolConfig, isolated
from grpcpool.aio import ChannelPool
from grpcpool.testing import ManualClock, aio
from support.aio_pools import at_rest
from support.aio_ways import KINDS, UNARY, WAYS, Way, each, outcome_of
from support.loops import in_loop, settle, until

pytestmark = pytest.mark.timeout(60)

REPEATED = tuple(way for way in WAYS if not way.streams_in)
ONCE = tuple(way for way in WAYS if way.streams_in)
REFUSED = "Stream removed (RST_STREAM (Received RST_STREAM with error code 7))"


@contextlib.asynccontextmanager
async def _pool(times: int, *, on_requests: bool = False, **config: Any) -> AsyncIterator[tuple[ChannelPool, Refusing]]:
    """A pool to a peer that refuses the first `times` streams.

    A connection that refused its only call is avoided for a while.
    """
    config = {"min_size": 4, "max_size": 4, "max_streams": 5, **config}
    async with refusing(times, on_requests=on_requests) as peer:
        pool = grpcpool.aio.insecure_channel(peer.target, config=PoolConfig(**config))
        async with pool:
            await pool.open()
            yield pool, peer
            await at_rest(pool)


def _answer(way: Way) -> Any:
    return [b"ok"] if way.streams_out else b"ok"


@in_loop
async def test_grpcs_own_report_of_a_refusal() -> None:
    """GRPC reports `UNAVAILABLE` with these words, by which the pool recognizes it, and does not repeat the call."""
    async with refusing(1) as peer, grpc.aio.insecure_channel(peer.target, isolated()) as plain:
        kind, code, details = await outcome_of(UNARY.whole(plain))
        assert (kind, code) == ("error", grpc.StatusCode.UNAVAILABLE)
        assert "RST_STREAM with error code 7" in details
        assert await UNARY.whole(plain) == b"ok"
        assert peer.refused == 1


@pytest.mark.parametrize("on_requests", [False, True], ids=["at_once", "on_requests"])
@pytest.mark.parametrize("way", REPEATED, ids=str)
@in_loop
async def test_a_call_with_one_request_shows_no_refusal(way: Way, on_requests: bool) -> None:
    """A refused call with one request is sent again elsewhere; a lone refusal lowers no limit, and figures count it."""
    async with _pool(3, on_requests=on_requests) as (pool, peer):
        call = way.begin(pool)
        assert await way.take(call) == _answer(way)
        assert await call.code() is grpc.StatusCode.OK
        stats = pool.stats()
        assert (peer.refused, peer.answered) == (3, 1)
        assert (stats.refused_streams, stats.acquired) == (3, 4)
        assert [channel.limit for channel in stats.channels] == [5, 5, 5, 5]
        assert (stats.avoided, stats.failures) == (3, 0)


_ASKS = {
    "initial_metadata": lambda call: call.initial_metadata(),
    "trailing_metadata": lambda call: call.trailing_metadata(),
    "code": lambda call: call.code(),
    "details": lambda call: call.details(),
    "debug_error_string": lambda call: call.debug_error_string(),
    "wait_for_connection": lambda call: call.wait_for_connection(),
}


@pytest.mark.parametrize("ask", _ASKS)
@pytest.mark.parametrize("way", REPEATED, ids=str)
@in_loop
async def test_every_answer_is_of_the_last_attempt(way: Way, ask: str) -> None:
    """Whatever is asked of the call, early or late, is answered by the attempt that succeeds."""
    async with refusing(0) as peer, grpc.aio.insecure_channel(peer.target, isolated()) as plain:
        call = way.begin(plain)
        assert await way.take(call)
        expected = await _ASKS[ask](call)
    async with _pool(2) as (pool, peer):
        call = way.begin(pool)
        told: list[Any] = []
        call.add_done_callback(lambda call: told.append((call, call.done(), peer.answered)))
        asking = asyncio.create_task(_ASKS[ask](call))
        assert await way.take(call) == _answer(way)
        assert await asking == expected
        assert await _ASKS[ask](call) == expected
        assert told == [(call, True, 1)]


@in_loop
async def test_many_calls_among_refusals() -> None:
    """Of many calls at once each is answered once, although many are refused; none is lost, and no caller sees it."""
    async with _pool(20, max_streams=20, max_waiters=None) as (pool, peer):
        made = [(way, way.begin(pool, f"{i}")) for i, way in enumerate(REPEATED * 50)]
        answers = await asyncio.gather(*(way.take(call) for way, call in made))
        assert answers == [[b"%d" % i] if way.streams_out else b"%d" % i for i, way in enumerate(REPEATED * 50)]
        assert (peer.refused, peer.answered) == (20, 150)
        assert pool.stats().refused_streams == 20


@pytest.mark.parametrize("way", REPEATED, ids=str)
@in_loop
async def test_within_its_deadline(way: Way) -> None:
    """A call that is refused for ever fails at its deadline."""
    async with _pool(10**9, max_resends=1000) as (pool, peer):
        outcome = await outcome_of(way.whole(pool, timeout=0.3))
        assert outcome[:2] == ("error", grpc.StatusCode.DEADLINE_EXCEEDED)
        # The last refusal may be on its way when the deadline comes.
        assert peer.refused - pool.stats().refused_streams in (0, 1)


@pytest.mark.parametrize("way", REPEATED, ids=str)
@in_loop
async def test_cancelled_between_attempts(way: Way) -> None:
    """A call cancelled between refusals is over at once, and makes no further attempt."""
    async with _pool(10**9) as (pool, peer):
        call = way.begin(pool)
        (taking,) = await begun(way.take(call))
        await until(lambda: peer.refused >= 3)
        assert call.cancel()
        assert await outcome_of(taking) == ("cancelled",)
        assert await call.code() is grpc.StatusCode.CANCELLED
        await at_rest(pool)
        seen = peer.refused
        await settle(100)
        assert peer.refused <= seen + 1


@pytest.mark.parametrize("way", REPEATED, ids=str)
@in_loop
async def test_dropped_between_attempts(way: Way) -> None:
    """A stream dropped between refusals releases its place. A call with one response goes on until its pool ends."""
    async with _pool(10**9) as (pool, peer):
        call = way.begin(pool)
        await until(lambda: peer.refused >= 3)
        del call
        if way.ends_unread:
            seen = peer.refused
            await until(lambda: peer.refused > seen + 1)
            await pool.close()
        await at_rest(pool)


@pytest.mark.parametrize("way", REPEATED, ids=str)
@in_loop
async def test_closed_between_attempts(way: Way) -> None:
    """A call refused while the pool closes ends with the close."""
    async with _pool(10**9) as (pool, peer):
        using = asyncio.create_task(outcome_of(way.whole(pool)))
        await until(lambda: peer.refused >= 3)
        await pool.close()
        assert (await using)[:2] in {("cancelled",), ("error", grpc.StatusCode.CANCELLED)}


@pytest.mark.parametrize("way", ONCE, ids=str)
@in_loop
async def test_a_call_with_an_iterator_shows_the_refusal(way: Way) -> None:
    """A call that streams requests cannot be sent again: its caller gets gRPC's error, once."""
    async with _pool(1) as (pool, peer):
        call = way.begin(pool, requests=each() if way.gives == "async iterator" else iter(()))
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            await way.send(call)
        outcome = await outcome_of(way.take(call))
        assert outcome[0] == "error"
        await at_rest(pool)
        stats = pool.stats()
        assert (peer.refused, stats.refused_streams, stats.acquired) == (1, 1, 1)
        assert stats.avoided == 1
        assert await UNARY.whole(pool) == b"ok"


@pytest.mark.parametrize("way", REPEATED, ids=str)
@in_loop
async def test_a_request_is_sent_as_it_was(way: Way) -> None:
    """The second attempt sends the request as it was at the first."""
    async with _pool(2) as (pool, _):
        request = ["first"]
        multicallable: Any = getattr(pool, way.maker)(way.method, lambda value: value[0].encode(), None)
        call = multicallable(request, timeout=20)
        (taking,) = await begun(way.take(call))
        request[0] = "second"
        assert await taking == ([b"first"] if way.streams_out else b"first")


@pytest.mark.parametrize("way", REPEATED, ids=str)
@in_loop
async def test_interceptors_of_the_pool_see_one_call(way: Way) -> None:
    """Interceptors around the pool see one call; those of its channels see each attempt."""
    for place in ("pool", "channels"):
        counting = Counting()
        async with refusing(2) as peer:
            inside = of_all_kinds(counting) if place == "channels" else None
            target = peer.target
            pool = ChannelPool(
                lambda inside=inside, target=target: grpc.aio.insecure_channel(  # type: ignore[misc]
                    target, isolated(), interceptors=inside
                ),
                PoolConfig(min_size=3, max_size=3),
            )
            async with pool:
                await pool.open()
                if place == "pool":
                    append(pool, counting)
                assert await way.whole(pool) == _answer(way)
                assert len(counting.methods) == (1 if place == "pool" else 3)
                await at_rest(pool)


@in_loop
async def test_on_another_connection() -> None:
    """If another connection has room, the second attempt goes there at once."""
    async with _pool(1, max_size=2, min_size=2) as (pool, peer):
        assert await UNARY.whole(pool) == b"ok"
        stats = pool.stats()
        assert peer.connections == 2
        assert stats.wait_seconds < 0.4
        assert sorted(channel.calls for channel in stats.channels) == [1, 1]


@pytest.mark.parametrize("way", [KINDS[0], KINDS[1]], ids=str)
@in_loop
async def test_the_second_attempt_has_the_rest_of_the_time(clock: ManualClock, way: Way) -> None:
    """The second attempt has the rest of the call's time; the wait for its place is part of it."""
    channel = aio.FakeChannel(holds_calls=True)
    pool = ChannelPool(aio.FakeFactory(lambda: channel), PoolConfig(max_size=1, max_streams=2))
    async with pool, pool.acquire(streams=1):
        call = way.begin(pool, timeout=60)
        taking = asyncio.create_task(way.take(call))
        await settle(10)
        clock.advance(20.0)
        channel.calls[0].fail(grpc.StatusCode.UNAVAILABLE, REFUSED)
        assert not call.done()
        assert len(channel.calls) == 1
        # The limit is what is left: the lease.
        clock.advance(1.0)
        assert len(channel.calls) == 2
        left = channel.calls[1].time_remaining()
        assert left is not None
        assert 38 < left <= 39
        channel.calls[1].finish([b"answer"])
        assert await taking == ([b"answer"] if way.streams_out else b"answer")
        assert pool.stats().acquired == 3


@in_loop
async def test_after_the_first_response_a_refusal_shows() -> None:
    """A stream that has been read from is not sent again; its caller gets the server's error."""
    channel = aio.FakeChannel(holds_calls=True)
    pool = ChannelPool(aio.FakeFactory(lambda: channel), PoolConfig(max_size=1, max_streams=1))
    async with pool:
        await pool.open()
        call = KINDS[1].begin(pool)
        channel.calls[0].send(b"first")
        responses = aiter(call)
        assert await anext(responses) == b"first"
        channel.calls[0].fail(grpc.StatusCode.UNAVAILABLE, REFUSED)
        with pytest.raises(grpc.aio.AioRpcError):
            await anext(responses)
        assert len(channel.calls) == 1
        assert call.done()
        del call, responses
        gc.collect()
        await at_rest(pool)


@in_loop
async def test_other_failures_are_not_repeated() -> None:
    """`UNAVAILABLE` for another reason, and other codes with the same words, reach the caller."""
    channel = aio.FakeChannel(holds_calls=True)
    pool = ChannelPool(aio.FakeFactory(lambda: channel), PoolConfig(max_size=1, max_streams=1))
    async with pool:
        await pool.open()
        for code, details in (
            (grpc.StatusCode.UNAVAILABLE, "Received RST_STREAM with error code 2"),
            (grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 0"),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, REFUSED),
        ):
            call = UNARY.begin(pool)
            taking = asyncio.create_task(outcome_of(call))
            await settle(10)
            channel.calls[-1].fail(code, details)
            assert await taking == ("error", code, details)
        assert len(channel.calls) == 3
        assert pool.stats().refused_streams == 0
        await at_rest(pool)
