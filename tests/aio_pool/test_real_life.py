"""A pool over real servers: connections counted from outside, replaced, lost and recovered; and nothing left of it."""

from __future__ import annotations

import asyncio
import gc
import itertools
import socket
import time
from typing import Any

import grpc
import psutil
import pytest

from grpcpool import PoolConfig, PoolOpenError, PoolTimeoutError, aio, isolated
from grpcpool.aio import ChannelPool, Lease
from support.aio_pools import pool_over, tasks_of_pools, unary
from support.connections import addresses_of_connections_to, connections_to
from support.loops import in_loop, settle, until
from support.servers import CHAT, COLLECT, COUNT, ECHO, FAIL, PEER, SLOW, Server

pytestmark = pytest.mark.timeout(90)

State = grpc.ChannelConnectivity

_each_loop = pytest.mark.usefixtures("each_loop")

_LONG = 20.0


async def _works(channel: Any, **how: Any) -> bool:
    try:
        return await unary(channel, ECHO, b"a", **{"timeout": 5, **how}) == b"a"
    except grpc.RpcError:
        return False


async def _until_connections(port: int, number: int) -> None:
    def there_are() -> bool:
        # gRPC keeps a closed channel's connection until the last of its calls is collected, and errors hold calls.
        gc.collect()
        return connections_to(port) == number

    await until(there_are)


# --- connections are real -------------------------------------------------------------------------------------------


@_each_loop
@in_loop
async def test_each_connection_is_a_separate_tcp_connection(server: Server) -> None:
    """Ten leases have ten connections, as counted by server and operating system; after close there are none."""
    async with pool_over(server.aio_channel, max_size=10) as pool:
        leases = await asyncio.gather(*(pool.acquire() for _ in range(10)))
        peers = await asyncio.gather(*(unary(lease, PEER, b"") for lease in leases))
        assert len(set(peers)) == 10
        assert connections_to(server.port) == 10
        for lease in leases:
            lease.release()
    await _until_connections(server.port, 0)


@in_loop
async def test_it_grows_with_the_load_and_shrinks_when_it_is_idle(server: Server) -> None:
    """Fifty concurrent calls make it grow to `max_size`; once idle, it shrinks to `min_size`."""
    async with pool_over(
        server.aio_channel, min_size=1, max_size=4, max_streams=10, target_streams=5, idle_timeout=0.3
    ) as pool:
        await pool.open()
        assert connections_to(server.port) == 1
        for _ in range(2):
            await asyncio.gather(*(unary(pool, SLOW, b"50") for _ in range(50)))
        stats = pool.stats()
        assert (stats.size, stats.in_flight) == (4, 0)
        assert connections_to(server.port) == 4
        await _until_connections(server.port, 1)
        assert pool.stats().size == 1


@in_loop
async def test_insecure_channel_returns_a_pool(server: Server) -> None:
    """``grpcpool.aio.insecure_channel`` returns a pool that can call, lease and close."""
    async with aio.insecure_channel(server.target, config=PoolConfig(min_size=2)) as pool:
        assert pool.name == server.target
        assert await unary(pool, ECHO, b"a") == b"a"
        async with pool.acquire(streams=1) as lease:
            assert await _works(lease)
        await until(lambda: connections_to(server.port) == 2)
    await _until_connections(server.port, 0)


# --- replacing ------------------------------------------------------------------------------------------------------


@_each_loop
@in_loop
async def test_a_refresh_makes_new_connections_without_a_gap(server: Server) -> None:
    """After it all TCP connections are new; meanwhile every call succeeds, and there always is a connection."""
    async with pool_over(server.aio_channel, min_size=3, max_size=3, max_streams=5) as pool:
        await pool.open()
        before = addresses_of_connections_to(server.port)
        over = asyncio.Event()

        async def use() -> None:
            while not over.is_set():
                async with pool.acquire(timeout=_LONG, streams=1) as lease:
                    await unary(lease, ECHO, b"a")
                await unary(pool, ECHO, b"a")
                assert pool.stats().ready >= 1

        users = [asyncio.create_task(use()) for _ in range(4)]
        pool.refresh()
        await until(lambda: pool.stats().closed["refresh"] == 3)
        over.set()
        await asyncio.gather(*users)
        await _until_connections(server.port, 3)
        assert before.isdisjoint(addresses_of_connections_to(server.port))
        assert pool.stats().open_failures == 0


