"""What is done on asyncio with a gRPC that has other names; see `scenarios`."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, NoReturn

import grpc
import grpc.experimental

import grpcpool
from aio_calls.support_interceptors import Counting, append, of_all_kinds
from grpc_facts.scenarios import LONG, NOT_METADATA
from grpcpool import PoolConfig, isolated
from support import aio_pools, aio_ways
from support import call_server as support
from support.loops import settle


def aio_calls(target: str) -> Any:
    """Makes a call in each way, on a pool and on a lease; and one that fails."""
    return asyncio.run(_aio_calls(target))


async def _aio_calls(target: str) -> Any:
    async with grpcpool.aio.insecure_channel(target, config=PoolConfig(max_size=1)) as pool:
        for way in aio_ways.WAYS:
            async with pool.acquire(streams=1) as lease:
                for channel in (pool, lease):
                    assert await way.whole(channel) == ([b"0", b"1", b"2"] if way.streams_out else b"0"), way
        call: Any = pool.unary_unary(support.UU)
        code = None
        try:
            await call(b"fail", timeout=LONG)
        except grpc.aio.AioRpcError as error:
            code = error.code().name
        await aio_pools.at_rest(pool)
        return code


def aio_closed(target: str, below: bool) -> Any:
    """Closes a pool, or the channel `below` it, while calls run; how these end, and how many the channel knew."""
    return asyncio.run(_aio_closed(target, below=below))


async def _aio_closed(target: str, *, below: bool) -> Any:
    channel = grpc.aio.insecure_channel(target, isolated())
    pool = grpcpool.aio.ChannelPool(lambda: channel, PoolConfig(max_size=1))
    await pool.open()
    async with pool.acquire(streams=1) as lease:
        ways = [way for way in aio_ways.WAYS if not way.streams_in]
        begun = [way.begin(each, f"hold:{support.new_tag()}") for way in ways for each in (pool, lease)]
        # GRPC begins them.
        await settle()
        known = len(set(getattr(channel, "_active_calls", ())))
        await (channel if below else pool).close()
        codes = {(await call.code()).name for call in begun}
    await pool.close()
    return [known, sorted(codes)]


def aio_closed_beside_others(target: str, how: str) -> Any:
    """Closes a connection during calls of the pool and of `prime`, whose callbacks raise; how those of the pool end."""
    return asyncio.run(_aio_closed_beside_others(target, how))


async def _aio_closed_beside_others(target: str, how: str) -> Any:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    others = []

    def fails(_: object) -> NoReturn:
        raise ZeroDivisionError

    async def prime(channel: Any) -> None:
        for _ in range(3):
            call = channel.unary_stream(support.US)(f"hold:{support.new_tag()}".encode())
            call.add_done_callback(fails)
            others.append(call)

    config = PoolConfig(max_size=1, prime=prime, drain_timeout=0.1)
    pool = grpcpool.aio.insecure_channel(target, config=config)
    await pool.open()
    begun = [way.begin(pool, f"hold:{support.new_tag()}") for way in aio_ways.WAYS]
    await settle()
    (slot,) = pool._driver.machine.fleet.slots
    if how == "refresh":
        pool.refresh()
    elif how == "close":
        await pool.close()
    else:
        with contextlib.suppress(ZeroDivisionError):
            await slot.channel.channel.close()
    return [(await asyncio.wait_for(call.code(), LONG)).name for call in begun]


def aio_metadata(target: str) -> Any:
    """What a server sees of the metadata of calls with and without, and with compression."""
    return asyncio.run(_aio_metadata(target))


async def _aio_metadata(target: str) -> Any:
    async with grpcpool.aio.insecure_channel(target, config=PoolConfig(max_size=1)) as pool:
        call: Any = pool.unary_unary(support.UU)
        return [
            (await call(b"metadata", metadata=metadata, compression=compression)).decode()
            for metadata in (None, (), (("x-key", "1"), ("x-key", "2")), grpc.aio.Metadata(("x-key", "3")))
            for compression in (None, grpc.Compression.NoCompression, grpc.Compression.Gzip)
        ]


def aio_serialized(target: str) -> bool:
    """Whether a request is serialized before the call; the call must succeed in any case."""
    return asyncio.run(_aio_serialized(target))


async def _aio_serialized(target: str) -> bool:
    seen: list[str] = []

    def serialize(text: str) -> bytes:
        seen.append(text)
        return text.encode()

    async with grpcpool.aio.insecure_channel(target, config=PoolConfig(max_size=1)) as pool:
        await pool.open()
        multicallable: Any = pool.unary_unary(support.UU, serialize)
        call = multicallable("hello", timeout=LONG)
        before = bool(seen)
        await call
        assert seen == ["hello"]
        return before


def aio_unsendable(target: str, stream: bool) -> Any:
    """Whether a call ends that gRPC cannot send: when nothing but a callback waits for it, and when it is awaited."""
    return asyncio.run(_aio_unsendable(target, stream=stream))


async def _aio_unsendable(target: str, *, stream: bool) -> Any:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    way = aio_ways.STREAM if stream else aio_ways.UNARY
    pool = grpcpool.aio.insecure_channel(target, config=PoolConfig(max_size=1))
    await pool.open()
    ended: list[Any] = []
    call = way.begin(pool, metadata=NOT_METADATA)
    call.add_done_callback(ended.append)
    await asyncio.sleep(0.5)
    unattended = bool(ended)
    call.cancel()
    awaited = None
    try:
        await way.take(way.begin(pool, metadata=NOT_METADATA))
    except Exception as error:  # noqa: BLE001 -- gRPC's may be any
        awaited = type(error).__name__
    assert await way.whole(pool)
    await aio_pools.at_rest(pool)
    await pool.close()
    return [unattended, awaited]


def intercepted(target: str) -> Any:
    """Makes a call in each way through interceptors of a pool and of its lease; the classes of the calls."""
    return asyncio.run(_intercepted(target))


async def _intercepted(target: str) -> Any:
    counting = Counting()
    kinds = set()
    pool = grpcpool.aio.insecure_channel(
        target, interceptors=of_all_kinds(counting), config=PoolConfig(max_size=1, max_streams=2)
    )
    async with pool, pool.acquire(streams=1) as lease:
        for way in aio_ways.WAYS:
            for channel in (pool, lease):
                call = way.begin(channel)
                kinds.add(type(call).__module__)
                assert await way.use(call) == ([b"0", b"1", b"2"] if way.streams_out else b"0"), way
                assert await call.code() is grpc.StatusCode.OK
        await _write_while_waiting(pool)
    assert len(counting.methods) == 2 * len(aio_ways.WAYS) + 2
    return sorted(kinds)


async def _write_while_waiting(pool: Any) -> None:
    """Writes to a call that waits for its place; and, without effect, after the end of the writes."""
    writes = next(way for way in aio_ways.WAYS if way.writes and way.streams_out)
    holding = await pool.acquire(streams=1)
    waiting = writes.begin(pool)
    writing = asyncio.ensure_future(writes.send(waiting))
    await settle()
    holding.release()
    await writing
    assert await writes.take(waiting) == [b"0", b"1", b"2"]
    late = writes.begin(pool, "hold:late")
    await late.write(b"hold:late")
    await late.done_writing()
    # gRPC notes it a little later.
    await asyncio.sleep(0.1)
    try:
        await late.write(b"more")
    except asyncio.InvalidStateError:
        late.cancel()
    else:
        raise AssertionError("it was written after the end of the writes")


def appended(target: str) -> int:
    """How often interceptors were called that were appended to the lists of a pool, whose lease has them as well."""
    return asyncio.run(_appended(target))


async def _appended(target: str) -> int:
    counting = Counting()
    async with grpcpool.aio.insecure_channel(target) as pool:
        append(pool, counting)
        async with pool.acquire(streams=1) as lease:
            for way in aio_ways.KINDS:
                await way.whole(pool)
                await way.whole(lease)
    return len(counting.methods)
