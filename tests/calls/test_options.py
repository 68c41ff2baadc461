"""What the two channel constructors do with a target, options, credentials and compression."""

from __future__ import annotations

import json
import os
import threading
from typing import Any

import grpc
import pytest
from grpc.experimental import ChannelOptions

import grpcpool
from grpcpool import PoolConfig, isolated
from grpcpool._grpc.options import shared_out, with_attempts_within
from support.call_server import CERTIFICATE, UU, CallServer
from support.connections import addresses_of_connections_to, connections_to
from support.pools import PoolMaker, assert_at_rest
from support.servers import unary
from support.waiting import LONG, eventually, together
from support.ways import WAYS, Way

pytestmark = pytest.mark.timeout(60)

SHUFFLED = [{"pick_first": {"shuffleAddressList": True}}]


# --- isolated -------------------------------------------------------------------------------------------------------


def test_isolated_is_unique() -> None:
    """No two calls return the same options, from however many threads."""
    made = together(20, lambda _: [isolated() for _ in range(50)])
    assert len({options for some in made for options in some}) == 1000


def test_isolated_tells_processes_apart() -> None:
    """The added option contains the process id, so that a forked child gets its own connections."""
    ((name, value),) = isolated()
    assert not name.startswith("grpc.")
    assert str(os.getpid()) in value.split("-")


def test_isolated_keeps_options() -> None:
    """The user's options come first, in their order, from any iterable."""
    options = [("grpc.a", 1), ("grpc.b", "two")]
    for given in (options, tuple(options), iter(options)):
        assert isolated(given)[:-1] == tuple(options)


def test_isolated_again_separates_again(calls: CallServer, make_pool: PoolMaker) -> None:
    """Options isolated before, such as those given to a whole pool, still give each channel its own connection."""
    options = isolated([("grpc.a", 1)])
    assert isolated(options)[:-1] == (("grpc.a", 1),)
    for pool in (
        make_pool(lambda: grpc.insecure_channel(calls.target, isolated(options)), min_size=3),
        grpcpool.insecure_channel(calls.target, options, config=PoolConfig(min_size=3)),
    ):
        with pool:
            pool.open()
            eventually(lambda: connections_to(calls.port) == 3)


def test_isolated_separates_connections(calls: CallServer) -> None:
    """Channels with equal arguments share a connection; with `isolated()` each has its own."""
    for make, expected in ((tuple, 1), (isolated, 3)):
        channels = [grpc.insecure_channel(calls.target, make([("grpc.a", 1)])) for _ in range(3)]
        assert len({unary(channel, UU, b"peer") for channel in channels}) == expected
        for channel in channels:
            channel.close()


# --- several addresses ----------------------------------------------------------------------------------------------


def _service_config(options: Any) -> Any:
    (value,) = (value for name, value in shared_out(options) if name == "grpc.service_config")
    return json.loads(value)


@pytest.mark.parametrize("options", [None, [], ()])
def test_without_options_addresses_are_shuffled(options: Any) -> None:
    """The service config is the pool's, and nothing else is set."""
    assert _service_config(options) == {"loadBalancingConfig": SHUFFLED}
    assert len(shared_out(options)) == 1


def test_shuffling_is_merged_into_a_service_config() -> None:
    """There is one service config, with the user's settings and the pool's policy; other options are kept."""
    own = {"methodConfig": [{"name": [{}], "waitForReady": True}]}
    options = [("grpc.a", 1), ("grpc.service_config", json.dumps(own)), ("grpc.b", 2)]
    assert _service_config(options) == {**own, "loadBalancingConfig": SHUFFLED}
    assert {("grpc.a", 1), ("grpc.b", 2)} <= set(shared_out(options))


def test_of_several_service_configs_the_first_counts(calls: CallServer) -> None:
    """Only the first of several service configs is used, as in gRPC."""
    options = [("grpc.service_config", text) for text in ('{"methodConfig": []}', '{"loadBalancingConfig": "wrong"}')]
    assert _service_config(options) == {"methodConfig": [], "loadBalancingConfig": SHUFFLED}
    for given in (isolated(options), isolated(shared_out(options))):
        with grpc.insecure_channel(calls.target, given) as channel:
            assert WAYS[0].finish(WAYS[0].begin(channel)) == b"0"


@pytest.mark.parametrize(
    "options",
    [
        [("grpc.lb_policy_name", "round_robin")],
        [("grpc.lb_policy_name", "round_robin"), ("grpc.service_config", "{}")],
    ],
)
def test_a_policy_by_name_is_the_users(options: list[tuple[str, Any]]) -> None:
    """With `grpc.lb_policy_name` the options are left as they are."""
    assert shared_out(options) == tuple(options)