@in_loop
async def test_a_call_that_outlives_drain_timeout_is_cancelled(server: Server) -> None:
    """A call on a replaced connection continues for `drain_timeout`; then it and the connection end."""
    async with pool_over(server.aio_channel, drain_timeout=0.5) as pool:
        await pool.open()
        before = addresses_of_connections_to(server.port)
        call = pool.unary_unary(SLOW)(b"20000")
        await settle()
        began = time.monotonic()
        pool.refresh()
        assert await call.code() is grpc.StatusCode.CANCELLED
        assert 0.45 <= time.monotonic() - began < 10
        # It would keep the connection, just as it does without a pool.
        del call
        await _until_connections(server.port, 1)
        assert before.isdisjoint(addresses_of_connections_to(server.port))
        assert (pool.stats().in_flight, pool.stats().closed["refresh"]) == (0, 1)


@in_loop
async def test_connections_are_replaced_by_age(server: Server) -> None:
    """At `max_age` each is replaced, again and again, while calls go on; at most one connection is open in addition."""
    async with pool_over(server.aio_channel, min_size=2, max_size=2, max_age=0.2) as pool:
        await pool.open()
        peers: set[bytes] = set()

        async def has_aged() -> bool:
            peers.add(await unary(pool, PEER, b""))
            assert pool.stats().size <= 4
            return pool.stats().closed["age"] >= 6

        deadline = time.monotonic() + _LONG
        while not await has_aged():
            assert time.monotonic() < deadline
        assert len(peers) >= 3
        assert pool.stats().open_failures == 0
    await _until_connections(server.port, 0)


@in_loop
async def test_a_successor_that_cannot_be_made_leaves_the_old_one() -> None:
    """While new connections are refused, the old one stays in service."""
    with Server() as server:
        targets = itertools.chain([server.target], itertools.repeat("127.0.0.1:1"))

        def factory() -> grpc.aio.Channel:
            return grpc.aio.insecure_channel(next(targets), isolated())

        async with pool_over(factory, max_size=1) as pool:
            await pool.open()
            pool.refresh()
            await until(lambda: pool.stats().open_failures >= 2)
            assert await _works(pool)
            assert connections_to(server.port) == 1


# --- priming --------------------------------------------------------------------------------------------------------


@in_loop
async def test_a_prime_makes_a_real_call(server: Server) -> None:
    """A coroutine function that makes a call on the new channel runs for each connection before it is used."""
    primed: list[bytes] = []

    async def prime(channel: grpc.aio.Channel) -> None:
        primed.append(await unary(channel, PEER, b""))

    async with pool_over(server.aio_channel, min_size=3, prime=prime) as pool:
        await pool.open()
        assert {peer.decode() for peer in primed} == addresses_of_connections_to(server.port)


@in_loop
async def test_a_prime_whose_call_fails_fails_the_connection(server: Server) -> None:
    """`open()` raises with the server's answer to the call, and no reference to the connection is left."""

    async def prime(channel: grpc.aio.Channel) -> None:
        await unary(channel, FAIL, b"PERMISSION_DENIED")

    async def fail_to_open(pool: ChannelPool) -> None:
        with pytest.raises(PoolOpenError, match="failed as asked: PERMISSION_DENIED") as caught:
            await pool.open()
        assert isinstance(caught.value.__cause__, grpc.aio.AioRpcError)

    async with pool_over(server.aio_channel, min_size=2, prime=prime) as pool:
        await fail_to_open(pool)
        await _until_connections(server.port, 0)


@in_loop
async def test_a_prime_whose_call_hangs_is_bounded(server: Server) -> None:
    """The prime is bounded by `connect_timeout`, after which its call is cancelled and the connection closed."""

    async def prime(channel: grpc.aio.Channel) -> None:
        await unary(channel, SLOW, b"3000")

    async with pool_over(server.aio_channel, prime=prime, connect_timeout=0.2) as pool:
        with pytest.raises(PoolOpenError, match="connect_timeout"):
            await pool.open()
        await _until_connections(server.port, 0)


# --- failing to connect ---------------------------------------------------------------------------------------------


@in_loop
async def test_an_unreachable_server_is_reported_promptly() -> None:
    """If the server is unreachable, `open()` fails with gRPC's own reason, long before `connect_timeout`."""
    begun = time.monotonic()
    async with aio.insecure_channel("127.0.0.1:1", config=PoolConfig(connect_timeout=60)) as pool:
        with pytest.raises(PoolOpenError, match=r"Connection refused|connect to all addresses"):
            await pool.open()
        assert pool.stats().size == 0
        with pytest.raises(PoolTimeoutError) as caught:
            await pool.acquire(timeout=0.3)
        assert isinstance(caught.value.__cause__, grpc.RpcError)
    assert time.monotonic() - begun < 30


