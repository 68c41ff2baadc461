"""However a call with one request is made, its caller does not see that a server refused it.

The reference is gRPC's own channel to the same server while it refuses nothing.
"""

from __future__ import annotations

import grpc
import pytest

from grpcpool import ChannelPool, aio
from grpcpool.events import Avoided, RefusedStream
from grpcpool.testing import ManualClock
from refusals.conftest import PoolOpener
from refusals.uses import USES, Use
from support.pools import Recorder, assert_at_rest
from support.refusing_counts import Count
from support.refusing_server import RefusingServer
from support.waiting import background, eventually

pytestmark = pytest.mark.timeout(60)

STEP = 0.5
"""Seconds after which a limit that was lowered grows again."""


def assert_refused(pool: ChannelPool | aio.ChannelPool, recorder: Recorder, number: int) -> None:
    """Exactly `number` refusals were counted, and emitted as events."""
    assert pool.stats().refused_streams == number
    assert len(recorder.of(RefusedStream)) == number


@pytest.mark.parametrize("use", USES, ids=str)
def test_a_refused_call_goes_elsewhere(
    refusing: RefusingServer, plain: grpc.Channel, open_pool: PoolOpener, recorder: Recorder, use: Use
) -> None:
    """A call refused on one connection is made on another at once, once, and looks like any other."""
    pool = open_pool(single_threaded=use.single_threaded, min_size=2, max_size=2)
    expected = use.whole(plain)
    refusing.begin(next=1)
    assert use.whole(pool) == expected
    assert_at_rest(pool)
    assert_refused(pool, recorder, 1)
    told = refusing.report()
    assert told.handled == {use.command: 1}
    assert sorted((count.begun, count.refused) for count in told.counts.values()) == [(1, 0), (1, 1)]


@pytest.mark.parametrize("use", USES, ids=str)
def test_a_refused_call_waits_for_the_only_connection(
    refusing: RefusingServer,
    plain: grpc.Channel,
    open_pool: PoolOpener,
    recorder: Recorder,
    clock: ManualClock,
    use: Use,
) -> None:
    """A call refused on the only connection, which is in use, waits until its limit grows, as often as needed."""
    pool = open_pool(single_threaded=use.single_threaded, max_size=1)
    expected = use.whole(plain)
    with pool.acquire(streams=1):
        refusing.begin(next=3)
        outcome = background(lambda: use.whole(pool))
        for refused in (1, 2, 3):
            eventually(lambda: pool.stats().waiting == 1)
            assert_refused(pool, recorder, refused)
            assert [(channel.in_flight, channel.limit) for channel in pool.stats().channels] == [(1, 1)]
            assert not outcome.done()
            clock.advance(STEP)
        assert outcome.result(20) == expected
    assert recorder.of(Avoided) == []
    assert_at_rest(pool)
    assert_refused(pool, recorder, 3)
    told = refusing.report()
    assert told.handled == {use.command: 1}
    assert told.all == Count(begun=4, refused=3, completed=1, most=1)
