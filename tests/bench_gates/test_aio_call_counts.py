"""What the pool adds to a call on asyncio, as counts of calls: the same on every machine, every time.

Times are measured by hand, in `bench/`. The bounds are what the code needs today; a change that raises one must say
why. The calls are real ones, with a serializer as stubs have it. Functions of asyncio are left out, because how often
they run depends on the network.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
import pytest

from bench_gates.counting import Calls
from grpcpool import PoolConfig, aio, isolated
from support.loops import in_loop
from support.servers import COUNT, ECHO, Server

Work = Callable[[grpc.aio.Channel], Callable[[], Awaitable[None]]]
"""Returns, for a channel, a function that begins a call and waits for its end."""

# To begin: UnaryUnary.__call__, PoolCaller.begin, new_running, LeastLoaded.take, StagedCall._begin and when_over. To
# await: the proxy's __await__, twice. To end: RunningInPool.ended, has_succeeded, release and StagedCall.__del__. Where
# `lean_aio_multicallables.py` applies, gRPC's own part makes fewer calls than over a channel.
_UNARY = 12

# In addition, the proxy of the responses.
_MESSAGE = 1


def _unary(channel: grpc.aio.Channel) -> Callable[[], Awaitable[None]]:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ECHO, bytes, bytes)

    async def work() -> None:
        await call(b"request")

    return work


def _stream(messages: int) -> Work:
    def of(channel: grpc.aio.Channel) -> Callable[[], Awaitable[None]]:
        call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(COUNT, bytes, bytes)

        async def work() -> None:
            async for _ in call(str(messages).encode()):
                pass

        return work

    return of


async def _count(work: Callable[[], Awaitable[None]]) -> Calls:
    """The least of several counts: the first fills caches, and the network's own work may add a call."""
    counts = []
    for _ in range(10):
        with Calls() as calls:
            await work()
        counts.append(calls)
    return min(counts, key=lambda calls: calls.inside("grpc", "grpcpool"))


async def _counts(server: Server, works: Iterable[Work]) -> list[tuple[Calls, Calls]]:
    """For each work, the calls that it makes on a channel, and on a pool of one connection."""

    def factory() -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(server.target, isolated())

    config = PoolConfig(min_size=1, max_size=1)
    async with factory() as channel, aio.ChannelPool(factory, config) as pool:
        await pool.open()
        return [(await _count(work(channel)), await _count(work(pool))) for work in works]


def _added(pair: tuple[Calls, Calls]) -> int:
    bare, ours = (calls.inside("grpc", "grpcpool") for calls in pair)
    return ours - bare


@in_loop
async def test_an_uncontended_call_costs_few_calls(server: Server) -> None:
    """An uncontended call over the pool makes at most twelve more calls of Python functions than over a channel."""
    [counts] = await _counts(server, [_unary])
    assert 0 < _added(counts) <= _UNARY, counts[1].python - counts[0].python


@in_loop
async def test_a_message_of_a_stream_costs_one_call(server: Server) -> None:
    """Each message read over the pool makes at most one more call of a Python function than over a channel."""
    few, many = await _counts(server, [_stream(1), _stream(11)])
    assert _added(many) - _added(few) <= 10 * _MESSAGE


@pytest.mark.parametrize("work", [_unary, _stream(3)], ids=["unary", "stream"])
def test_it_creates_no_effects(server: Server, work: Work) -> None:
    """An uncontended call creates no effect objects: the driver has nothing to carry out."""

    @in_loop
    async def test() -> None:
        [(_, ours)] = await _counts(server, [work])
        assert not ours.made_effects

    test()


@in_loop
async def test_the_count_sees_effects() -> None:
    """Effects would be noticed: connecting dials, which needs effects, and they are counted."""
    pool: Any = aio.ChannelPool(lambda: grpc.aio.insecure_channel("127.0.0.1:1", isolated()))
    async with pool:
        with Calls() as calls:
            pool.get_state(try_to_connect=True)
        assert calls.made_effects
