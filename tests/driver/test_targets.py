"""What a pool reports about where it leads: its target, and the address of each connection."""

from __future__ import annotations

import grpc
import pytest

import grpcpool
import grpcpool.aio
from grpcpool import isolated
from grpcpool._shared.targets import literal_address
from support.loops import in_loop
from support.pools import PoolMaker
from support.servers import Server

pytestmark = pytest.mark.timeout(30)


@pytest.mark.parametrize(
    ("target", "address"),
    [
        ("127.0.0.1:50051", "127.0.0.1:50051"),
        ("ipv4:1.2.3.4:5", "1.2.3.4:5"),
        ("ipv4:///1.2.3.4:5", "1.2.3.4:5"),
        ("dns:///10.0.0.7:443", "10.0.0.7:443"),
        ("[::1]:50051", "[::1]:50051"),
        ("ipv6:[2001:DB8:0::7]:443", "[2001:db8::7]:443"),
        ("ipv4:1.2.3.4:5,1.2.3.5:5", None),
        ("orders:50051", None),
        ("10.0.0.7", None),
        ("10.0.0:50051", None),
        ("10.0.0.7:99999", None),
        ("[10.0.0.7]:5", None),
        ("[orders]:5", None),
        ("dns://10.0.0.7:53", None),
        ("dns://10.0.0.1/10.0.0.7:53", None),
        ("unix:/run/orders", None),
        ("xds:///orders", None),
        ("", None),
        (None, None),
    ],
)
def test_a_literal_target_is_an_address(target: str | None, address: str | None) -> None:
    """The address is known if the target is one IP address with a port; of anything else only gRPC knows it."""
    assert literal_address(target) == address


def test_a_pool_knows_its_target_and_addresses(server: Server) -> None:
    """`target` is the text that the pool was created with, whatever its name; each connection has the address."""
    with grpcpool.insecure_channel(server.target, name="orders") as pool:
        pool.open()
        stats = pool.stats()
    assert pool.target == stats.target == server.target
    assert [channel.address for channel in stats.channels] == [server.target]


def test_of_a_name_the_address_is_not_known(server: Server) -> None:
    """A name may resolve to anything."""
    target = server.target.replace("127.0.0.1", "localhost")
    with grpcpool.insecure_channel(target) as pool:
        pool.open()
        assert pool.target == target
        assert [channel.address for channel in pool.stats().channels] == [None]


def test_a_factory_has_no_target(server: Server, make_pool: PoolMaker) -> None:
    """Where the channels of a factory of its own lead, a pool does not know."""
    pool = make_pool(server.channel)
    pool.open()
    stats = pool.stats()
    assert (pool.target, stats.target) == (None, None)
    assert [channel.address for channel in stats.channels] == [None]


def test_pools_over_tls_have_a_target() -> None:
    """`secure_channel` has it in both worlds; undocumented bytes are shown as text."""
    credentials = grpc.ssl_channel_credentials()
    with grpcpool.secure_channel(b"10.0.0.7:443", credentials) as pool:  # type: ignore[arg-type]
        assert pool.target == pool.stats().target == "10.0.0.7:443"
    assert grpcpool.aio.secure_channel("orders:443", credentials, name="o").target == "orders:443"


@in_loop
async def test_asyncio_pools_too(server: Server) -> None:
    """An asyncio pool reports the same."""
    async with grpcpool.aio.insecure_channel(server.target, name="orders") as pool:
        await pool.open()
        stats = pool.stats()
        assert pool.target == stats.target == server.target
        assert [channel.address for channel in stats.channels] == [server.target]

    def factory() -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(server.target, isolated())

    async with grpcpool.aio.ChannelPool(factory) as pool:
        assert (pool.target, pool.stats().target) == (None, None)
