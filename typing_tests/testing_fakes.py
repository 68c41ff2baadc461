"""Users' own tests."""

from __future__ import annotations

from typing import assert_type

import grpc

import grpcpool
import grpcpool.aio
from grpcpool.testing import FakeChannel, FakeFactory, ManualClock, aio, error, manual_clock


def answer(request: bytes) -> bytes:
    """A handler."""
    if not request:
        raise error(grpc.StatusCode.NOT_FOUND)
    return request


def with_fakes() -> None:
    """Uses fakes and a manual clock."""
    factory = FakeFactory(lambda: FakeChannel({"/shop.Orders/Get": answer}), fails=1)
    with manual_clock() as clock, grpcpool.ChannelPool(factory) as pool:
        assert_type(clock, ManualClock)
        clock.advance(10)
        channel: grpc.Channel = factory.made[0]
        assert_type(factory.open, list[FakeChannel])
        factory.made[0].set_state(grpc.ChannelConnectivity.READY)
        channel.close()
        pool.close()


async def with_aio_fakes() -> None:
    """The same on asyncio."""
    factory = aio.FakeFactory(lambda: aio.FakeChannel(holds_calls=True))
    async with grpcpool.aio.ChannelPool(factory):
        channel: grpc.aio.Channel = factory.made[0]
        await channel.close()