@pytest.mark.parametrize(
    "config", [{"loadBalancingConfig": [{"round_robin": {}}]}, {"loadBalancingPolicy": "round_robin"}]
)
def test_a_policy_in_the_service_config_is_the_users(config: dict[str, Any]) -> None:
    """A service config that names a policy keeps its meaning."""
    assert _service_config([("grpc.service_config", json.dumps(config))]) == config


@pytest.mark.parametrize("text", ["{", "", "[]", "3", "null"])
def test_an_invalid_service_config_is_passed_on(text: str) -> None:
    """An invalid service config is passed on unchanged; gRPC treats it as it does without the pool."""
    options = (("grpc.a", 1), ("grpc.service_config", text))
    assert shared_out(options) == options


def test_connections_reach_all_addresses() -> None:
    """Twenty connections to a target with two addresses go to both; with the user's own `pick_first`, to the first."""
    own = [("grpc.service_config", json.dumps({"loadBalancingConfig": [{"pick_first": {}}]}))]
    with CallServer() as one, CallServer() as other:
        target = f"ipv4:{one.target},{other.target}"
        for options in (None, own):
            with grpcpool.insecure_channel(target, options, config=PoolConfig(min_size=20, max_size=20)) as pool:
                pool.open()
                counts = [connections_to(server.port) for server in (one, other)]
                assert sum(counts) == 20
                assert min(counts) == 0 if options else min(counts) >= 1
            eventually(lambda: not connections_to(one.port) and not connections_to(other.port))


def test_one_of_two_addresses_is_enough() -> None:
    """If one of two addresses is dead, every connection goes to the other, and no call fails."""
    with CallServer() as one, CallServer() as other:
        one.kill()
        with grpcpool.insecure_channel(f"ipv4:{one.target},{other.target}", config=PoolConfig(min_size=5)) as pool:
            pool.open()
            assert connections_to(other.port) == 5
            assert [WAYS[0].begin(pool) for _ in range(20)] == [b"0"] * 20


# --- the constructors -----------------------------------------------------------------------------------------------


def test_the_name_is_the_target_unless_given(calls: CallServer) -> None:
    """A pool is named after its target, or by `name`, also by an empty one."""
    assert grpcpool.insecure_channel(calls.target).name == calls.target
    assert grpcpool.insecure_channel(calls.target, name="orders").name == "orders"
    assert grpcpool.insecure_channel(calls.target, name="").name == ""


def test_options_reach_the_connections(calls: CallServer) -> None:
    """A channel option, here the limit on received messages, applies to the pool's calls."""
    with grpcpool.insecure_channel(calls.target, [("grpc.max_receive_message_length", 10)]) as pool:
        assert unary(pool, UU, b"a" * 10)
        with pytest.raises(grpc.RpcError) as caught:
            unary(pool, UU, b"a" * 11)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert caught.value.__cause__ is None


def test_compression_passes() -> None:
    """On a server that refuses gzip, calls fail if and only if the pool or the call asks for gzip."""
    gzip = grpc.Compression.Gzip
    # A small message would not be compressed.
    request = b"a" * 10_000
    with CallServer("--no-gzip") as server:
        with grpcpool.insecure_channel(server.target) as pool:
            assert unary(pool, UU, request) == request
            with pytest.raises(grpc.RpcError, match="gzip"):
                unary(pool, UU, request, compression=gzip)
        with grpcpool.insecure_channel(server.target, None, gzip) as pool, pytest.raises(grpc.RpcError, match="gzip"):
            unary(pool, UU, request)


# --- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def credentials() -> grpc.ChannelCredentials:
    """Trusts the tests' own certificate."""
    return grpc.ssl_channel_credentials(CERTIFICATE.with_suffix(".crt").read_bytes())


def test_tls(credentials: grpc.ChannelCredentials) -> None:
    """All ways of calling work over TLS, with one credentials object and with a callable asked for each connection."""
    asked = []
    guard = threading.Lock()

    def make() -> grpc.ChannelCredentials:
        with guard:
            asked.append(credentials)
        return credentials

    with CallServer(f"--certificate={CERTIFICATE}") as server:
        for given in (credentials, make):
            config = PoolConfig(min_size=3, max_size=3)
            with grpcpool.secure_channel(server.target, given, [("grpc.a", 1)], config=config) as pool:
                pool.open()
                assert len(addresses_of_connections_to(server.port)) == 3
                for way in WAYS:
                    assert way.finish(way.begin(pool))
                assert unary(pool, UU, b"serial") == b"ssl"
                assert_at_rest(pool)
                assert pool.name == server.target
    assert len(asked) == 3


