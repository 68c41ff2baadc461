"""What a pool reports about where it leads: its target, and the address of each connection."""

from __future__ import annotations

import grpc
import pytest

import grpcpool
import grpcpool.aio
from grpcpool import PoolConfig, isolated
from grpcpool._shared.destination import destination_of
from grpcpool._shared.targets import TargetFactory, recipe_of
from support.loops import in_loop
from support.pools import PoolMaker
from support.servers import Server

pytestmark = pytest.mark.timeout(30)


@pytest.mark.parametrize(
    ("target", "addresses"),
    [
        ("127.0.0.1:50051", ["127.0.0.1:50051"]),
        ("ipv4:1.2.3.4:5", ["1.2.3.4:5"]),
        ("ipv4:///1.2.3.4:5", ["1.2.3.4:5"]),
        ("dns:///10.0.0.7:443", ["10.0.0.7:443"]),
        ("[::1]:50051", ["[::1]:50051"]),
        ("ipv6:[2001:DB8:0::7]:443", ["[2001:db8::7]:443"]),
        ("ipv4:1.2.3.4:5,1.2.3.5:5", ["1.2.3.4:5", "1.2.3.5:5"]),
        ("ipv6:[::1]:5,[::2]:6", ["[::1]:5", "[::2]:6"]),
    ],
)
def test_literal_addresses_need_no_look_up(target: str, addresses: list[str]) -> None:
    """IP addresses with a port are known."""
    destination = destination_of(target, (), None, spread=True)
    assert (list(destination.addressing.addresses), destination.addressing.looked_up) == (addresses, False)
    assert not destination.is_left_to_grpc


@pytest.mark.parametrize(
    ("targets", "address", "leads_to"),
    [
        (["10.0.0.7:5"], "10.0.0.7:5", "10.0.0.7:5"),
        (["ipv4:10.0.0.7:5"], "10.0.0.7:5", "ipv4:10.0.0.7:5"),
        (["orders:5"], "10.0.0.7:5", "ipv4:10.0.0.7:5"),
        (["orders:5"], None, "orders:5"),
        (["10.0.0.7:5", "10.0.0.8:5"], "10.0.0.7:5", "10.0.0.7:5"),
        (["10.0.0.7:5", "10.0.0.8:5"], None, "10.0.0.7:5"),
    ],
)
def test_health_is_watched_on_every_channel(targets: list[str], address: str | None, leads_to: str) -> None:
    """Also if the target is the address itself, and where the address is not known yet."""
    created: list[tuple[str, dict[str, object]]] = []
    factory = TargetFactory(
        recipe_of(targets, None, None, None, config=PoolConfig(health_service="shop"), name=None),
        lambda target, options: created.append((target, dict(options))),
    )
    factory(address)
    [(target, options)] = created
    assert target == leads_to
    assert '"healthCheckConfig": {"serviceName": "shop"}' in str(options["grpc.service_config"])


@pytest.mark.parametrize(
    ("target", "host", "port"),
    [
        ("orders:50051", "orders", "50051"),
        ("dns:orders:50051", "orders", "50051"),
        ("dns:///orders:50051", "orders", "50051"),
        ("DNS:///orders.shop.svc.cluster.local:50051", "orders.shop.svc.cluster.local", "50051"),
        ("orders:https", "orders", "https"),
        ("orders", "orders", "443"),
        ("10.0.0.7", "10.0.0.7", "443"),
        ("10.0.0:50051", "10.0.0", "50051"),
    ],
)
def test_names_are_looked_up(target: str, host: str, port: str) -> None:
    """A name is looked up, with gRPC's default port. The server's name stays that in the target."""
    destination = destination_of(target, (), None, spread=True)
    assert destination.addressing.looked_up
    assert destination.addressing.either_family
    assert (destination.host, destination.port) == (host, port)
    assert destination.authority == target.removeprefix("dns:///").removeprefix("DNS:///").removeprefix("dns:")


@pytest.mark.parametrize(
    "target",
    [
        "dns://10.0.0.7:53",
        "dns://10.0.0.1/10.0.0.7:53",
        "unix:/run/orders",
        "unix-abstract:orders",
        "vsock:1:2",
        "xds:///orders",
        "10.0.0.7:99999:1",
        "[orders]:5:6",
        "ipv4:1.2.3.4",
        "ipv4:1.2.3.4:5,orders:5",
        "a%20b:5",
        "",
    ],
)
def test_the_rest_is_left_to_grpc(target: str) -> None:
    """Other schemes, DNS servers of their own, and what gRPC refuses."""
    assert destination_of(target, (), None, spread=True).is_left_to_grpc


@pytest.mark.parametrize(
    "option",
    [
        ("grpc.lb_policy_name", "round_robin"),
        ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
        ("grpc.service_config", '{"loadBalancingPolicy": "ROUND_ROBIN"}'),
        ("grpc.service_config_disable_resolution", 0),
        ("grpc.http_proxy", "proxy:3128"),
    ],
)
def test_options_may_leave_it_to_grpc(option: tuple[str, object]) -> None:
    """A load-balancing policy of the user's own, a service config in the DNS, a proxy."""
    assert destination_of("orders:5", [option], None, spread=True).is_left_to_grpc


def test_spread_may_be_switched_off() -> None:
    """With `spread=False` only a single address is known."""
    assert destination_of("orders:5", (), None, spread=False).is_left_to_grpc
    assert destination_of("ipv4:1.2.3.4:5,1.2.3.5:5", (), None, spread=False).is_left_to_grpc
    assert destination_of("1.2.3.4:5", (), None, spread=False).addressing.addresses == ("1.2.3.4:5",)


@pytest.mark.parametrize(
    ("environment", "proxied"),
    [
        ({}, False),
        ({"http_proxy": "proxy:3128"}, True),
        ({"https_proxy": "proxy:3128"}, True),
        ({"grpc_proxy": "proxy:3128"}, True),
        ({"http_proxy": "proxy:3128", "no_proxy": "example.org, shop.svc"}, False),
        ({"http_proxy": "proxy:3128", "no_grpc_proxy": "other", "no_proxy": "shop.svc"}, True),
        ({"http_proxy": "proxy:3128", "no_proxy": ""}, True),
    ],
)
def test_a_proxy_looks_names_up_itself(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], *, proxied: bool
) -> None:
    """What gRPC connects to through a proxy is left to it."""
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert destination_of("orders.shop.svc:5", (), None, spread=True).is_left_to_grpc is proxied
    assert not destination_of("orders.shop.svc:5", [("grpc.enable_http_proxy", 0)], None, spread=True).is_left_to_grpc


def test_a_pool_knows_its_target_and_addresses(server: Server) -> None:
    """`target` is the text that the pool was created with, whatever its name; each connection has the address."""
    with grpcpool.insecure_channel(server.target, name="orders") as pool:
        pool.open()
        stats = pool.stats()
    assert pool.target == stats.target == server.target
    assert [channel.address for channel in stats.channels] == [server.target]


def test_a_name_is_looked_up(server: Server) -> None:
    """Each connection leads to an address of the name; that a family cannot be reached is not counted as a failure."""
    target = server.target.replace("127.0.0.1", "localhost")
    with grpcpool.insecure_channel(target) as pool:
        pool.open()
        stats = pool.stats()
    assert pool.target == target
    assert [channel.address for channel in stats.channels] == [server.target]
    assert stats.open_failures == 0


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
