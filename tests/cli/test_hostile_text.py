"""What a server sends does nothing to the terminal, is exact in the JSON, and never ends a command with a traceback."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import urllib.parse
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection_pb2  # type: ignore[import-untyped]
from h2.settings import SettingCodes
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from cli.hostile_server import Answer, hostile_server
from cli.support import CHECK, COMMAND, CommandResult, Commands
from grpcpool._values.plain_text import plain
from grpcpool.cli._bench.methods import describe_by_reflection
from grpcpool.cli._errors import CommandError, UsageError
from grpcpool.cli._output import print_json, shown, without_grpcs_log
from grpcpool.cli._probe.as_json import as_json
from grpcpool.cli._probe.probe_address import AddressReport, Settings
from grpcpool.cli._probe.recommend import recommend
from grpcpool.cli._probe.terminal import print_tables
from grpcpool.cli._target import parse_target
from support.hostile import HOSTILE, is_safe

_BYTES = HOSTILE.encode()
_OK = ((b"grpc-status", b"0"),)
_UNIMPLEMENTED = Answer(trailers=((b"grpc-status", b"12"),))


def _message(message: Any) -> bytes:
    body: bytes = message.SerializeToString()
    return struct.pack(">?I", False, len(body)) + body


def _services(*names: str) -> bytes:
    services = [reflection_pb2.ServiceResponse(name=name) for name in names]
    listed = reflection_pb2.ListServiceResponse(service=services)
    return _message(reflection_pb2.ServerReflectionResponse(list_services_response=listed))


def _everywhere(path: str) -> Answer:
    """Answers with the hostile text wherever a server can put text."""
    if "Health" in path:
        return Answer(body=_message(health_pb2.HealthCheckResponse(status=77)), trailers=_OK)
    if "Reflection" in path:
        return Answer(body=_services(HOSTILE.replace("\0", ""), "zażółć.日本"), trailers=_OK)
    quoted = urllib.parse.quote(HOSTILE).encode()
    return Answer(
        headers=((b"server", _BYTES), (b"x-value", _BYTES), (b"x-" + _BYTES, b"name"), (b"x-bytes", b"\xff\xfe")),
        trailers=((b"x-trailer", _BYTES), (b"grpc-status", b"12"), (b"grpc-message", quoted)),
    )


def _assert_safe(result: CommandResult) -> None:
    assert is_safe(result.out, lines=True)
    assert is_safe(result.err, lines=True)


# --- probe ----------------------------------------------------------------------------------------------------------


def test_the_table_is_plain(command: Commands) -> None:
    """Names and values of headers, trailers, the server's name and those of services are escaped in the table."""
    with hostile_server(_everywhere) as port:
        result = command("probe", f"127.0.0.1:{port}")
    assert result.code == 0
    _assert_safe(result)
    assert result.err == ""
    for start in ("server", "x-value: ", "x-trailer: ", "x-no", "  no"):
        assert start in result.out
    assert r"2026-01-01 CRITICAL" in result.out
    assert r"\x1b[2J" in result.out
    assert "zażółć.日本" in result.out
    assert "77" in result.out


def test_the_json_is_exact(command: Commands) -> None:
    """The JSON has no control character, DEL included, and its texts are what the server sent."""
    with hostile_server(_everywhere) as port:
        result = command("probe", f"127.0.0.1:{port}", "--json")
    assert result.code == 0
    _assert_safe(result)
    assert result.out.isascii()
    (address,) = result.json["addresses"]
    assert address["error"] is None
    assert address["server"] == HOSTILE
    assert address["headers"] == {
        "x-value": HOSTILE,
        f"x-{HOSTILE}": "name",
        "x-bytes": r"\xff\xfe",
        "x-trailer": HOSTILE,
    }
    assert address["services"] == [HOSTILE.replace("\0", ""), "zażółć.日本"]
    assert address["health"] == "77"


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_the_reason_of_a_goaway_is_plain(command: Commands, more: tuple[str, ...]) -> None:
    """The debug data of a GOAWAY is in the report, escaped, and only its beginning."""
    with hostile_server(lambda _: Answer(goaway=_BYTES + b"x" * 5000)) as port:
        result = command("probe", f"127.0.0.1:{port}", *more)
    assert result.code == 0
    _assert_safe(result)
    assert "GOAWAY 0" in result.out
    assert result.out.count("x") < 1000


def test_the_line_of_an_error_is_plain() -> None:
    """Errors of commands are one line, with what a server sent escaped, and of limited length."""
    for kind in (CommandError, UsageError):
        assert is_safe(str(kind(HOSTILE)))
        assert r"\x1b[2J" in str(kind(HOSTILE))
        assert len(str(kind(HOSTILE * 1000))) < 3000


