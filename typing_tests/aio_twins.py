"""The asyncio twins are channels of `grpc.aio`."""

from __future__ import annotations

from typing import assert_type

import grpc
import grpc.aio

import grpcpool
import grpcpool.aio


class OrdersStub:
    """Takes its channel as generated code does."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Over `channel`."""
        self.channel = channel


async def drop_in(interceptor: grpc.aio.ClientInterceptor) -> None:
    """Uses a pool in place of a channel by changing one line."""
    channel: grpc.aio.Channel = grpcpool.aio.insecure_channel("orders:50051", interceptors=[interceptor])
    OrdersStub(channel)
    await channel.channel_ready()
    await channel.close()


def make() -> grpc.aio.Channel:
    """A factory."""
    return grpc.aio.insecure_channel("orders:50051", grpcpool.isolated())


class OwnChannel(grpc.aio.Channel):
    """A subclass."""


def own() -> OwnChannel:
    """A factory of a subclass."""
    raise NotImplementedError


async def make_later() -> grpc.aio.Channel:
    """A coroutine function, which is not a factory."""
    return make()


def factories() -> None:
    """Creates pools over functions that return channels of any kind; other functions must be rejected."""
    grpcpool.aio.ChannelPool(own)
    grpcpool.aio.ChannelPool(lambda: 5)  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]
    grpcpool.aio.ChannelPool(make_later)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    grpcpool.aio.ChannelPool(lambda: grpc.insecure_channel("orders:50051"))  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]


async def prime(channel: grpc.aio.Channel) -> None:
    """Primes a channel."""
    await channel.channel_ready()


async def lease() -> None:
    """Uses a lease in an `async with` block, and awaited."""
    async with grpcpool.aio.ChannelPool(make, grpcpool.PoolConfig(prime=prime)) as pool:
        assert_type(pool, grpcpool.aio.ChannelPool)
        await pool.open(timeout=5)
        async with pool.acquire(timeout=1.0) as lease:
            assert_type(lease, grpcpool.aio.Lease)
            OrdersStub(lease)
        kept = await pool.acquire(streams=4)
        assert_type(kept, grpcpool.aio.Lease)
        kept.release()
        assert_type(pool.stats(), grpcpool.PoolStats)
        await pool.close(grace=2.5)
