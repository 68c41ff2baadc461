"""Every command ends by its own time limit, whatever a server does."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from cli.support import CHECK, HERE, CommandResult, Commands, grpc_server, tcp_server
from grpcpool._demo.process import running_server
from grpcpool.cli._deadline import Deadline, call_within

# What must end ends at once; an endless command would be ended by the tests' own limit.
_SOON = 10.0
_KEPT_SENDING = "it kept sending, but gave no answer within {limit}"


def _endless(talk: str) -> AbstractContextManager[int]:
    """Runs a server that never comes to an end; yields its port."""
    return running_server([str(HERE / "endless_server_script.py"), talk])


@contextmanager
def _soon() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < _SOON


def _probe(command: Commands, talk: str, *more: str, timeout: float = 0.5) -> CommandResult:
    with _endless(talk) as port, _soon():
        return command("probe", f"127.0.0.1:{port}", f"--timeout={timeout}", *more)


def _patiently(
    probe: Callable[[float], CommandResult], reaches: Callable[[CommandResult], bool]
) -> tuple[CommandResult, str]:
    """Probes with a limit in which the server is reached, which takes longer on a busy machine; returns it as well."""
    for limit in (0.5, 2.0):
        if reaches(result := probe(limit)):
            return result, str(Deadline(limit))
    return probe(8.0), "8 s"


def _connects(result: CommandResult) -> bool:
    return "no answer within" not in result.err


def _probe_until_heard(command: Commands, talk: str, *more: str) -> tuple[CommandResult, str]:
    """Probes a server that announces its settings."""
    return _patiently(lambda limit: _probe(command, talk, *more, timeout=limit), lambda result: result.code == 0)


# --- probe ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "talk", ["window_update", "ping", "ping_ack", "settings", "unknown", "empty_data", "headers", "bytes"]
)
def test_frames_without_end(command: Commands, talk: str) -> None:
    """The probe ends at its limit; it shows what the server announced, and what it then did. The exit code is 0."""
    result, limit = _probe_until_heard(command, talk, "--json")
    assert result.code == 0
    (address,) = result.json["addresses"]
    assert address["error"] == _KEPT_SENDING.format(limit=limit)
    assert address["settings"] is not None


def test_the_table_says_so(command: Commands) -> None:
    """The table says that the server answers, and what is missing."""
    result, limit = _probe_until_heard(command, "ping")
    assert result.code == 0
    assert f"yes, but {_KEPT_SENDING.format(limit=limit)}" in result.out
    assert result.err == ""


def test_a_server_that_does_not_read(command: Commands) -> None:
    """It ends if the server takes nothing any more, too: not even the answers to its pings."""
    error = _probe(command, "unread", "--json").json["addresses"][0]["error"]
    assert error.endswith("no answer within 0.5 s")


def test_a_response_without_end(command: Commands) -> None:
    """It keeps 4 MiB of a response at most, however much time is left."""
    result = _probe(command, "data", "--json", timeout=60)
    assert result.json["addresses"][0]["error"] == "the server's response is longer than 4 MiB"


def test_headers_without_end(command: Commands) -> None:
    """Header blocks that never end violate HTTP/2, and end the probe at once."""
    result = _probe(command, "continuation", "--json", timeout=60)
    assert result.json["addresses"][0]["error"].startswith("the server violated HTTP/2: ")


def test_the_limit_is_for_all_steps(command: Commands) -> None:
    """A server that answers each step in time, but all of them too late, is late."""
    result = _probe(command, "slow", "--json")
    (address,) = result.json["addresses"]
    assert address["error"] == "no answer within 0.5 s"
    assert len(address["ping_ms"]) == 3


@pytest.mark.parametrize(
    ("talk", "more", "words"),
    [
        ("settings_bytes", (), "the server sent no HTTP/2 settings within {limit}"),
        ("no_settings", (), "the server does not speak HTTP/2"),
        ("tls_bytes", ("--tls",), "the server did not complete the TLS handshake within {limit}"),
    ],
)
def test_handshakes_without_end(command: Commands, talk: str, more: tuple[str, ...], words: str) -> None:
    """A server that never completes a handshake has not answered: one line says so, and the exit code is 1."""
    result, limit = _patiently(lambda limit: _probe(command, talk, *more, timeout=limit), _connects)
    assert result.code == 1
    assert result.line.endswith(f": {words.format(limit=limit)}")


@pytest.mark.parametrize(("talk", "words"), [("bad_settings", ""), ("other_stream", "stream 7 is not open")])
def test_frames_that_are_not_valid(command: Commands, talk: str, words: str) -> None:
    """Frames that violate HTTP/2 end the probe at once, and it says so."""
    result = _probe(command, talk, "--json", timeout=60)
    assert result.json["addresses"][0]["error"].startswith(f"the server violated HTTP/2: {words}")


def test_a_silent_server_and_tls(command: Commands) -> None:
    """A server that accepts and stays silent does not delay the end of a TLS handshake."""
    with tcp_server("silence") as port:

        def probe(limit: float) -> CommandResult:
            with _soon():
                return command("probe", f"127.0.0.1:{port}", "--tls", f"--timeout={limit}")

        result, limit = _patiently(probe, _connects)
    assert result.code == 1
    assert result.line.endswith(f": the server did not complete the TLS handshake within {limit}")


def test_a_name_that_takes_for_ever(command: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that does not answer cannot be interrupted; the command ends without it."""
    go, asked = threading.Event(), threading.Event()

    def getaddrinfo(*_: object, **__: object) -> list[Any]:
        asked.set()
        go.wait()
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with _soon():
        result = command("probe", "orders.example:443", "--timeout=0.3")
    assert asked.is_set()
    go.set()
    assert result.code == 1
    assert result.line == "grpcpool: orders.example: the name did not resolve within 0.3 s"