def test_an_operating_systems_error_is_plain(command: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an operation of the system raises is one plain line, too."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(HOSTILE)

    monkeypatch.setattr("grpcpool.cli._probe.run.run_probe", fail)
    result = command("probe", "127.0.0.1:1")
    assert result.code == 1
    assert result.line == f"grpcpool: {plain(HOSTILE)}"


def test_many_services_are_cut(command: Commands) -> None:
    """The table shows the first hundred services, and says how many more there are; the JSON has all."""
    names = [f"s{number:03}" for number in range(150)]

    def answer(path: str) -> Answer:
        return Answer(body=_services(*names), trailers=_OK) if "Reflection" in path else _UNIMPLEMENTED

    with hostile_server(answer) as port:
        table = command("probe", f"127.0.0.1:{port}")
        result = command("probe", f"127.0.0.1:{port}", "--json")
    assert "s099" in table.out
    assert "s100" not in table.out
    assert "and 50 more: --json lists them" in table.out
    assert result.json["addresses"][0]["services"] == names


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=b"\0\0\0\0\3\xff\xff\xff", trailers=_OK),
        Answer(body=b"\0\xff\xff\xff\xff", trailers=_OK),
        Answer(body=b"\1\0\0\0\0", trailers=_OK),
        Answer(body=b"\0\0", trailers=_OK),
        Answer(body=b"\0\0\0\0\0" * 3000, trailers=_OK),
        Answer(trailers=((b"grpc-status", b"9" * 5000),)),
        Answer(trailers=((b"grpc-status", "²".encode()),)),
        Answer(trailers=((b"grpc-status", b"\xff"),)),
        Answer(status=b"9" * 5000),
        Answer(status=b"\x1b[2J"),
        Answer(headers=((b"\xff\xfe", b"\xff"),)),
        Answer(),
    ],
    ids=lambda answer: f"{(answer.body or answer.trailers or answer.headers or answer.status)!r:.40}",
)
def test_answers_that_are_not_valid(command: Commands, answer: Answer) -> None:
    """A status, a header or a message that is not valid counts as missing: the report is complete without it."""
    with hostile_server(lambda _: answer) as port:
        result = command("probe", f"127.0.0.1:{port}", "--json")
    assert result.code == 0
    _assert_safe(result)
    (address,) = result.json["addresses"]
    assert address["error"] is None
    assert address["services"] == []


@pytest.mark.parametrize(
    "settings", [{SettingCodes.MAX_CONCURRENT_STREAMS: 0}, {SettingCodes.INITIAL_WINDOW_SIZE: 0}], ids=str
)
def test_a_server_that_allows_no_call(command: Commands, settings: dict[SettingCodes, int]) -> None:
    """A server that allows no stream, or no byte of a request, is reported with its settings and the reason."""
    with hostile_server(lambda _: _UNIMPLEMENTED, settings) as port:
        result = command("probe", f"127.0.0.1:{port}", "--json")
    assert result.code == 0
    assert result.json["addresses"][0]["error"].startswith("the server allows no call: ")


# --- any text -------------------------------------------------------------------------------------------------------

_TEXTS = st.text(st.characters(codec="utf-8")) | st.text(
    st.sampled_from("\x00\x07\x1b[]0;2Jm\\\r\n\t\x7f\x85\x9b\u2028\u202e\u2066:/bred "), max_size=30
)


def _console() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=200, highlight=False, emoji=False), out


@given(_TEXTS)
@example(HOSTILE)
@example("[/bold][red]:skull:\\[")
def test_any_text_is_printed_as_it_is(text: str) -> None:
    """For any text, what reaches the terminal is that text with its control characters escaped, and nothing else."""
    console, out = _console()
    console.print(shown(text), soft_wrap=True)
    assert out.getvalue() == f"{plain(text)}\n"
    assert is_safe(str(CommandError(text)))


@given(_TEXTS)
@example(HOSTILE)
def test_any_report_is_plain(text: str) -> None:
    """For any text in any field of a report, table and JSON have no control character; the JSON is exact."""
    report = AddressReport(
        address=text,
        error=text,
        tls_seconds=1.0,
        tls_version=text,
        alpn=text,
        settings=Settings(),
        http_status=404,
        server=text,
        headers={text: text},
        health=text,
        reflection=[text],
        services=[text],
    )
    target = parse_target("orders:1")
    recommendations = recommend([report], in_flight=1, is_name=True)
    console, out = _console()
    print_tables(console, target, [report], recommendations)
    print_json(console, as_json(target, [report], recommendations))
    assert is_safe(out.getvalue(), lines=True)
    assert '"recommendation": {' in out.getvalue()


# --- bench ----------------------------------------------------------------------------------------------------------


def _bench(command: Commands, answer: Callable[[str], Answer], *more: str) -> CommandResult:
    with hostile_server(answer) as port:
        result = command("bench", f"127.0.0.1:{port}", CHECK, "--timeout=5", *more)
    assert result.code == 1
    assert result.out == ""
    _assert_safe(result)
    return result


