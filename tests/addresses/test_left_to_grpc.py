"""Targets whose addresses are left to gRPC, TLS over dealt-out addresses, and forks."""

from __future__ import annotations

import os
import pathlib
import socket
import textwrap
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any, Self

import grpc
import pytest

from addresses.fleet import NAME, Servers, hosts, pid_of
from grpcpool._grpc.version import GRPC_RELEASE
from resilience.worlds import World, failure_of
from support.call_server import CERTIFICATE
from support.dns import DnsServer
from support.programs import run_python
from support.servers import ECHO, PID, Server
from support.waiting import eventually

pytestmark = pytest.mark.timeout(90)

ROUND_ROBIN = '{"loadBalancingConfig": [{"round_robin": {}}]}'


def test_without_spread_addresses_are_left_to_grpc(world: World, servers: Servers) -> None:
    """`spread=False`: the pool opens what it needs, and does not know where its connections lead."""
    with world.pool(servers.target(3), spread=False) as subject:
        pid_of(subject)
        assert sorted(servers.connections(3)) == [0, 0, 1]
        assert [channel.address for channel in subject.stats().channels] == [None]


def test_without_spread_names_are_left_to_grpc(world: World, dns: DnsServer) -> None:
    """`spread=False`: the pool looks nothing up; here gRPC's own resolver does not know the name."""
    dns.set(NAME, *hosts(2))
    with world.pool(f"{NAME}:1", spread=False) as subject:
        error = failure_of(subject.begin(PID, b""))
        assert isinstance(error, grpc.RpcError)
        words = "errors resolving" if GRPC_RELEASE >= (1, 80) else "DNS resolution failed"
        assert words in (error.details() or "")
        assert not dns.asked


def test_a_policy_of_the_users_own_decides(world: World, servers: Servers) -> None:
    """`round_robin` in the service config: each of the pool's channels connects to all addresses."""
    options = [("grpc.service_config", ROUND_ROBIN)]
    with world.pool(servers.target(3), options=options, min_size=2, max_size=2) as subject:
        subject.open()
        found = set()

        def answered_by_all() -> bool:
            found.add(pid_of(subject))
            return len(found) == 3

        eventually(answered_by_all)
        eventually(lambda: servers.connections(3) == [2, 2, 2])
        assert {channel.address for channel in subject.stats().channels} == {None}