def test_silent_addresses_leave_time_for_others(command: Commands) -> None:
    """Four addresses are probed at a time. Silent ones take no more than their share, so a later one is probed, too."""
    with grpc_server() as port, tcp_server("silence") as silent, _soon():
        addresses = ",".join([f"127.0.0.1:{silent}"] * 4 + [f"127.0.0.1:{port}"])
        result = command("probe", f"ipv4:{addresses}", "--timeout=4", "--json")
    assert result.code == 0
    first, *_, answering = result.json["addresses"]
    assert first["error"] == "no answer within 2 s: it may speak TLS (--tls), or not HTTP/2"
    assert answering["error"] is None


# --- bench ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("talk", ["ping", "data", "empty_data", "headers", "settings_bytes", "tls_bytes", "unread"])
def test_bench_ends_without_an_answer(command: Commands, talk: str) -> None:
    """If the server never answers, `bench` ends by `--timeout`, with one line and the exit code 1."""
    with _endless(talk) as port, _soon():
        result = command("bench", f"127.0.0.1:{port}", CHECK, "--timeout=0.5")
    assert result.code == 1
    assert result.line.startswith("grpcpool: reflection failed: ")


# --- the deadline ---------------------------------------------------------------------------------------------------


def test_a_deadline_that_has_passed() -> None:
    """Nothing is left, and no blocking operation starts."""
    deadline = Deadline(0.0)
    assert deadline.left() == 0
    with pytest.raises(TimeoutError):
        deadline.timeout()


def test_parts_of_a_deadline() -> None:
    """The time left is shared by the parts; what the first does not use is left for the others."""
    deadline = Deadline(100.0)
    assert 99 < deadline.left() <= 100
    assert 24 < deadline.part(4).left() <= 25
    assert 99 < deadline.part(1).left() <= 100


@pytest.mark.parametrize(("seconds", "text"), [(0.3, "0.3 s"), (2, "2 s"), (2.46, "2.5 s"), (86_400, "86400 s")])
def test_a_deadline_as_text(seconds: float, text: str) -> None:
    """As text it is the time that there was, and so it is for all of what was left a moment later."""
    deadline = Deadline(seconds)
    assert str(deadline) == text
    assert str(Deadline(seconds - 0.0001)) == text


def test_a_function_within_a_deadline() -> None:
    """The result, or what the function raised; `TimeoutError` if it is late."""
    assert call_within(Deadline(60), lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        call_within(Deadline(60), lambda: 1 // 0)
    go = threading.Event()
    with pytest.raises(TimeoutError):
        call_within(Deadline(0.01), go.wait)
    go.set()
