"""`grpcpool bench` against a real server."""

from __future__ import annotations

import html.parser
import json
import pathlib
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from cli.support import CERTIFICATE, CHECK, HERE, Commands, grpc_server, no_server
from grpcpool._demo.calls import scaling_options
from grpcpool.cli._bench import load

_QUICK = ("--duration=0.7", "--warmup=0.05")
# A busy machine may not get as far as that at once.
_TRIES = 10
_LATENCIES = ("p50", "p90", "p99", "p99.9", "max", "mean")
_PROTO = HERE / "counting.proto"

# The command, which says when the first call on the pool has been counted.
_SAYS_WHEN_POOL = """
import sys
from grpcpool.__main__ import main
from grpcpool.cli._bench import run

measure, said = run.measure, []

def say(tally):
    if tally.completed and not said:
        said.append(True)
        print("the pool calls", file=sys.stderr, flush=True)

def measure_and_say(way, make, callers, plan, told):
    return measure(way, make, callers, plan, say if way == "pool" else told)

run.measure = measure_and_say
sys.exit(main({!r}))
"""


class _Loads(html.parser.HTMLParser):
    """What a page would load, and its texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "data", "action")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def _compiler() -> None:
    """Skips where the compiler does not run: old ones need what setuptools no longer has."""
    command = [sys.executable, "-m", "grpc_tools.protoc", "--version"]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:  # noqa: S603 -- as it is installed
        pytest.skip("grpcio-tools does not run here")


@pytest.fixture(scope="module")
def tls_port() -> Iterator[int]:
    """The port of a server that speaks TLS."""
    with grpc_server("--tls") as port:
        yield port


def test_it_compares_ways_and_callers(command: Commands, port: int) -> None:
    """Each way has a result for each number of callers, under keys that are documented."""
    told = command("bench", f"127.0.0.1:{port}", CHECK, "--concurrency=1,4", *_QUICK, "--json")
    assert told.code == 0
    assert told.json["method"] == f"/{CHECK}"
    assert told.json["command"].startswith(f"grpcpool bench 127.0.0.1:{port} {CHECK} --concurrency=1,4 ")
    assert not told.json["interrupted"]
    assert {"python", "grpcio", "grpcpool", "protobuf", "system"} == set(told.json["versions"])
    results = told.json["results"]
    ways = [(callers, way) for callers in (1, 4) for way in ("bare", "native", "pool")]
    assert [(result["concurrency"], result["way"]) for result in results] == ways
    for result in results:
        assert result["available"] == (result["way"] != "native" or scaling_options(1) is not None)
        if result["available"]:
            assert result["complete"]
            assert (result["failed"], result["failures"]) == (0, {})
            latencies = [value for value in result["latency_ms"].values() if value is not None]
            assert len(latencies) == (len(_LATENCIES) if result["completed"] else 0)
            assert latencies[:-1] == sorted(latencies[:-1])
        assert tuple(result.get("latency_ms", _LATENCIES)) == _LATENCIES
    # On a busy machine so short a time may pass without a call, but not six times.
    assert any(result.get("completed") for result in results)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere connections may not be countable")
def test_it_counts_connections(command: Commands, port: int) -> None:
    """Four callers on connections of one stream each need four of them; a channel of gRPC's has one."""
    options = ("--concurrency=4", "--compare=bare,pool", "--max-size=4", "--max-streams=1", "--json")
    for _ in range(_TRIES):
        bare, pool = command("bench", f"127.0.0.1:{port}", CHECK, *options, *_QUICK).json["results"]
        if (bare["connections"], pool["connections"]) == (1, 4):
            return
    pytest.fail(f"never four connections in {_TRIES} tries")


def test_the_table_has_a_row_for_each(command: Commands, port: int) -> None:
    """Without `--json` there is a table."""
    told = command("bench", f"127.0.0.1:{port}", CHECK, "--compare=pool", "--concurrency=2", *_QUICK)
    assert told.code == 0
    assert re.search(r"^ +2 +pool +[\d,]+( +[\d.,-]+){5} +\S+ +0 *$", told.out, re.MULTILINE)


