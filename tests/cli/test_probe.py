"""`grpcpool probe` against real servers."""

from __future__ import annotations

import pathlib
import sys

import pytest

import grpcpool
from cli.support import CERTIFICATE, KEY, Commands, grpc_server, h2_server, no_server, plain_server


def test_it_reports_what_a_server_announces_and_serves(command: Commands, port: int) -> None:
    """It reports settings, times, health, reflection and services of a Python server, under documented keys."""
    told = command("probe", f"127.0.0.1:{port}", "--json")
    assert told.code == 0
    (address,) = told.json["addresses"]
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
    """For 100 streams it recommends 90, in a line of code that creates that configuration."""
    recommended = command("probe", f"127.0.0.1:{port}", "--json", "--in-flight=700").json["recommendation"]
    config = eval(recommended["code"], {"grpcpool": grpcpool})  # noqa: S307 -- that it can be copied is the point
    assert config == grpcpool.PoolConfig(max_streams=90, max_size=14)
    assert config == grpcpool.PoolConfig(**recommended["config"])
    assert "90% of the server's 100" in recommended["reasons"]["max_streams"]


def test_the_table(command: Commands, port: int) -> None:
    """Without `--json` there is a table, and the line to copy is on a line of its own."""
    told = command("probe", f"dns:///127.0.0.1:{port}")
    assert told.code == 0
    assert "grpcpool.PoolConfig(max_streams=90, max_size=10)" in told.out.splitlines()
    assert "grpc.health.v1.Health" in told.out
    assert told.err == ""


@pytest.mark.parametrize(("announced", "streams"), [(10, 9), (1, 1), (128, 115), (2**31 - 1, 900)])
def test_the_limit_decides(command: Commands, announced: int, streams: int) -> None:
    """It recommends nine tenths of whatever limit a server announces, at least one, and bounded."""
    with h2_server(announced) as port:
        told = command("probe", f"127.0.0.1:{port}", "--json").json
    assert told["addresses"][0]["settings"]["max_concurrent_streams"] == announced
    assert told["recommendation"]["config"]["max_streams"] == streams


def test_a_server_without_a_limit(command: Commands) -> None:
    """A missing limit, health service or reflection is reported as missing."""
    with grpc_server("--bare") as port:
        told = command("probe", f"127.0.0.1:{port}", "--json").json
    (address,) = told["addresses"]
    # Older servers announce it as a number.
    assert address["settings"]["max_concurrent_streams"] in (None, 2**31 - 1)
    assert (address["health"], address["reflection"], address["services"]) == (None, [], [])
    assert "no limit" in told["recommendation"]["reasons"]["max_streams"]


def test_several_addresses(command: Commands, port: int) -> None:
    """Each address is probed; one that does not answer is reported, and does not count."""
    with h2_server(50) as other, no_server() as closed:
        told = command("probe", f"ipv4:127.0.0.1:{port},127.0.0.1:{other},127.0.0.1:{closed}", "--json")
    assert told.code == 0
    first, second, third = told.json["addresses"]
    assert (first["error"], second["error"], third["error"]) == (None, None, "connection refused")
    assert told.json["recommendation"]["config"] == {"max_streams": 45, "min_size": 2, "max_size": 20}


def test_tls(command: Commands) -> None:
    """Over TLS, version and protocol are reported, and the certificate's name may be given."""
    with grpc_server("--tls") as port:
        told = command("probe", f"127.0.0.1:{port}", "--ca", CERTIFICATE, "--authority", "localhost", "--json")
    (address,) = told.json["addresses"]
    assert (address["alpn"], address["error"]) == ("h2", None)
    assert address["tls_version"].startswith("TLSv1.")
    assert address["tls_ms"] > 0


def test_a_client_certificate(command: Commands) -> None:
    """A server that requires a client certificate answers with one; without it, the line says so."""
    with grpc_server("--tls", "--mutual") as port:
        given = command("probe", f"localhost:{port}", "--ca", CERTIFICATE, "--cert", CERTIFICATE, "--key", KEY)
        lacking = command("probe", f"127.0.0.1:{port}", "--ca", CERTIFICATE)
    assert given.code == 0
    assert lacking.code == 1
    assert "client's certificate (--cert, --key)" in lacking.line


@pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets on this platform")
def test_a_unix_socket(command: Commands, tmp_path: pathlib.Path) -> None:
    """A Unix socket is an address, too."""
    path = tmp_path / "s"
    with grpc_server(f"--unix={path}"):
        told = command("probe", f"unix:{path}", "--json")
    assert told.json["addresses"][0]["address"] == f"unix:{path}"
    assert told.code == 0
    assert "there is no such socket" in command("probe", f"unix:{path}.gone").line


def test_an_unreachable_server(command: Commands) -> None:
    """An unreachable server ends the command with one line and 1; in JSON its addresses are still reported."""
    with no_server() as port:
        told = command("probe", f"127.0.0.1:{port}")
        as_json = command("probe", f"127.0.0.1:{port}", "--json")
    assert (told.code, told.out) == (1, "")
    assert told.line == f"grpcpool: 127.0.0.1:{port}: connection refused"
    assert as_json.code == 1
    assert as_json.json["addresses"][0]["error"] == "connection refused"
    assert as_json.json["recommendation"] is None


@pytest.mark.parametrize(
    ("says", "words"),
    [
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "speaks HTTP/1, not HTTP/2"),
        ("220 mail.example ESMTP\r\n", "does not speak HTTP/2"),
        ("\x15\x03\x03\x01\x02\x02\x28", "speaks TLS: try with --tls"),
        ("silence", "no answer within 0.3 s: it may speak TLS"),
        ("goodbye", "it may speak TLS"),
    ],
)
def test_what_is_not_http2(command: Commands, says: str, words: str) -> None:
    """A server of another protocol is reported by what it sends, in one line, and the command ends with 1."""
    with plain_server(says) as port:
        told = command("probe", f"127.0.0.1:{port}", "--timeout=0.3")
    assert told.code == 1
    assert words in told.line


def test_tls_mismatches(command: Commands, port: int) -> None:
    """TLS to a plain server, plain to a TLS server, and a certificate that is untrusted or of another name."""
    assert "does not speak TLS" in command("probe", f"127.0.0.1:{port}", "--tls").line
    with grpc_server("--tls") as secure:
        assert "it may speak TLS" in command("probe", f"127.0.0.1:{secure}").line
        assert "certificate was refused" in command("probe", f"127.0.0.1:{secure}", "--tls").line
        foreign = command("probe", f"127.0.0.1:{secure}", "--ca", CERTIFICATE, "--authority", "other.example")
        assert "certificate was refused" in foreign.line


def test_a_name_that_does_not_resolve(command: Commands) -> None:
    """A name that does not resolve is reported as such. Names of this kind never do (RFC 6761)."""
    told = command("probe", "dns:///nobody.invalid:50051")
    assert told.code == 1
    assert "the name does not resolve" in told.line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["xds:///orders"], "the scheme xds is not understood"),
        (["localhost:http"], "'http' is no port"),
        (["localhost:99999"], "'99999' is no port"),
        (["ipv4:localhost:1"], "is no ipv4 address"),
        (["unix:"], "names no socket"),
        (["localhost:1", "--cert", "a.pem"], "--cert and --key go together"),
    ],
)
def test_usage(command: Commands, arguments: list[str], words: str) -> None:
    """Arguments that make no sense end the command with 2 and one line."""
    told = command("probe", *arguments)
    assert told.code == 2
    assert words in told.line


def test_invalid_certificates(command: Commands, tmp_path: pathlib.Path) -> None:
    """A certificate file that is missing or invalid ends the command with one line."""
    (tmp_path / "no.pem").write_text("no certificate")
    for name in ("no.pem", "missing.pem"):
        told = command("probe", "localhost:1", "--ca", tmp_path / name)
        assert told.code == 1
        assert f"the certificates cannot be used ({tmp_path / name})" in told.line
