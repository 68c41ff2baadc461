"""For your own tests: fake channels without gRPC, and a manual clock.

::

    factory = FakeFactory(lambda: FakeChannel({"/shop.Orders/Get": lambda request: b"an order"}))
    with manual_clock() as clock:
        pool = grpcpool.ChannelPool(factory, PoolConfig(idle_timeout=600))
    ...
    clock.advance(600)      # idle connections have left the pool when this returns

A `FakeChannel` is a complete `grpc.Channel`. By default it answers each call with the request. The test can set
handlers, set the connectivity state, and decide when calls end. Metadata, credentials and compression are accepted and
ignored; only blocking calls have a deadline.

The asyncio twins are in `grpcpool.testing.aio`, under the same names; the clock works for both::

    factory = aio.FakeFactory(lambda: aio.FakeChannel(holds_calls=True))
    with manual_clock() as clock:
        pool = grpcpool.aio.ChannelPool(factory)
    call = OrdersStub(pool).Get(request)
    ...
    factory.made[0].calls[0].fail(grpc.StatusCode.UNAVAILABLE)
"""

from __future__ import annotations

from . import aio
from ._clock import ManualClock, manual_clock
from ._shared import Codec, Handler
from ._sync import (
    FakeCall,
    FakeChannel,
    FakeFactory,
    FakeStreamStream,
    FakeStreamUnary,
    FakeUnaryStream,
    FakeUnaryUnary,
    error,
)

__all__ = [
    "Codec",
    "FakeCall",
    "FakeChannel",
    "FakeFactory",
    "FakeStreamStream",
    "FakeStreamUnary",
    "FakeUnaryStream",
    "FakeUnaryUnary",
    "Handler",
    "ManualClock",
    "aio",
    "error",
    "manual_clock",
]