@in_loop
async def test_a_server_that_accepts_and_stays_silent_costs_the_timeout() -> None:
    """A peer that never speaks HTTP/2 is given up after `connect_timeout`."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        async with aio.insecure_channel(target, config=PoolConfig(connect_timeout=0.3)) as pool:
            with pytest.raises(PoolOpenError, match="not ready within connect_timeout"):
                await pool.open()


@in_loop
async def test_channel_ready_waits_for_a_server_that_starts_late() -> None:
    """It waits for a server that starts late, even in a pool with `min_size=0`, which dials until it answers."""
    server = Server().start()
    server.kill()
    try:
        async with pool_over(server.aio_channel, min_size=0, max_size=1) as pool:
            readying = asyncio.create_task(pool.channel_ready())
            await until(lambda: pool.stats().open_failures >= 1)
            assert not readying.done()
            server.start()
            await asyncio.wait_for(readying, _LONG)
            assert pool.get_state() is State.READY
            assert await _works(pool)
    finally:
        server.kill()


# --- servers that die -----------------------------------------------------------------------------------------------


@in_loop
async def test_the_first_calls_to_a_server_that_is_back_succeed() -> None:
    """As on a channel, which is idle by then: they do not fail because earlier attempts to connect did."""
    with Server() as mortal:
        async with pool_over(mortal.aio_channel, max_size=1) as pool:
            assert await _works(pool)
            mortal.kill()
            # gRPC has tried to reconnect by then, and pauses.
            await asyncio.sleep(0.8)
            mortal.start()
            unary = pool.unary_unary(ECHO)(b"unary", timeout=_LONG)
            responses = pool.unary_stream(COUNT)(b"3", timeout=_LONG)
            upload = pool.stream_unary(COLLECT)(iter([b"a", b"b"]), timeout=_LONG)
            chat = pool.stream_stream(CHAT)(iter([b"chat"]), timeout=_LONG)
            assert await unary == b"unary"
            assert len([response async for response in responses]) == 3
            assert await upload
            assert len([response async for response in chat]) == 1


@_each_loop
@pytest.mark.usefixtures("not_given_up")
@pytest.mark.parametrize("streams", [None, 1])
@in_loop
async def test_a_connection_that_is_down_is_not_leased_while_another_is_up(streams: int | None) -> None:
    """When one of two servers is killed and the pool has noticed, every call goes to the other; later to both."""
    with Server() as mortal, Server() as other:
        servers = itertools.cycle([mortal, other])
        async with pool_over(lambda: next(servers).aio_channel(), min_size=2, max_size=2, idle_timeout=None) as pool:
            await pool.open()
            mortal.kill()
            await until(lambda: connections_to(mortal.port) == 0)
            await until(lambda: "lost" in {it.state for it in pool.stats().channels})
            for _ in range(100):
                async with pool.acquire(timeout=_LONG, streams=streams) as lease:
                    assert await _works(lease)
                assert await _works(pool)
            mortal.start()
            await until(lambda: pool.stats().ready == 2)
            async with pool.acquire(timeout=_LONG) as one, pool.acquire(timeout=_LONG) as two:
                assert await _works(one)
                assert await _works(two)
            assert pool.stats().opened == 2


@in_loop
async def test_the_state_follows_loss_and_recovery() -> None:
    """A wait for a change of the pool's state ends when its only server is lost, and when it is back."""
    with Server() as server:
        async with pool_over(server.aio_channel, max_size=1) as pool:
            await pool.channel_ready()
            lost = asyncio.create_task(pool.wait_for_state_change(State.READY))
            server.kill()
            await asyncio.wait_for(lost, _LONG)
            assert pool.get_state() is not State.READY
            ready = asyncio.create_task(pool.channel_ready())
            server.start()
            await asyncio.wait_for(ready, _LONG)
            assert pool.get_state() is State.READY
            assert await _works(pool)


@pytest.mark.usefixtures("not_given_up")
@in_loop
async def test_a_lease_held_through_the_loss_works_again() -> None:
    """A lost connection is left to gRPC's own reconnecting, not closed."""
    with Server() as server:
        async with pool_over(server.aio_channel, max_size=1) as pool, pool.acquire() as lease:
            assert await _works(lease)
            server.kill()
            await until(lambda: connections_to(server.port) == 0)
            assert not await _works(lease)
            server.start()
            assert await _works(lease, wait_for_ready=True, timeout=_LONG)
            await asyncio.wait_for(lease.channel_ready(), _LONG)
            assert pool.stats().opened == 1


