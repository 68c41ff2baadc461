"""`grpcpool probe` against real servers."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

import grpcpool
from cli.support import CERTIFICATE, COMMAND, KEY, Commands, grpc_server, h2_server, tcp_server, unused_port
from grpcpool.cli._deadline import Deadline
from grpcpool.cli._probe.http2 import Http2Connection, Http2Error
from support.waiting import LONG


def test_it_reports_what_a_server_announces_and_serves(command: Commands, port: int) -> None:
    """It reports settings, times, health, reflection and services of a Python server under the documented keys."""
    result = command("probe", f"127.0.0.1:{port}", "--json")
    assert result.code == 0
    (address,) = result.json["addresses"]
    assert address["address"] == f"127.0.0.1:{port}"
    assert address["settings"]["max_concurrent_streams"] == 100
    assert set(address["settings"]) == {
        "max_concurrent_streams",
        "initial_window_size",
        "max_frame_size",
        "max_header_list_size",
    }
    assert address["connect_ms"] > 0
    assert 0 < address["ping_ms"]["min"] <= address["ping_ms"]["median"]
    assert address["ping_ms"]["count"] == 8
    assert (address["error"], address["tls_ms"], address["alpn"]) == (None, None, None)
    assert (address["server"], address["http_status"]) == ("gRPC Python", 200)
    assert address["health"] == "SERVING"
    assert "v1alpha" in address["reflection"]
    assert "grpc.health.v1.Health" in address["services"]


def test_it_recommends_less_than_the_limit(command: Commands, port: int) -> None:
    """For a limit of 100 streams it recommends 90; the line of code evaluates to that configuration."""
    recommended = command("probe", f"127.0.0.1:{port}", "--json", "--in-flight=700").json["recommendation"]
    config = eval(recommended["code"], {"grpcpool": grpcpool})  # noqa: S307 -- users copy this line
    assert config == grpcpool.PoolConfig(max_streams=90, max_size=14)
    assert config == grpcpool.PoolConfig(**recommended["config"])
    assert "90% of the server's 100" in recommended["reasons"]["max_streams"]


def test_the_table_shows_the_same(command: Commands, port: int) -> None:
    """Without `--json` it prints a table, and the configuration on a line of its own."""
    result = command("probe", f"dns:///127.0.0.1:{port}")
    assert result.code == 0
    assert "grpcpool.PoolConfig(max_streams=90, max_size=10)" in result.out.splitlines()
    assert "grpc.health.v1.Health" in result.out
    assert result.err == ""


@pytest.mark.parametrize(("announced", "streams"), [(10, 9), (1, 1), (128, 115), (2**31 - 1, 900)])
def test_the_limit_decides(command: Commands, announced: int, streams: int) -> None:
    """It recommends nine tenths of the announced limit, at least 1 and at most 900."""
    with h2_server(announced) as port:
        result = command("probe", f"127.0.0.1:{port}", "--json").json
    assert result["addresses"][0]["settings"]["max_concurrent_streams"] == announced
    assert result["recommendation"]["config"]["max_streams"] == streams


def test_a_server_without_a_limit(command: Commands) -> None:
    """The report says "no limit", and has neither health nor reflection."""
    with grpc_server("--bare") as port:
        result = command("probe", f"127.0.0.1:{port}", "--json").json
    (address,) = result["addresses"]
    # Older servers announce the largest number.
    limit = address["settings"]["max_concurrent_streams"]
    assert limit in (None, 2**31 - 1)
    assert (address["health"], address["reflection"], address["services"]) == (None, [], [])
    assert ("unlimited" if limit else "no limit") in result["recommendation"]["reasons"]["max_streams"]


def test_several_addresses(command: Commands, port: int) -> None:
    """It probes each address; one that does not answer is reported, and the recommendation ignores it."""
    with h2_server(50) as other, unused_port() as closed:
        result = command("probe", f"ipv4:127.0.0.1:{port},127.0.0.1:{other},127.0.0.1:{closed}", "--json")
    assert result.code == 0
    first, second, third = result.json["addresses"]
    assert (first["error"], second["error"], third["error"]) == (None, None, "connection refused")
    assert result.json["recommendation"]["config"] == {"max_streams": 45, "min_size": 2, "max_size": 20}


def test_tls(command: Commands) -> None:
    """Over TLS it reports version and protocol; `--authority` sets the name that the certificate must match."""
    with grpc_server("--tls") as port:
        result = command("probe", f"127.0.0.1:{port}", "--ca", CERTIFICATE, "--authority", "localhost", "--json")
    (address,) = result.json["addresses"]
    assert (address["alpn"], address["error"]) == ("h2", None)
    assert address["tls_version"].startswith("TLSv1.")
    assert address["tls_ms"] > 0


def test_a_client_certificate(command: Commands) -> None:
    """A server that requires a client certificate accepts one; without it, the error says what is missing."""
    with grpc_server("--tls", "--mutual") as port:
        given = command("probe", f"localhost:{port}", "--ca", CERTIFICATE, "--cert", CERTIFICATE, "--key", KEY)
        missing = command("probe", f"127.0.0.1:{port}", "--ca", CERTIFICATE)
    assert given.code == 0
    assert missing.code == 1
    assert "client certificate (--cert, --key)" in missing.line


@pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets on this platform")
def test_a_unix_socket(command: Commands, tmp_path: pathlib.Path) -> None:
    """A Unix socket is an address, too."""
    path = tmp_path / "s"
    with grpc_server(f"--unix={path}"):
        result = command("probe", f"unix:{path}", "--json")
    assert result.json["addresses"][0]["address"] == f"unix:{path}"
    assert result.code == 0
    assert "the socket does not exist" in command("probe", f"unix:{path}.gone").line


def test_an_unreachable_server(command: Commands) -> None:
    """With a closed port the command exits with 1 and one line; the JSON still has the addresses."""
    with unused_port() as port:
        result = command("probe", f"127.0.0.1:{port}")
        as_json = command("probe", f"127.0.0.1:{port}", "--json")
    assert (result.code, result.out) == (1, "")
    assert result.line == f"grpcpool: 127.0.0.1:{port}: connection refused"
    assert as_json.code == 1
    assert as_json.json["addresses"][0]["error"] == "connection refused"
    assert as_json.json["recommendation"] is None


@pytest.mark.parametrize(
    ("greeting", "words"),
    [
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "speaks HTTP/1, not HTTP/2"),
        ("220 mail.example ESMTP\r\n", "does not speak HTTP/2"),
        ("\x15\x03\x03\x01\x02\x02\x28", "speaks TLS: try with --tls"),
        ("silence", "no answer within 0.3 s: it may speak TLS"),
        ("goodbye", "it may speak TLS"),
    ],
)
def test_a_server_without_http2(command: Commands, greeting: str, words: str) -> None:
    """The error names what the server speaks instead, as far as its first bytes show it; the exit code is 1."""
    with tcp_server(greeting) as port:
        result = command("probe", f"127.0.0.1:{port}", "--timeout=0.3")
    assert result.code == 1
    assert words in result.line


def test_tls_mismatches(command: Commands, port: int) -> None:
    """TLS to a plain server, no TLS to a TLS server, an untrusted certificate, and one for another name."""
    assert "does not speak TLS" in command("probe", f"127.0.0.1:{port}", "--tls").line
    with grpc_server("--tls") as secure:
        assert "it may speak TLS" in command("probe", f"127.0.0.1:{secure}").line
        assert "certificate was rejected" in command("probe", f"127.0.0.1:{secure}", "--tls").line
        foreign = command("probe", f"127.0.0.1:{secure}", "--ca", CERTIFICATE, "--authority", "other.example")
        assert "certificate was rejected" in foreign.line


def test_a_name_that_does_not_resolve(command: Commands) -> None:
    """The error says that the name does not resolve. Names under `.invalid` never do (RFC 6761)."""
    result = command("probe", "dns:///nobody.invalid:50051")
    assert result.code == 1
    assert "the name does not resolve" in result.line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["xds:///orders"], "scheme xds is not supported"),
        (["localhost:http"], "'http' is not a valid port"),
        (["localhost:99999"], "'99999' is not a valid port"),
        (["localhost:" + 5000 * "9"], "localhost:99999"),
        (["ipv4:localhost:1"], "is not a valid ipv4 address"),
        (["unix:"], "the path of the socket is missing"),
        (["localhost:1", "--cert", "a.pem"], "--cert and --key must be given together"),
        (["localhost:1", "--tls", "--authority", ""], "--authority must not be empty"),
    ],
)
def test_usage(command: Commands, arguments: list[str], words: str) -> None:
    """A wrong command line exits with 2 and one line."""
    result = command("probe", *arguments)
    assert result.code == 2
    assert words in result.line


@pytest.mark.parametrize("name", [".orders", "o" * 64])
def test_a_name_that_no_certificate_has(command: Commands, port: int, name: str) -> None:
    """An authority that cannot be the name of a server is a wrong command line."""
    result = command("probe", f"127.0.0.1:{port}", "--tls", "--authority", name)
    assert result.code == 2
    assert f"{name!r} is not a name that a certificate can have" in result.line


def test_a_terminal_without_unicode(tmp_path: pathlib.Path) -> None:
    """What the terminal's encoding lacks is escaped."""
    path = tmp_path / "caf\u00e9.sock"
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    with grpc_server(f"--unix={path}"):
        done = subprocess.run(  # noqa: S603 -- our own
            [*COMMAND, "probe", f"unix:{path}"], capture_output=True, text=True, timeout=60, check=False, env=ascii_only
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert "caf\\xe9.sock" in done.stdout.replace("\n", "").replace(" ", "")


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal on this platform")
@pytest.mark.usefixtures("interruptible")
def test_it_can_be_interrupted() -> None:
    """Ctrl-C ends it at once, and not only at its deadline, although a server does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        command = [*COMMAND, "probe", target, "--timeout=600"]
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,  # noqa: S603 -- our own
            silent.accept()[0] as connection,
        ):
            assert connection.recv(1)
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 130


def test_files_that_are_not_certificates(command: Commands, tmp_path: pathlib.Path) -> None:
    """A missing file, or one that is not a certificate, ends the command with one line."""
    (tmp_path / "no.pem").write_text("not a certificate")
    for name in ("no.pem", "missing.pem"):
        result = command("probe", "localhost:1", "--ca", tmp_path / name)
        assert result.code == 1
        assert f"cannot load the certificates ({tmp_path / name})" in result.line


@pytest.mark.parametrize("use", [Http2Connection.ping, lambda connection: connection.call("/any/Method", b"")])
def test_a_server_may_close_the_connection_with_its_settings(use: Callable[[Http2Connection], object]) -> None:
    """A server that sends a GOAWAY together with its settings is reported as one that closed the connection."""
    ours, theirs = socket.socketpair()
    connection = Http2Connection(ours, scheme="http", authority="any", deadline=Deadline(LONG))
    with theirs:
        settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
        goaway = bytes([0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11])
        theirs.sendall(settings + goaway)
        connection.handshake()
        with pytest.raises(Http2Error, match=r"closed the connection \(GOAWAY 11"):
            use(connection)
        connection.close()
