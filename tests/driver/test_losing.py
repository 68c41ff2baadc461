"""Connections that go down, while calls use them and while they are unused."""

from __future__ import annotations

import grpc
import pytest

from grpcpool import PoolTimeoutError
from grpcpool.testing import ManualClock
from support.fakes import FakeChannel, FakeFactory, error
from support.pools import PoolMaker
from support.servers import FAIL

pytestmark = pytest.mark.timeout(60)


def test_the_loss_of_an_unused_connection_is_noticed(make_pool: PoolMaker, clock: ManualClock) -> None:
    """Ready connections are checked once a second; one that is down is out of service until it is up again."""
    factory = FakeFactory()
    pool = make_pool(factory, min_size=2)
    pool.open()
    factory.made[0].set_state(grpc.ChannelConnectivity.TRANSIENT_FAILURE)
    clock.advance(1.0)
    assert [str(channel.state) for channel in pool.stats().channels] == ["lost", "ready"]
    factory.made[0].set_state(grpc.ChannelConnectivity.READY)
    clock.advance(0.25)
    assert [str(channel.state) for channel in pool.stats().channels] == ["ready", "ready"]
    assert pool.stats().opened == 2


@pytest.mark.parametrize("details", ["Socket closed", "recvmsg:Connection reset by peer", "GOAWAY received"])
def test_a_failed_call_shows_the_loss(make_pool: PoolMaker, clock: ManualClock, details: str) -> None:
    """What gRPC says is believed at once, even if the channel's state does not show the loss yet."""

    def fail(_: bytes) -> bytes:
        raise error(grpc.StatusCode.UNAVAILABLE, details)

    pool = make_pool(FakeFactory(lambda: FakeChannel({FAIL: fail})), max_size=1)
    with pytest.raises(grpc.RpcError):
        pool.unary_unary(FAIL)(b"")
    with pytest.raises(PoolTimeoutError, match=details) as caught:
        pool.acquire(timeout=0)
    assert details in str(caught.value.__cause__)
    clock.advance(1.0)
    assert pool.stats().ready == 1


def test_when_all_are_down_they_still_count(make_pool: PoolMaker, clock: ManualClock) -> None:
    """Lost connections are left to gRPC's own reconnecting, not dialled again; errors meanwhile name the loss."""
    factory = FakeFactory()
    pool = make_pool(factory, min_size=2, max_size=2)
    pool.open()
    for channel in factory.made:
        channel.set_state(grpc.ChannelConnectivity.TRANSIENT_FAILURE)
    clock.advance(1.0)
    with pytest.raises(PoolTimeoutError, match=r"2 of 2 connections open \(2 of them down\)"):
        pool.acquire(timeout=0)
    assert factory.calls == 2