@in_loop
async def test_while_nothing_is_up_an_acquire_keeps_its_timeout() -> None:
    """It raises `PoolTimeoutError` with the connect error as its cause, and the pool works when the server is back."""
    with Server() as server:
        async with pool_over(server.aio_channel, max_size=2) as pool:
            await pool.open()
            server.kill()
            await until(lambda: "lost" in {it.state for it in pool.stats().channels})
            with pytest.raises(PoolTimeoutError) as caught:
                await pool.acquire(timeout=1)
            assert isinstance(caught.value.__cause__, grpc.RpcError)
            assert pool.stats().in_flight == 0
            waiting = asyncio.create_task(pool.acquire(timeout=2 * _LONG))
            await settle()
            server.start()
            async with await waiting as lease:
                assert await _works(lease, wait_for_ready=True, timeout=_LONG)


@in_loop
async def test_a_frozen_server_costs_only_the_deadline() -> None:
    """Calls to a server that does not answer end at their deadline, or when cancelled, and nothing stays in flight."""
    with Server() as server:
        async with pool_over(server.aio_channel, max_size=1, max_streams=5) as pool:
            assert await _works(pool)
            server.freeze()
            async with pool.acquire(streams=3) as lease:
                for channel in (lease, pool):
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await unary(channel, SLOW, b"0", timeout=0.1)
                    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                call = asyncio.create_task(unary(lease, SLOW, b"0"))
                await asyncio.sleep(0.05)
                call.cancel()
            await until(lambda: pool.stats().in_flight == 0)
            server.thaw()
            async with pool.acquire(timeout=_LONG, streams=1) as lease:
                assert await _works(lease, timeout=_LONG)


@in_loop
async def test_close_of_a_pool_whose_server_is_frozen_or_gone_is_quick() -> None:
    """Neither an unresponsive nor a lost server delays `close()`."""
    for end in (Server.freeze, Server.kill):
        with Server() as server:
            pool = ChannelPool(lambda server=server: server.aio_channel(), PoolConfig(min_size=2))  # type: ignore[misc]
            await pool.open()
            call = asyncio.create_task(unary(pool, SLOW, b"5000"))
            await asyncio.sleep(0.05)
            end(server)
            begun = time.monotonic()
            await pool.close()
            assert time.monotonic() - begun < 2
            await asyncio.wait([call])
            assert pool.stats().in_flight == 0


@in_loop
async def test_a_server_killed_while_leased_fails_its_calls_only() -> None:
    """Calls in flight end UNAVAILABLE, and nothing stays in flight."""
    with Server() as server:
        async with pool_over(server.aio_channel, max_size=1, max_streams=5) as pool:
            async with pool.acquire(streams=3) as lease:
                calls = [asyncio.create_task(unary(lease, SLOW, b"10000")) for _ in range(3)]
                await asyncio.sleep(0.2)
                server.kill()
                for call in calls:
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await call
                    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert pool.stats().in_flight == 0


# --- nothing is left ------------------------------------------------------------------------------------------------


@_each_loop
@in_loop
async def test_after_close_there_is_no_connection_and_no_task(server: Server) -> None:
    """With calls in flight, with a lease, and with connections being opened: when `close()` returns nothing goes on."""
    pool = ChannelPool(server.aio_channel, PoolConfig(min_size=2, max_size=4))
    await pool.open()
    leases: list[Lease] = [await pool.acquire() for _ in range(3)]
    calls = [asyncio.create_task(unary(it, SLOW, b"5000")) for it in (pool, *leases)]
    await asyncio.sleep(0.05)
    pool.refresh()
    await pool.close()
    assert not tasks_of_pools()
    await asyncio.wait(calls)
    for lease in leases:
        lease.release()
    assert pool.stats().in_flight == 0
    calls.clear()
    await _until_connections(server.port, 0)


@in_loop
async def test_fifty_pools_leave_no_descriptor(server: Server) -> None:
    """As many descriptors are open after fifty pools as after five."""
    process = psutil.Process()

    async def use_pools(number: int) -> None:
        for _ in range(number):
            async with pool_over(server.aio_channel, min_size=2, max_size=2) as pool:
                await pool.open()
                assert await _works(pool)

    await use_pools(5)
    await _until_connections(server.port, 0)
    gc.collect()
    before = process.num_fds()
    await use_pools(50)
    gc.collect()
    await until(lambda: process.num_fds() <= before, timeout=5)


@in_loop
async def test_a_dropped_pool_leaves_no_connection(server: Server) -> None:
    """The connections of a dropped pool are closed once it is collected."""
    pools = [ChannelPool(server.aio_channel, PoolConfig(min_size=3))]
    await pools[0].open()
    assert connections_to(server.port) == 3
    pools.clear()
    gc.collect()
    await _until_connections(server.port, 0)
    assert not tasks_of_pools()
