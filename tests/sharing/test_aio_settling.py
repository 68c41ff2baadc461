"""Handles for asyncio that are created where no loop runs, as in the threads in which many engines receive them."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

import grpcpool.aio
from grpcpool import PoolConfig, WrongEventLoopError
from support.connections import assert_no_connections, connections_to
from support.servers import ECHO, Server

CONFIG = PoolConfig(max_size=1)


class Nothing(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc, type-arg, unused-ignore]
    """An interceptor that only goes on."""

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """Goes on."""
        return await continuation(details, request)


NOTHING = Nothing()


@pytest.fixture
def server() -> Iterator[Server]:
    """A server; nothing is connected to it in the end."""
    with Server() as server:
        yield server
        assert_no_connections(server.port)


def pool(server: Server, *interceptors: Any) -> grpcpool.aio.ChannelPool:
    """A pool, which is not used itself."""
    return grpcpool.aio.insecure_channel(server.target, interceptors=interceptors, config=CONFIG)


def received_from(sent: bytes) -> Any:
    """What another process would receive."""
    return pickle.loads(sent)


@pytest.mark.parametrize("interceptors", [(), (NOTHING,)])
def test_one_pool_a_loop(server: Server, interceptors: tuple[Any, ...]) -> None:
    """Methods that are received one after the other in other threads share the pool of the loop that uses them."""
    sent = pickle.dumps(pool(server, *interceptors).unary_unary(ECHO))

    async def main() -> None:
        kept = []
        for _ in range(4):
            call: Any = await asyncio.to_thread(received_from, sent)
            assert await call(b"x") == b"x"
            kept.append(call)
        assert connections_to(server.port) == 1

    asyncio.run(main())


def test_acquire_and_open(server: Server) -> None:
    """So do handles that are first used to acquire a lease, to open the pool, or to ask for its state."""
    sent = pickle.dumps(pool(server))

    async def main() -> None:
        used: Any = await asyncio.to_thread(received_from, sent)
        await used.open()
        leased, opened, asked = [await asyncio.to_thread(received_from, sent) for _ in range(3)]
        async with leased.acquire(streams=1) as lease:
            assert await lease.unary_unary(ECHO)(b"x") == b"x"
        await opened.open()
        assert asked.get_state() is grpc.ChannelConnectivity.READY
        await asked.channel_ready()
        assert connections_to(server.port) == 1
        assert {each.stats().opened for each in (used, leased, opened, asked)} == {1}

    asyncio.run(main())


def test_several_loops(server: Server) -> None:
    """Handles that are received before any of them is used work each in a loop of its own, and in no other."""
    sent = pickle.dumps(pool(server))
    received = [received_from(sent) for _ in range(3)]

    async def main(handle: Any) -> None:
        assert await handle.unary_unary(ECHO)(b"x") == b"x"
        with pytest.raises(WrongEventLoopError):
            await asyncio.to_thread(asyncio.run, use_elsewhere(handle))
        await handle.close()

    async def use_elsewhere(handle: Any) -> None:
        await handle.unary_unary(ECHO)(b"x")

    for handle in received:
        asyncio.run(main(handle))


def test_closed_before_its_use(server: Server) -> None:
    """A handle that is closed before its first use stays closed, and others go on."""
    sent = pickle.dumps(pool(server))
    closed, other = received_from(sent), received_from(sent)

    async def main() -> None:
        await closed.close()
        with pytest.raises(grpc.aio.UsageError):
            await closed.unary_unary(ECHO)(b"x")
        assert await other.unary_unary(ECHO)(b"x") == b"x"
        await other.close()

    asyncio.run(main())


def test_dropped_after_its_loop(server: Server) -> None:
    """Handles that outlive their loop leave nothing when they are collected."""
    handle = received_from(pickle.dumps(pool(server)))

    async def main() -> None:
        assert await handle.unary_unary(ECHO)(b"x") == b"x"

    asyncio.run(main())
    assert connections_to(server.port) == 1