def test_the_details_of_a_failed_reflection_are_plain(command: Commands) -> None:
    """The server's details are in the one line, escaped."""
    quoted = urllib.parse.quote(HOSTILE).encode()
    answer = Answer(trailers=((b"grpc-status", b"7"), (b"grpc-message", quoted)))
    result = _bench(command, lambda _: answer)
    assert result.line.startswith("grpcpool: reflection failed: PERMISSION_DENIED: no 2026-01-01 CRITICAL")
    assert r"\x1b[2J" in result.line


@pytest.mark.parametrize(
    "body",
    [
        b"",
        _message(reflection_pb2.ServerReflectionResponse()),
        _message(
            reflection_pb2.ServerReflectionResponse(
                error_response=reflection_pb2.ErrorResponse(error_code=13, error_message=HOSTILE)
            )
        ),
        _message(
            reflection_pb2.ServerReflectionResponse(
                file_descriptor_response=reflection_pb2.FileDescriptorResponse(file_descriptor_proto=[b"\xff\xff"])
            )
        ),
    ],
    ids=["nothing", "no answer", "an error", "not a description"],
)
def test_reflection_that_is_not_valid(command: Commands, body: bytes) -> None:
    """Whatever the server's reflection sends, the command ends with one line."""
    result = _bench(command, lambda _: Answer(body=body, trailers=_OK))
    assert result.line.startswith("grpcpool: ")
    assert len(result.line) < 3000


def test_descriptions_without_end(command: Commands) -> None:
    """Files that need ever more files end the command: at its limit, or where protobuf gives up."""
    from google.protobuf import descriptor_pb2  # type: ignore[import-untyped] # noqa: PLC0415

    numbers = iter(range(1_000_000))

    def answer(path: str) -> Answer:
        number = next(numbers)
        file = descriptor_pb2.FileDescriptorProto(name=f"{number}.proto", dependency=[f"{number + 1}.proto"])
        files = reflection_pb2.FileDescriptorResponse(file_descriptor_proto=[file.SerializeToString()])
        return Answer(
            body=_message(reflection_pb2.ServerReflectionResponse(file_descriptor_response=files)), trailers=_OK
        )

    result = _bench(command, answer)
    assert result.line.startswith("grpcpool: ")
    assert next(numbers) > 1


_GRPCS_WORDS = "Got goaway [11]"


@pytest.mark.parametrize("wanted", [{}, {"GRPC_VERBOSITY": "INFO"}], ids=["by default", "wanted"])
def test_grpcs_own_log_is_printed_only_if_wanted(wanted: dict[str, str]) -> None:
    """The reason of a GOAWAY, which gRPC's core logs as it is, is not printed unless the environment asks for it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    answer = Answer(goaway=_BYTES, goaway_code=11)
    with hostile_server(lambda _: answer) as port:
        done = subprocess.run(  # noqa: S603 -- our own
            [*COMMAND, "bench", f"127.0.0.1:{port}", CHECK, "--timeout=1"],
            env={**environment, **wanted},
            capture_output=True,
            encoding="utf-8",
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("grpcpool: reflection failed: ")
    assert (_GRPCS_WORDS in done.stderr) is bool(wanted)
    assert is_safe(done.stderr, lines=True) is not bool(wanted)


def test_python_prints_while_grpcs_log_is_discarded(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Python prints on standard error appears, in its order; what is written past Python does not."""
    for name in ("GRPC_VERBOSITY", "GRPC_TRACE"):
        monkeypatch.delenv(name, raising=False)
    with open(2, "w", encoding="utf-8", closefd=False) as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        sys.stderr.write("before\n")
        with without_grpcs_log():
            os.write(2, b"the core's\n")
            sys.stderr.write("within\n")
        assert sys.stderr is stderr
        os.write(2, b"after\n")
    assert capfd.readouterr().err.splitlines() == ["before", "within", "after"]


def test_grpcs_log_is_discarded_without_a_standard_error() -> None:
    """A command whose standard error is closed runs as usual."""
    program = "import os, sys; os.close(2); from grpcpool.__main__ import main; main(sys.argv[1:])"
    with hostile_server(lambda _: _UNIMPLEMENTED) as port:
        done = subprocess.run(  # noqa: S603 -- our own
            [sys.executable, "-c", program, "bench", f"127.0.0.1:{port}", CHECK, "--timeout=1"],
            capture_output=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stdout) == (1, b"")


def test_conflicting_descriptions_are_not_printed(
    command: Commands, recwarn: pytest.WarningsRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Protobuf warns of conflicting descriptions in the server's words; nothing of that is printed."""
    with hostile_server(lambda _: _UNIMPLEMENTED) as port, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        monkeypatch.setattr("grpcpool.cli._bench.methods.reflected_pool", _warn)
        with pytest.raises(CommandError) as caught:
            describe_by_reflection(channel, CHECK, "{}", 1.0)
    assert is_safe(str(caught.value))
    assert not recwarn.list


def _warn(*_: object) -> None:
    import warnings  # noqa: PLC0415

    warnings.warn(HOSTILE, RuntimeWarning, stacklevel=1)
    raise TypeError(HOSTILE)
