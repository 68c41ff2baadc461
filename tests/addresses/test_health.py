"""`health_service`: gRPC watches the health of the servers, with the real health service."""

from __future__ import annotations

import grpc
import pytest

import grpcpool
from grpcpool import PoolConfig
from grpcpool.testing import FakeFactory
from resilience.worlds import Subject, World
from support.call_server import UU, CallServer
from support.pools import Recorder
from support.servers import Server
from support.waiting import eventually

pytestmark = pytest.mark.timeout(60)


def lost(subject: Subject) -> list[str | None]:
    """The addresses of the connections that are lost."""
    return [channel.address for channel in subject.stats().channels if channel.state == "lost"]


def test_a_server_that_is_not_healthy_gets_no_calls(world: World) -> None:
    """It is out after one call at most, and back within a second; calls go to the others, and none fails."""
    with CallServer("--services") as one, CallServer("--services") as other:
        target = f"ipv4:{one.target},{other.target}"
        with world.pool(target, health_service="") as subject:
            subject.open()
            eventually(lambda: subject.stats().ready == 2)
            one.say("NOT_SERVING")
            eventually(lambda: lost(subject) == [one.target], 1.0)
            one.tell("most")
            with subject.load(8, UU, b"work:5") as load:
                load.wait_for_calls(40)
                one.say("SERVING")
                eventually(lambda: subject.stats().ready == 2, 1.0)
                load.wait_for_calls(80)
            load.assert_none_failed()
            assert one.tell("most")
            assert subject.stats().losses == 1


def test_a_server_that_becomes_healthy_later_is_used_then(world: World) -> None:
    """A new server that is not ready yet gets no calls before it says so; its connection is not dialled again."""
    recorder = Recorder()
    with CallServer("--services") as one, CallServer("--services") as late:
        late.say("NOT_SERVING")
        target = f"ipv4:{one.target},{late.target}"
        with world.pool(target, health_service="", how={"listeners": [recorder]}) as subject:
            with subject.load(4, UU, b"work:5") as load:
                eventually(lambda: lost(subject) == [late.target])
                load.wait_for_calls(40)
                late.say("SERVING")
                eventually(lambda: subject.stats().ready == 2, 1.0)
            load.assert_none_failed()
            assert subject.stats().size == 2


def test_a_server_without_the_service_is_healthy(world: World, server: Server) -> None:
    """UNIMPLEMENTED counts as healthy."""
    with world.pool(server.target, health_service="orders") as subject:
        subject.open()
        assert subject.stats().ready == 1


def test_of_one_service(world: World) -> None:
    """The health of the named service counts, not that of the server as a whole."""
    with CallServer("--services") as one, world.pool(one.target, health_service="orders") as subject:
        one.say("NOT_SERVING")
        subject.open()
        assert subject.stats().ready == 1


@pytest.mark.parametrize("target", ["unix:/run/orders", "xds:///orders", "dns://127.0.0.1/orders:1"])
def test_it_needs_addresses(target: str) -> None:
    """Where gRPC decides where connections lead, the setting is refused at once."""
    config = PoolConfig(health_service="")
    with pytest.raises(ValueError, match=r"PoolConfig.health_service = '': needs a target whose addresses"):
        grpcpool.insecure_channel(target, config=config)
    with pytest.raises(ValueError, match="health_service"):
        grpcpool.aio.insecure_channel(target, config=config)
    with pytest.raises(ValueError, match="health_service"):
        grpcpool.secure_channel(target, grpc.ssl_channel_credentials(), config=config)


def test_a_factory_has_no_addresses() -> None:
    """Nor has a pool with a factory of its own."""
    with pytest.raises(ValueError, match="health_service"):
        grpcpool.ChannelPool(FakeFactory(), PoolConfig(health_service=""))
