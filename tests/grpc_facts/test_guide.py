"""What gRPC says of a failure is in the guides, in the row of its cause: readers take the first that fits."""

from __future__ import annotations

import pathlib
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from addresses.silent import silent_address
from grpcpool import PoolConfig, PoolOpenError, insecure_channel
from support.call_server import CERTIFICATE
from support.refusing_server import RefusingServer
from support.servers import COUNT, ECHO, SLOW, Server, dead_target, mute_target, unary
from support.waiting import LONG

pytestmark = pytest.mark.timeout(60)

_GUIDES = pathlib.Path(__file__).parents[2] / "docs" / "howto"
MESSAGES = ("troubleshooting.md", "Messages of gRPC")
AUTHORITY = CERTIFICATE.with_suffix(".crt").read_bytes()


def rows(guide: str, heading: str) -> list[list[str]]:
    """The messages in each row of the table under a heading of a guide."""
    section = (_GUIDES / guide).read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [re.findall("`([^`]+)`", row) for row in re.findall(r"^\| ([^|]*`[^|]*) \|", section, re.MULTILINE)]


def fits(row: list[str], said: str) -> bool:
    """Whether one of its messages, in which ``...`` stands for anything, is in what gRPC said."""
    return any(re.search(".*".join(map(re.escape, message.split("..."))), said) for message in row)


def row_of(said: str) -> str | None:
    """The first message of the row that a reader takes."""
    return next((row[0] for row in rows(*MESSAGES) if fits(row, said)), None)


def said_of(channel: grpc.Channel, method: str = ECHO, request: bytes = b"a request", timeout: float = LONG) -> str:
    """The details of the failure of a call."""
    with channel, pytest.raises(grpc.RpcError) as raised:
        unary(channel, method, request, timeout=timeout)
    error: Any = raised.value
    return str(error.details())


def said_of_end(channel: grpc.Channel, end: Callable[[], object] = lambda: None) -> str:
    """The details of the failure of a stream that is ended once it has begun, or ends by itself."""
    with channel:
        count: Any = channel.unary_stream(COUNT)
        stream = count(b"1000,100", timeout=LONG)
        with pytest.raises(grpc.RpcError):  # noqa: PT012 -- it may end before its first message
            next(stream)
            end()
            list(stream)
        return str(stream.details())


def nothing_listens() -> str:
    """Of a port that nothing listens on."""
    with dead_target() as target:
        return said_of(grpc.insecure_channel(target))


def packets_are_lost() -> str:
    """Of an address that drops packets."""
    with silent_address() as target:
        return said_of(insecure_channel(target, config=PoolConfig(connect_timeout=1.0)))


def no_answer() -> str:
    """Of a server that accepts connections and sends nothing."""
    with mute_target() as target:
        return said_of(insecure_channel(target, config=PoolConfig(connect_timeout=1.0)))


def not_opened() -> str:
    """Of the pool itself, when its time is over before gRPC's."""
    config = PoolConfig(connect_timeout=0.2)
    with (
        mute_target() as target,
        insecure_channel(target, config=config) as pool,
        pytest.raises(PoolOpenError) as raised,
    ):
        pool.open()
    return str(raised.value)


def url() -> str:
    """Of a target that begins like a URL."""
    return said_of(grpc.insecure_channel("http://localhost:50051"))


def no_target() -> str:
    """Of an empty target, as from an environment variable that is not set."""
    return said_of(grpc.insecure_channel(""))


def unknown_name() -> str:
    """Of a name that cannot be resolved."""
    return said_of(grpc.insecure_channel("orders.invalid:50051"))


def over_tls(server: Server, authority: bytes | None, name: str = "localhost") -> str:
    """Of a client that trusts the authority, and expects a certificate with the name."""
    options = [("grpc.ssl_target_name_override", name)]
    with server:
        return said_of(grpc.secure_channel(server.target, grpc.ssl_channel_credentials(authority), options))


def another_authority() -> str:
    """Of a certificate that the client does not trust."""
    return over_tls(Server(certificate=CERTIFICATE), None)


def another_name() -> str:
    """Of a certificate with another name."""
    return over_tls(Server(certificate=CERTIFICATE), AUTHORITY, "other.example")


def no_tls_in_the_server() -> str:
    """Of a server without TLS."""
    return over_tls(Server(), AUTHORITY)


def no_tls_in_the_client() -> str:
    """Of a server with TLS, to a client without."""
    with Server(certificate=CERTIFICATE) as server:
        return said_of(grpc.insecure_channel(server.target))


def refused() -> str:
    """Of a server at its limit of streams."""
    with RefusingServer() as server:
        server.begin(open=0)
        return said_of(server.channel(), "/refusals.Test/Uu")