def test_a_unix_socket_is_left_to_grpc(world: World, tmp_path: pathlib.Path) -> None:
    """It has no address to deal out, and works."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
    server.add_generic_rpc_handlers((_echo(),))
    target = f"unix:{tmp_path}/orders"
    assert server.add_insecure_port(target)
    server.start()
    try:
        with world.pool(target, min_size=2) as subject:
            subject.open()
            assert subject.call(ECHO, b"x") == b"x"
            assert (subject.stats().ready, subject.stats().target) == (2, target)
    finally:
        server.stop(0).wait()


def _echo() -> grpc.GenericRpcHandler:
    handler: Any = grpc.unary_unary_rpc_method_handler(lambda request, _: request)
    return grpc.method_handlers_generic_handler("test.Test", {"Echo": handler})


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tls() -> Iterator[Server]:
    """A server whose certificate is for `localhost`, on an address that the certificate does not name."""
    with Server({"so_reuseport": 0}, host="127.0.0.2", certificate=CERTIFICATE) as server:
        yield server


@pytest.fixture
def credentials() -> grpc.ChannelCredentials:
    """Trusts that certificate."""
    return grpc.ssl_channel_credentials(CERTIFICATE.with_suffix(".crt").read_bytes())


def test_tls_verifies_the_name(world: World, tls: Server, credentials: grpc.ChannelCredentials, dns: DnsServer) -> None:
    """The certificate is for the name in the target, which the address is not."""
    dns.set("localhost", "127.0.0.2")
    with world.pool(f"localhost:{tls.port}", how={"credentials": credentials}) as subject:
        assert pid_of(subject) == str(tls.pid).encode()
        assert [channel.address for channel in subject.stats().channels] == [tls.target]


def test_tls_refuses_another_name(
    world: World, tls: Server, credentials: grpc.ChannelCredentials, dns: DnsServer
) -> None:
    """A name that leads to a server whose certificate is for another."""
    dns.set(NAME, "127.0.0.2")
    with world.pool(f"{NAME}:{tls.port}", how={"credentials": credentials}) as subject:
        error = failure_of(subject.begin(PID, b"", timeout=5))
        assert isinstance(error, grpc.RpcError)
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert subject.stats().opened == 0


@pytest.mark.parametrize("option", ["grpc.ssl_target_name_override", "grpc.default_authority"])
def test_the_users_own_name_goes_first(
    world: World, tls: Server, credentials: grpc.ChannelCredentials, dns: DnsServer, option: str
) -> None:
    """A user may say which name is to be verified, as with gRPC."""
    dns.set(NAME, "127.0.0.2")
    options = [(option, "localhost")]
    with world.pool(f"{NAME}:{tls.port}", options=options, how={"credentials": credentials}) as subject:
        assert pid_of(subject) == str(tls.pid).encode()


def test_tls_with_addresses_of_the_users_own(world: World, tls: Server, credentials: grpc.ChannelCredentials) -> None:
    """The name in the target is verified, wherever the addresses come from."""
    how = {"credentials": credentials, "addresses": lambda: [tls.target]}
    with world.pool("localhost:443", how=how) as subject:
        assert pid_of(subject) == str(tls.pid).encode()
    with world.pool("orders:443", how=how) as subject:
        failure_of(subject.begin(PID, b"", timeout=5))
        assert subject.stats().opened == 0


# --- proxies and forks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variable", ["http_proxy", "grpc_proxy", "https_proxy"])
def test_names_behind_a_proxy_are_left_to_grpc(
    world: World, dns: DnsServer, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """The proxy looks the name up: gRPC asks it for a connection to the name, and the pool looks nothing up."""
    with _Proxy() as proxy:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
        dns.set(NAME, *hosts(1))
        with world.pool(f"{NAME}:50051") as subject:
            failure_of(subject.begin(PID, b"", timeout=5))
            assert f"CONNECT {NAME}:50051 " in proxy.asked()
            assert not dns.asked


class _Proxy:
    """An HTTP proxy that refuses everything."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._requests: list[str] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def asked(self) -> str:
        """What was requested, once something was."""
        return eventually(lambda: "".join(self._requests))

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            with connection:
                request = connection.recv(4096)
                if request == b"stop":
                    return
                self._requests.append(request.decode())
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as stopping:
            stopping.sendall(b"stop")
        self._thread.join()
        self._socket.close()


_FORK = """
import os, sys, traceback
import grpcpool
from support.connections import connections_by_host
from support.servers import PID, unary
from support.waiting import eventually

port, asked = int(sys.argv[1]), []


def addresses():
    asked.append(os.getpid())
    return [f"127.0.0.2:{port}", f"127.0.0.3:{port}"]


def connections():
    found = connections_by_host(port)
    return [found["127.0.0.2"], found["127.0.0.3"]]


pool = grpcpool.insecure_channel("orders", addresses=addresses)
unary(pool, PID, b"")
eventually(lambda: connections() == [1, 1])
assert asked == [os.getpid()]
pid = os.fork()
if not pid:
    try:
        unary(pool, PID, b"")
        eventually(lambda: pool.stats().ready == 2)
        assert asked[1:] == [os.getpid()]
        assert {channel.address for channel in pool.stats().channels} == {*addresses()}
        pool.close()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
unary(pool, PID, b"")
assert connections() == [1, 1]
assert asked == [os.getpid()]
pool.close()
print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_looks_up_anew(servers: Servers) -> None:
    """A forked child starts without addresses, asks for them itself, and connects to each."""
    done = run_python(textwrap.dedent(_FORK), str(servers.port))
    assert done.stdout.split() == ["fine"], done.stdout + done.stderr
