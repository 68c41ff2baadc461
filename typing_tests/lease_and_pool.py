"""A pool and a lease are channels: they are accepted wherever a `grpc.Channel` is."""

from __future__ import annotations

import datetime as dt
from typing import assert_type

import grpc
import grpc.aio

import grpcpool


class OrdersStub:
    """Takes its channel as generated code does."""

    def __init__(self, channel: grpc.Channel) -> None:
        """Over `channel`."""
        self.channel = channel


def drop_in(credentials: grpc.ChannelCredentials) -> None:
    """Uses a pool in place of a channel by changing one line."""
    channel: grpc.Channel = grpcpool.insecure_channel("orders:50051", [("grpc.max_send_message_length", -1)])
    OrdersStub(channel)
    grpcpool.secure_channel("orders:50051", credentials, None, grpc.Compression.Gzip)
    grpcpool.secure_channel("orders:50051", lambda: credentials, config=grpcpool.PoolConfig(max_size=4), name="orders")
    grpc.intercept_channel(grpcpool.insecure_channel("orders:50051"))


def make() -> grpc.Channel:
    """A factory."""
    return grpc.insecure_channel("orders:50051", grpcpool.isolated([("grpc.keepalive_time_ms", 300_000)]))


class OwnChannel(grpc.Channel):
    """A subclass."""


def own() -> OwnChannel:
    """A factory of a subclass."""
    raise NotImplementedError


def factories(interceptor: grpc.UnaryUnaryClientInterceptor) -> None:
    """Creates pools over functions that return channels of any kind; other functions must be rejected."""
    grpcpool.ChannelPool(own)
    grpcpool.ChannelPool(lambda: grpc.intercept_channel(make(), interceptor))
    grpcpool.ChannelPool(lambda: 5)  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]
    grpcpool.ChannelPool(make())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    grpcpool.ChannelPool(lambda: grpc.aio.insecure_channel("orders:50051"))  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]


def lease() -> None:
    """Uses a lease in a `with` block, and kept."""
    with grpcpool.ChannelPool(make, grpcpool.PoolConfig.classic(1, 5)) as pool:
        assert_type(pool, grpcpool.ChannelPool)
        pool.open(timeout=5)
        with pool.acquire(timeout=1.0) as lease:
            assert_type(lease, grpcpool.Lease)
            OrdersStub(lease)
            assert_type(lease.created_at, dt.datetime)
        kept = pool.acquire(timeout=None, streams=4)
        assert_type(kept.used_at, dt.datetime)
        kept.discard()
        kept.release()
        pool.resize(max_size=20)
        pool.refresh()
        pool.close(grace=2.5)


def look(pool: grpcpool.ChannelPool) -> dict[str, int]:
    """Reads figures."""
    stats = pool.stats()
    assert_type(stats, grpcpool.PoolStats)
    assert_type(stats.wait_seconds, float)
    assert_type(pool.closed, bool)
    assert_type(pool.name, str)
    assert_type(pool.config, grpcpool.PoolConfig)
    one = stats.channels[0]
    assert_type(one, grpcpool.ChannelStats)
    return {"idle": stats.closed["idle"], one.state: one.in_flight}