def pings() -> str:
    """Of a client that sends more pings than the server allows."""
    often = [("grpc.keepalive_time_ms", 100), ("grpc.http2.max_pings_without_data", 0)]
    with Server({"http2.max_ping_strikes": 1}) as server:
        return said_of(grpc.insecure_channel(server.target, often), SLOW, b"60000")


def large_response() -> str:
    """Of a client that takes only small messages."""
    with Server() as server:
        return said_of(grpc.insecure_channel(server.target, [("grpc.max_receive_message_length", 1)]))


def large_request() -> str:
    """Of a server that takes only small messages."""
    with Server({"max_receive_message_length": 1}) as server:
        return said_of(grpc.insecure_channel(server.target))


def killed() -> str:
    """Of a server that ends during a stream."""
    with Server() as server:
        return said_of_end(server.channel(), server.kill)


def stopped() -> str:
    """Of a server that is stopped during a stream."""

    def count(_request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"0"
        over = threading.Event()
        context.add_callback(over.set)
        over.wait(LONG)

    methods: dict[str, Any] = {"Count": grpc.unary_stream_rpc_method_handler(count)}
    with ThreadPoolExecutor() as threads:
        server = grpc.server(threads)
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Test", methods)])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        return said_of_end(grpc.insecure_channel(f"127.0.0.1:{port}"), lambda: server.stop(0))


def too_old() -> str:
    """Of a server that bounds the age of its connections."""
    with Server({"max_connection_age_ms": 100, "max_connection_age_grace_ms": 100}) as server:
        return said_of_end(server.channel())


def late() -> str:
    """Of a server that is slow."""
    with Server() as server:
        return said_of(grpc.insecure_channel(server.target), SLOW, b"60000", timeout=0.2)


_FAILURES: list[tuple[Callable[[], str], str]] = [
    (nothing_listens, "Connection refused"),
    (packets_are_lost, "not ready within connect_timeout"),
    (no_answer, "not ready within connect_timeout"),
    (not_opened, "not ready within connect_timeout"),
    (url, "Misformatted domain name"),
    (no_target, "Misformatted domain name"),
    (unknown_name, "errors resolving"),
    (another_authority, "CERTIFICATE_VERIFY_FAILED"),
    (another_name, "CERTIFICATE_VERIFY_FAILED"),
    (no_tls_in_the_server, "CERTIFICATE_VERIFY_FAILED"),
    (no_tls_in_the_client, "CERTIFICATE_VERIFY_FAILED"),
    (refused, "RST_STREAM with error code 7"),
    (pings, "Too many pings"),
    (large_response, "message larger than max"),
    (large_request, "message larger than max"),
    (killed, "Cancelling all calls"),
    (stopped, "Cancelling all calls"),
    (too_old, "Cancelling all calls"),
    (late, "Deadline Exceeded"),
]


@pytest.mark.parametrize(("failure", "row"), _FAILURES)
def test_a_failure_leads_to_the_row_of_its_cause(failure: Callable[[], str], row: str) -> None:
    """Of the rows under "Messages of gRPC", each named by its first message, the first that fits is the right one."""
    said = failure()
    assert row_of(said) == row, said


@pytest.mark.parametrize(
    ("said", "row"),
    [
        # 1.66 to 1.78, if an address that drops packets closes.
        ("getsockopt(SO_ERROR): Connection reset by peer (104)", "not ready within connect_timeout"),
        ("Timeout occurred: FD Shutdown", "not ready within connect_timeout"),
        ("connect: Connection refused (111)", "Connection refused"),
    ],
)
def test_what_other_releases_say_leads_there_too(said: str, row: str) -> None:
    """Older releases have other words for why they could not connect."""
    where = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1"
    assert row_of(f"{where}: Failed to connect to remote host: {said}") == row


def test_every_row_is_provoked() -> None:
    """Each row under "Messages of gRPC" is one of those above."""
    assert {row for _, row in _FAILURES} == {row[0] for row in rows(*MESSAGES)}


@pytest.mark.parametrize(
    ("failure", "row"),
    [
        (another_authority, "CERTIFICATE_VERIFY_FAILED"),
        (another_name, "Hostname Verification Check failed"),
        (no_tls_in_the_server, "WRONG_VERSION_NUMBER"),
        (no_tls_in_the_client, "failed to connect ... Socket closed"),
    ],
)
def test_a_failure_of_tls_leads_to_its_row(failure: Callable[[], str], row: str) -> None:
    """In the guide to TLS, only the row of the cause fits."""
    said = failure()
    found = [messages[0] for messages in rows("tls.md", "When it does not connect") if fits(messages, said)]
    assert found == [row], said