def test_requests_come_from_json(command: Commands, port: int, tmp_path: pathlib.Path) -> None:
    """The data are checked by what the server describes, whether they are given or in a file."""
    (tmp_path / "request.json").write_text('{"service": ""}')
    ask = ("bench", f"127.0.0.1:{port}", CHECK, "--compare=bare", "--concurrency=1", *_QUICK, "--data")
    assert command(*ask, f"@{tmp_path / 'request.json'}").code == 0
    unknown = command(*ask, '{"service": "nobody"}')
    assert (unknown.code, "NOT_FOUND" in unknown.line) == (1, True)
    wrong = command(*ask, '{"servant": ""}')
    assert (wrong.code, "--data is no grpc.health.v1.HealthCheckRequest" in wrong.line) == (2, True)
    assert command(*ask, "@nowhere.json").code == 2


@pytest.mark.usefixtures("_compiler")
def test_proto_files_describe_streams(command: Commands) -> None:
    """With `--proto` no reflection is needed; a stream is read to its end."""
    with grpc_server("--bare") as port:
        ask = ("bench", f"127.0.0.1:{port}", "cli.Counting/Count", "--compare=bare", "--concurrency=1", *_QUICK)
        told = command(*ask, "--proto", _PROTO, "--json")
        without = command(*ask)
        failing = command(*ask, "--proto", _PROTO, "--data", '{"failure": "yes"}')
    assert (told.code, told.json["results"][0]["failed"]) == (0, 0)
    assert (without.code, "serves no reflection" in without.line) == (1, True)
    assert (failing.code, "UNKNOWN" in failing.line) == (1, True)


def test_reflection_of_either_version_will_do(command: Commands) -> None:
    """A server that serves `v1` alone describes its methods as well; both commands see it."""
    with grpc_server("--v1") as port:
        told = command("bench", f"127.0.0.1:{port}", CHECK, "--compare=bare", "--concurrency=1", *_QUICK)
        (address,) = command("probe", f"127.0.0.1:{port}", "--json").json["addresses"]
    assert told.code == 0
    assert address["reflection"] == ["v1"]
    assert "grpc.health.v1.Health" in address["services"]


def test_what_cannot_be_called(command: Commands, port: int) -> None:
    """A method that is not there, or that is none, is told in one line."""
    ask = ("bench", f"127.0.0.1:{port}")
    assert "there is no service nobody.Nothing" in command(*ask, "nobody.Nothing/Do").line
    assert "has no method Chek, but Check" in command(*ask, "grpc.health.v1.Health/Chek").line
    assert "expected package.Service/Method" in command(*ask, "Check").line


@pytest.mark.usefixtures("_compiler")
def test_proto_files_that_do_not_help(command: Commands, port: int, tmp_path: pathlib.Path) -> None:
    """A method that takes a stream, and a file that is no description, are told in one line."""
    ask = ("bench", f"127.0.0.1:{port}")
    assert "takes a stream" in command(*ask, "cli.Counting/Collect", "--proto", _PROTO).line
    (tmp_path / "bad.proto").write_text("no proto")
    bad = command(*ask, "a.B/C", "--proto", tmp_path / "bad.proto")
    assert (bad.code, "the files cannot be compiled" in bad.line) == (1, True)