def test_tls_with_an_untrusted_certificate() -> None:
    """Calls fail `UNAVAILABLE` with gRPC's words about the handshake."""
    with (
        CallServer(f"--certificate={CERTIFICATE}") as server,
        grpcpool.secure_channel(server.target, grpc.ssl_channel_credentials()) as pool,
    ):
        with pytest.raises(grpc.RpcError) as caught:
            unary(pool, UU, b"ok", timeout=LONG)
        error: Any = caught.value
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert "CERTIFICATE_VERIFY_FAILED" in error.details()


def test_a_callable_that_raises(credentials: grpc.ChannelCredentials) -> None:
    """If the credentials callable raises, calls fail `UNAVAILABLE` with its text."""

    def fail() -> grpc.ChannelCredentials:
        raise PermissionError("no credentials, as the test wants")

    with grpcpool.secure_channel("127.0.0.1:1", fail) as pool, pytest.raises(grpc.RpcError) as caught:
        unary(pool, UU, b"ok")
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert "no credentials, as the test wants" in error.details()


def test_attempts_to_connect_are_bounded() -> None:
    """By `connect_timeout`, unless gRPC's own bound is lower, or the user's options have one."""
    name = "grpc.min_reconnect_backoff_ms"
    assert with_attempts_within([("grpc.a", 1)], 2.5) == (("grpc.a", 1), (name, 2500))
    assert with_attempts_within([(name, 7)], 2.5) == ((name, 7),)
    assert with_attempts_within((), 20.0) == ()


def test_call_credentials_pass(credentials: grpc.ChannelCredentials) -> None:
    """Credentials given with a call reach the server."""
    token = grpc.access_token_call_credentials("secret")
    with CallServer(f"--certificate={CERTIFICATE}") as server:
        local = f"localhost:{server.port}"
        with grpcpool.secure_channel(local, credentials, [("grpc.default_authority", "localhost")]) as pool:
            for way in WAYS:
                answer = way.finish(way.begin(pool, "metadata", credentials=token))
                text = answer if isinstance(answer, bytes) else answer[0]
                assert b"Bearer secret" in text


# --- what gRPC does not take ----------------------------------------------------------------------------------------


def _raised_by(create: Any, *arguments: Any) -> tuple[type, str]:
    with pytest.raises((TypeError, ValueError, OverflowError)) as caught:
        create("127.0.0.1:1", *arguments)
    return caught.type, str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ([("a", None)],),
        ([(1, 2)],),
        ([("a", [1])],),
        ([("a", object)],),
        ([("a", float("nan"))],),
        ([("a", "\ud800")],),
        ([("\ud800", 1)],),
        ([("a", 2**31)],),
        ([("a", -(2**31) - 1)],),
        (None, "gzip"),
        (None, object),
        (None, 2**31),
    ],
    ids=repr,
)
def test_what_grpc_does_not_take(arguments: tuple[Any, ...]) -> None:
    """Options and a compression that no channel can be created with are refused at once, with gRPC's error."""
    of_grpc = _raised_by(grpc.insecure_channel, *arguments)
    for create in (grpcpool.insecure_channel, grpcpool.aio.insecure_channel, grpcpool.shared_channel):
        # The third takes credentials before the options.
        between = (None,) if create is grpcpool.shared_channel else ()
        assert _raised_by(create, *between, *arguments) == of_grpc


def test_what_grpc_takes(calls: CallServer) -> None:
    """Whatever a channel can be created with is an option of a pool."""
    options: Any = [("a", 1.5), ("b", True), (b"c", b"d"), (None, ""), ("e", 2**31 - 1), ("f", -(2**31))]
    # gRPC never looks at its value.
    options.append((ChannelOptions.SingleThreadedUnaryStream, None))
    for create in (grpc.insecure_channel, grpcpool.insecure_channel):
        compression: Any = 9
        with create(calls.target, options, compression) as channel:
            assert unary(channel, UU, b"ok") == b"0"


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"compression": "gzip"}, KeyError),
        ({"compression": 9}, KeyError),
        ({"compression": [1]}, TypeError),
        ({"credentials": "token"}, AttributeError),
        ({"credentials": grpc.local_channel_credentials()}, TypeError),
    ],
    ids=["text", "number", "list", "text-credentials", "channel-credentials"],
)
def test_arguments_of_a_call_that_waits(
    calls: CallServer, make_pool: PoolMaker, way: Way, wrong: dict[str, Any], error: type[Exception]
) -> None:
    """What gRPC refuses when a call is begun is refused then, also where there is no place for the call yet."""
    pool = make_pool(calls.channel, max_size=1, max_streams=1)
    with calls.channel() as plain, pool.acquire(timeout=LONG):
        for channel in (plain, pool):
            with pytest.raises(error):
                way.begin(channel, timeout=LONG, **wrong)
        assert pool.stats().waiting == 0
    assert_at_rest(pool)
