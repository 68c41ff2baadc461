"""Unit tests of your own code with `grpcpool.testing`: no server, no network, no waiting.

pytest examples/test_greeter.py
"""

from __future__ import annotations

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

import grpcpool
from grpcpool.testing import FakeChannel, FakeFactory, error, manual_clock

CHECK = "/grpc.health.v1.Health/Check"


class Greeter:
    """The code under test: greets if the shop is open."""

    def __init__(self, channel: grpc.Channel) -> None:
        """Calls over `channel`, which may be a pool."""
        self._health = HealthStub(channel)

    def greet(self) -> str:
        """Returns a greeting; an apology if the shop is unreachable."""
        try:
            answer = self._health.Check(HealthCheckRequest(service="orders"), timeout=1)
        except grpc.RpcError:
            return "Please come back later."
        return "Welcome!" if answer.status == HealthCheckResponse.SERVING else "We are closed."


def answer(status: HealthCheckResponse.ServingStatus) -> FakeFactory:
    """Returns a factory of channels whose server answers with `status`. Fakes use bytes, as servers do."""
    response = HealthCheckResponse(status=status).SerializeToString()
    return FakeFactory(lambda: FakeChannel({CHECK: lambda request: response}))


def test_an_open_shop_welcomes() -> None:
    """The answer of the fake server reaches the code under test."""
    with grpcpool.ChannelPool(answer(HealthCheckResponse.SERVING)) as pool:
        assert Greeter(pool).greet() == "Welcome!"
        assert pool.stats().acquired == 1


def test_an_unreachable_shop_apologises() -> None:
    """A handler may fail the call as a server would."""

    def fail(request: bytes) -> bytes:
        raise error(grpc.StatusCode.UNAVAILABLE, "the server is unreachable")

    with grpcpool.ChannelPool(FakeFactory(lambda: FakeChannel({CHECK: fail}))) as pool:
        assert Greeter(pool).greet() == "Please come back later."


def test_idle_connections_close() -> None:
    """An idle connection closes when the clock passes `idle_timeout`."""
    factory = answer(HealthCheckResponse.SERVING)
    with manual_clock() as clock:
        config = grpcpool.PoolConfig(min_size=0, idle_timeout=600)
        with grpcpool.ChannelPool(factory, config) as pool:
            Greeter(pool).greet()
            assert pool.stats().size == 1
            clock.advance(600)
            assert pool.stats().size == 0


@pytest.mark.parametrize("status", [HealthCheckResponse.NOT_SERVING, HealthCheckResponse.UNKNOWN])
def test_a_closed_shop_says_so(status: HealthCheckResponse.ServingStatus) -> None:
    """With any other status, the shop is closed."""
    with grpcpool.ChannelPool(answer(status)) as pool:
        assert Greeter(pool).greet() == "We are closed."