def test_proto_needs_a_compiler(
    command: Commands, port: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is none, or none that runs, the line says so."""
    package = tmp_path / "grpc_tools"
    package.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    ask = ("bench", f"127.0.0.1:{port}", "cli.Counting/Count", "--proto", _PROTO)
    (package / "__init__.py").write_text("raise ModuleNotFoundError('No module named grpc_tools')")
    assert command(*ask).line.endswith('pip install "grpcpool[cli]" grpcio-tools')
    (package / "__init__.py").write_text("import a_module_of_old")
    assert "a newer grpcio-tools may" in command(*ask).line


def test_nobody_there(command: Commands) -> None:
    """A closed port is told in one line."""
    with no_server() as port:
        told = command("bench", f"127.0.0.1:{port}", CHECK)
    assert told.code == 1
    assert "the server cannot be asked: UNAVAILABLE" in told.line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--concurrency=1,x"], "'x' is no number of callers"),
        (["--concurrency=0"], "'0' is no number of callers"),
        (["--compare=bare,best"], "'best' is not one of bare, native, pool"),
        (["--report=/nowhere/at/all.html"], "there is no such folder"),
        (["--report=."], "is a folder"),
    ],
)
def test_usage(command: Commands, arguments: list[str], words: str) -> None:
    """What makes no sense ends with 2, before anybody is called."""
    told = command("bench", "localhost:1", CHECK, *arguments)
    assert told.code == 2
    assert words in told.line


def test_more_callers_than_threads(command: Commands, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system has no thread for one more caller, the line says so."""

    class Scarce(threading.Thread):
        def start(self) -> None:
            if getattr(self, "_target", None) is load._keep_calling:
                raise RuntimeError("can't start new thread")
            super().start()

    monkeypatch.setattr(threading, "Thread", Scarce)
    told = command("bench", f"127.0.0.1:{port}", CHECK, "--concurrency=7", *_QUICK)
    assert told.code == 1
    assert "7 callers need a thread each; after 0: can't start new thread" in told.line


def test_tls(command: Commands, tls_port: int) -> None:
    """Every way speaks TLS as told."""
    options = ("--ca", CERTIFICATE, "--authority", "localhost", "--concurrency=2", "--json", *_QUICK)
    told = command("bench", f"127.0.0.1:{tls_port}", CHECK, *options)
    assert all(result["failed"] == 0 for result in told.json["results"] if result["available"])


def test_the_report_needs_nothing_else(command: Commands, port: int, tmp_path: pathlib.Path) -> None:
    """It is one page with every way's lines, the table and the versions, and would load nothing."""
    path = tmp_path / "report.html"
    options = ("--report", path, "--concurrency=1,3", "--compare=bare,pool", *_QUICK)
    assert command("bench", f"127.0.0.1:{port}", CHECK, *options).code == 0
    page = path.read_text(encoding="utf-8")
    loads = _Loads(page)
    assert loads.addresses == []
    assert not {"link", "img", "iframe", "object"} & set(loads.tags)
    assert "default-src 'none'" in page
    assert "prefers-color-scheme: dark" in page
    figures = json.loads(re.search(r"^const figures = (.*);$", page, re.MULTILINE)[1])  # type: ignore[index]
    assert set(figures) == {"time-1", "curve-1", "time-3", "curve-3"}
    assert [line["name"] for line in figures["time-3"]] == ["bare p50", "bare p99", "pool p50", "pool p99"]
    assert [line["name"] for line in figures["curve-3"]] == ["bare", "pool"]
    assert {"grpcio", "p99.9", "calls/s", "bare", "pool"} <= set(loads.texts)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such signal")
@pytest.mark.usefixtures("interruptible")
def test_it_can_be_interrupted(port: int, tmp_path: pathlib.Path) -> None:
    """Ctrl-C ends it with 130, what there is by then, and the report."""
    path = tmp_path / "report.html"
    options = ["--compare=bare,pool", "--concurrency=2", "--json", "--duration=1.5", "--warmup=0"]
    arguments = ["bench", f"127.0.0.1:{port}", CHECK, *options, "--report", str(path)]
    program = _SAYS_WHEN_POOL.format(arguments)
    with subprocess.Popen(  # noqa: S603 -- our own
        [sys.executable, "-W", "error", "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "the pool calls\n"
        process.send_signal(signal.SIGINT)
        out, complaints = process.communicate(timeout=60)
    assert (process.returncode, complaints) == (130, "")
    told = json.loads(out)
    assert told["interrupted"]
    ended = [(result["complete"], result["completed"] > 0) for result in told["results"]]
    assert ended in ([(True, True), (False, True)], [(True, False), (False, True)])
    assert "It was interrupted" in path.read_text(encoding="utf-8")
