"""For your own tests: channels without gRPC, and a clock that you turn by hand.

::

    factory = FakeFactory(lambda: FakeChannel({"/shop.Orders/Get": lambda request: b"an order"}))
    with manual_clock() as clock:
        pool = grpcpool.ChannelPool(factory, PoolConfig(idle_timeout=600))
    ...
    clock.advance(600)      # what was idle is closed when this returns

A `FakeChannel` is a whole `grpc.Channel`. It answers each call with its request until told otherwise, says what state
it is in when that is set, and lets calls end when the test wants them to. What it leaves out: metadata, credentials
and compression are accepted and ignored; a deadline is kept by calls that block, and by no others.

The asyncio twins are in `grpcpool.testing.aio`, under the same names; the clock serves both worlds::

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
