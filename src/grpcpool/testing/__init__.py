"""For your own tests: fake channels without gRPC, and a manual clock.

::

    factory = FakeFactory(lambda: FakeChannel({"/shop.Orders/Get": lambda request: b"an order"}))
    with manual_clock() as clock:
        pool = grpcpool.ChannelPool(factory, PoolConfig(idle_timeout=600))
    ...
    clock.advance(600)      # idle connections have left the pool when this returns

A `FakeChannel` is a complete `grpc.Channel`. By default it answers each call with the request. The test can set
handlers, set the connectivity state, and decide when calls end. Metadata, credentials and compression are accepted and
ignored. Calls end at their deadlines, which use the real clock.

A handler that returns one response runs on the thread of the caller, before the call returns: a handler that waits
holds up its caller, also beyond the deadline. A handler that returns a stream runs on a thread of its own, with the
context variables of its caller, a few responses ahead of the reader. Its call ends when the last response has been read
and the handler has returned: a test that looks at what has ended reads to the end, as ``list(call)`` does. The done
callbacks of the call run before the reader goes on, and must not wait for it.

If a handler raises an error with a status code, the call ends with it; other errors are `UNKNOWN`, as on a server. An
error that is not an `Exception`, such as that of `pytest.fail`, is raised where the call is read.

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
    FakeChannel,
    FakeFactory,
    FakeStreamStream,
    FakeStreamUnary,
    FakeUnaryStream,
    FakeUnaryUnary,
    error,
)
from ._sync_call import FakeCall

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
